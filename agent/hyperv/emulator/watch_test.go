package emulator

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func (w *world) watch(query string) wmi.Subscription {
	w.t.Helper()
	events, err := w.session.(wmi.Watcher).Watch(w.ctx, query)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { events.Close() })
	return events
}

func (w *world) next(events wmi.Subscription) wmi.Event {
	w.t.Helper()
	event, err := events.Next(w.ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	return event
}

func TestEventsTellWhatHappensToVMs(t *testing.T) {
	eachWay(t, richVM, func(t *testing.T, h *Host, w *world) {
		created := w.watch("SELECT * FROM __InstanceCreationEvent WITHIN 0.02 WHERE TargetInstance ISA 'Msvm_ComputerSystem'")
		addVM(t, w.dir, "web", "name: web\n")
		if e := w.next(created); e.Class != wmi.EventCreation || e.Target.Properties["ElementName"] != "web" || e.Previous.Path != "" {
			t.Errorf("created: %+v", e)
		}
		changed := w.watch("SELECT * FROM __InstanceModificationEvent WITHIN 0.02 WHERE TargetInstance ISA 'Msvm_ComputerSystem'" +
			" AND TargetInstance.EnabledState <> PreviousInstance.EnabledState")
		deleted := w.watch("SELECT * FROM __InstanceOperationEvent WITHIN 0.02 WHERE TargetInstance ISA 'CIM_ComputerSystem'" +
			" AND TargetInstance.ElementName = 'web' AND TargetInstance.EnabledState <> 2")
		write(t, filepath.Join(w.dir, "web", "vm.yaml"), "name: web\nstate: off\ndisks:\n- path: system.vhdx\n")
		e := w.next(changed)
		if e.Target.Properties["EnabledState"] != int64(3) || e.Previous.Properties["EnabledState"] != int64(2) || e.Class != wmi.EventChange {
			t.Errorf("changed: %+v", e)
		}
		if e := w.next(deleted); e.Class != wmi.EventChange {
			t.Errorf("an operation: %+v", e)
		}
		if err := os.RemoveAll(filepath.Join(w.dir, "web")); err != nil {
			t.Fatal(err)
		}
		for e = w.next(deleted); e.Class == wmi.EventChange; e = w.next(deleted) { // critical at first: its disk went before its definition
		}
		if e.Class != wmi.EventDeletion || e.Target.Properties["ElementName"] != "web" {
			t.Errorf("deleted: %+v", e)
		}
	})
}

func TestWatchesEnd(t *testing.T) {
	eachWay(t, richVM, func(t *testing.T, h *Host, w *world) {
		const query = "SELECT * FROM __InstanceCreationEvent WITHIN 0.02 WHERE TargetInstance ISA 'Msvm_ComputerSystem'"
		events := w.watch(query)
		ended, cancel := context.WithCancel(w.ctx)
		cancel()
		if _, err := events.Next(ended); !errors.Is(err, context.Canceled) {
			t.Errorf("next after the end of its context: %v", err)
		}
		h.Faults().Disconnect(1)
		for range 2 {
			if _, err := events.Next(w.ctx); !errors.Is(err, wmi.ErrDisconnected) {
				t.Errorf("next without the service: %v", err)
			}
		}
		if err := w.watch(query).Close(); err != nil {
			t.Error(err)
		}
		if _, err := w.session.(wmi.Watcher).Watch(ended, query); !errors.Is(err, context.Canceled) {
			t.Errorf("watch after the end of its context: %v", err)
		}
	})
}
