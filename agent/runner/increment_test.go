package runner

import (
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// I3: a host that fails to tell what changed costs a full read, and no more: the run succeeds, says why, and the next one is an increment again.
func TestFailedChangeQueryIsAFullRead(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	wantSuccess(t, r.backup("first"))
	r.host.Faults().FailNext(emulator.Fault{Method: "QueryChangesVirtualDisk", ReturnValue: virtdisk.CodeAccessDenied})
	second := r.backup("second")
	wantSuccess(t, second)
	if got := second.Status.Image; got.Type != v1alpha1.ImageFull || got.Disks[0].Reason != "QueryFailed" || !strings.Contains(got.Disks[0].Message, "error 5") {
		t.Errorf("the second image is %+v", got)
	}
	third := r.backup("third")
	wantSuccess(t, third)
	if got := third.Status.Image; got.Type != v1alpha1.ImageIncremental {
		t.Errorf("the third image is %+v", got)
	}
}

// I3: a virtual machine that was taken back to a checkpoint is read in full, though its host still answers the base's tracking id.
func TestRevertedDiskIsReadInFull(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	r.set("state: running\ntroubles: [trackingKept]\n")
	r.grow("a")
	for _, run := range []struct {
		name, reason string
		before       func()
	}{
		{"first", "FirstBackup", func() { r.guest("b") }},
		{"second", "ChangesKnown", func() { r.grow("c") }},
		{"third", "AnotherFile", func() {
			r.apply(r.machine("crm"), "a")
			r.call("Msvm_ComputerSystem WHERE ElementName='crm'", "RequestStateChange", wmi.Params{"RequestedState": int64(2)})
		}},
		{"fourth", "ChangesKnown", func() { r.guest("d") }},
	} {
		run.before()
		task := r.backup(run.name)
		wantSuccess(t, task)
		if got := task.Status.Image.Disks[0]; got.Reason != run.reason {
			t.Errorf("the disk of the %s image was read for %s: %s", run.name, got.Reason, got.Message)
		}
	}
}

// AC-04: tracking that cannot be switched on while the machine runs comes with the first checkpoint's conversion. Only a disk that has none then is named.
func TestTrackingBeginsWithTheConversion(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	r.set("state: running\ntroubles: [liveFilesHeld]\n")
	first := r.backup("first")
	wantSuccess(t, first)
	if len(first.Status.Warnings) > 0 {
		t.Errorf("warnings of the first: %+v", first.Status.Warnings)
	}
	r.set("state: running\ntroubles: [liveFilesHeld, unequalArrays]\n")
	second := r.backup("second")
	wantSuccess(t, second)
	if got := second.Status.Image.Disks[0].Reason; got != "ChangesKnown" {
		t.Errorf("the second image was read for %s", got)
	}
	if got := second.Status.Warnings; len(got) != 1 || got[0].Reason != "TrackingUnavailable" || !strings.Contains(got[0].Message, "SCSI-0-0") {
		t.Errorf("warnings of the second: %+v", got)
	}
}
