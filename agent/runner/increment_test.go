package runner

import (
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
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
