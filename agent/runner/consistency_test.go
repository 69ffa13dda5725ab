package runner

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// TestGuestIsAskedAsOftenAsThePolicySays: NW-06, NW-07 and NW-08, by what the guest was asked.
func TestGuestIsAskedAsOftenAsThePolicySays(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	r.set("state: running\nintegrationServices: failing\n")
	at := func(level v1alpha1.ConsistencyLevel) func(*v1alpha1.BackupTask) {
		return func(b *v1alpha1.BackupTask) { b.Consistency.Level = level }
	}
	for _, c := range []struct {
		name  string
		level v1alpha1.ConsistencyLevel
		asked int
		image v1alpha1.AchievedConsistency // "" for none
	}{
		{"falls-back", v1alpha1.LevelApplicationThenCrash, 2, v1alpha1.ConsistencyCrash},
		{"insists", v1alpha1.LevelApplication, 2, ""},
		{"does-not-ask", v1alpha1.LevelCrash, 0, v1alpha1.ConsistencyCrash},
	} {
		before := r.host.QuiesceCalls()
		task := r.backup(c.name, at(c.level))
		if asked := r.host.QuiesceCalls() - before; asked != c.asked {
			t.Errorf("%s: the guest was asked %d times", c.level, asked)
		}
		var got v1alpha1.AchievedConsistency
		if task.Status.Image != nil {
			got = task.Status.Image.Consistency
		}
		if failed := task.Status.Failure != nil; got != c.image || failed != (c.image == "") {
			t.Errorf("%s: the image is %q, the failure %+v", c.level, got, task.Status.Failure)
		}
		r.clean(task)
	}
	job := &v1alpha1.BackupJob{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}}
	job.Spec.RepositoryRef.Name, job.Spec.VirtualMachineRef.Name = repository, "crm"
	r.create(job)
	if got := job.Spec.Consistency.Level; got != v1alpha1.LevelApplication {
		t.Errorf("the default level is %q (NW-06)", got)
	}
}

// TestMergeThatGoesOnIsNeverCalledReleased: NW-18. A merge that outlasts the time is pending, is watched, and is released only when it has ended.
func TestMergeThatGoesOnIsNeverCalledReleased(t *testing.T) {
	r := newRig(t)
	id := r.machine("crm").ID
	intent, err := r.logic.PrepareCheckpoint(t.Context(), id, hyperv.Crash)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := r.logic.Checkpoint(t.Context(), hyperv.CheckpointRequest{VMID: id, Tag: "task", Level: hyperv.Crash, Intent: intent})
	if err != nil {
		t.Fatal(err)
	}
	disks, _, err := r.logic.Disks(t.Context(), taken)
	if err != nil {
		t.Fatal(err)
	}
	journal, err := OpenJournal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	release := &release{host: r.logic, journal: journal, clock: clock.RealClock{}}
	leave := func(limit time.Duration) outcome {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		return release.leave(ctx, Entry{Tag: "task", VirtualMachineID: id, Checkpoint: &taken, Disks: disks})
	}
	r.host.Faults().HoldMerges()
	for range 2 {
		if got := leave(2 * time.Second); got.status != metav1.ConditionFalse || got.reason != v1alpha1.ReasonMergePending {
			t.Errorf("while the merge goes on: %+v", got)
		}
	}
	r.host.Faults().ReleaseMerges()
	if got := leave(time.Minute); got.status != metav1.ConditionTrue || got.reason != v1alpha1.ReasonReleased {
		t.Errorf("after the merge: %+v", got)
	}
}
