package runner

import (
	"context"
	"testing"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
)

// noTasks is an API server that has no tasks.
type noTasks struct{ client.Client }

func (noTasks) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

func (r *rig) journal() *Journal {
	r.t.Helper()
	journal, err := OpenJournal(r.t.TempDir())
	if err != nil {
		r.t.Fatal(err)
	}
	return journal
}

// TestPlannedCopyOfAReplacedMachineIsTheRestoresOwn proves that sweeping spares what a restore that the journal knows is about to put back.
func TestPlannedCopyOfAReplacedMachineIsTheRestoresOwn(t *testing.T) {
	r := newHostOnly(t, "")
	r.leavePlanned("restore-1 (put back)")
	journal := r.journal()
	sweeper := &Sweeper{Host: r.logic, Journal: journal, Client: noTasks{}, Tasks: &Tasks{}}
	sweep := func(want int) {
		t.Helper()
		tags, err := r.logic.PlannedTags(t.Context())
		if err == nil {
			err = sweeper.sweepPlanned(t.Context(), tags)
		}
		if err != nil || r.planned() != want {
			t.Errorf("%d planned virtual machines, not %d: %v", r.planned(), want, err)
		}
	}
	entry := Entry{Tag: "task-1", Restore: &RestoreEntry{ID: "restore-1", Exchange: &hyperv.Exchange{}}}
	if err := journal.Put(entry); err != nil {
		t.Fatal(err)
	}
	sweep(1)
	if err := journal.Delete(entry.Tag); err != nil {
		t.Fatal(err)
	}
	sweep(0)
}
