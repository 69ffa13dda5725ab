package runner

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// TestBackupsWhereNoCheckpointGetsAName: I4. Hyper-V renames no recovery checkpoint, and backups go on, incremental ones, and leave nothing.
func TestBackupsWhereNoCheckpointGetsAName(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	r.set("state: running\ntroubles: [namesRefused]\n")
	for _, c := range []struct {
		name string
		want v1alpha1.ImageType
	}{{"first", v1alpha1.ImageFull}, {"second", v1alpha1.ImageIncremental}} {
		task := r.backup(c.name)
		wantSuccess(t, task)
		if task.Status.Image.Type != c.want || len(task.Status.Warnings) != 0 {
			t.Errorf("%s is %s, with warnings %+v", c.name, task.Status.Image.Type, task.Status.Warnings)
		}
		r.clean(task)
		if left := r.machine("crm").Checkpoints; len(left) != 0 {
			t.Errorf("%s left %+v", c.name, left)
		}
	}
}

// TestUnnamedCheckpointOfADeadSessionIsReleased: I4, whatever the journal has of it.
func TestUnnamedCheckpointOfADeadSessionIsReleased(t *testing.T) {
	for name, c := range map[string]struct {
		journal    func(*Entry)
		recognized bool // before anybody looks for it
	}{
		"what was to be taken": {func(e *Entry) { e.Checkpoint = nil }, false},
		"what was taken":       {func(*Entry) {}, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newHostOnly(t, "")
			r.set("state: running\ntroubles: [namesRefused]\n")
			id, journal := r.machine("crm").ID, r.journal()
			intent, err := r.logic.PrepareCheckpoint(t.Context(), id, hyperv.Crash)
			if err != nil {
				t.Fatal(err)
			}
			taken, err := r.logic.Checkpoint(t.Context(), hyperv.CheckpointRequest{VMID: id, Tag: "task-1", Level: hyperv.Crash, Intent: intent})
			if err != nil {
				t.Fatal(err)
			}
			entry := Entry{Tag: "task-1", VirtualMachineID: id, Intent: intent, Checkpoint: &taken}
			c.journal(&entry)
			if err := journal.Put(entry); err != nil {
				t.Fatal(err)
			}
			r.logic = hyperv.New(hyperv.Seams{
				Virtualization: r.host.Session(wmi.NamespaceVirtualization), CIM: r.host.Session(wmi.NamespaceCIMv2),
				Disks: r.host.Disks(), Files: r.host.Files(), Clock: clock.RealClock{},
			})
			if err := recognize(r.logic, journal); err != nil {
				t.Fatal(err)
			}
			if got := r.machine("crm").Checkpoints[0].Tag == "task-1"; got != c.recognized {
				t.Errorf("the checkpoint is ours to the new session: %v", got)
			}
			got := (&release{host: r.logic, journal: journal, clock: clock.RealClock{}}).leave(t.Context(), entry)
			if got.status != metav1.ConditionTrue || len(r.machine("crm").Checkpoints) != 0 {
				t.Errorf("%+v, and left are %+v", got, r.machine("crm").Checkpoints)
			}
		})
	}
}
