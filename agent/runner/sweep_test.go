package runner

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
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
	sweeper := &Sweeper{Host: r.logic, Journal: journal, Client: noTasks{}, Tasks: &Tasks{}, Limit: time.Minute}
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

// TestSweepOfAHostThatHangsEnds: I4. The next sweep finds what this one could not.
func TestSweepOfAHostThatHangsEnds(t *testing.T) {
	r := newHostOnly(t, "")
	hangs := &atomic.Bool{}
	hangs.Store(true)
	host := hyperv.New(hyperv.Seams{
		Virtualization: hanging{r.host.Session(wmi.NamespaceVirtualization), hangs}, CIM: r.host.Session(wmi.NamespaceCIMv2),
		Disks: r.host.Disks(), Files: r.host.Files(), Clock: clock.RealClock{},
	})
	r.leavePlanned("restore-1")
	sweeper := &Sweeper{Host: host, Journal: r.journal(), Client: noTasks{}, Tasks: &Tasks{}, Limit: 50 * time.Millisecond}
	bounded, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := sweeper.sweep(bounded); !errors.Is(err, errNoAnswer) {
		t.Errorf("the sweep ended with %v", err)
	}
	hangs.Store(false)
	sweeper.Limit = time.Minute
	if err := sweeper.sweep(t.Context()); err != nil || r.planned() != 0 {
		t.Errorf("%d planned virtual machines are left: %v", r.planned(), err)
	}
}
