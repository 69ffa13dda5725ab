package wmitest

import (
	"context"
	"errors"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func concurrentCalls(w *world) {
	settings := w.settings()
	var wg sync.WaitGroup
	for range 12 { // more than a session of Windows has threads
		wg.Go(func() {
			for range 3 {
				if got, err := w.virt.Get(w.ctx, settings.Path); err != nil || len(got.Properties) != len(settings.Properties) {
					w.Errorf("%d properties, %v", len(got.Properties), err)
				}
			}
		})
	}
	wg.Wait()
}

func endedCalls(w *world) {
	ended, cancel := context.WithCancel(w.ctx)
	cancel()
	vm := w.vm()
	for name, err := range map[string]error{
		"query": second(w.virt.Query(ended, "SELECT * FROM Msvm_ComputerSystem")), "get": second(w.virt.Get(ended, vm.Path)),
		"associators": second(w.virt.Associators(ended, vm.Path, "Msvm_SettingsDefineState", "Msvm_VirtualSystemSettingData")),
		"invoke":      second(w.virt.Invoke(ended, vm.Path, "RequestStateChange", wmi.Params{"RequestedState": int64(3)})),
		"watch":       second(w.virt.(wmi.Watcher).Watch(ended, watched(wmi.EventOperation))),
	} {
		if !errors.Is(err, context.Canceled) {
			w.Errorf("%s: %v", name, err)
		}
	}
	if got := w.vm().Properties["EnabledState"]; got != int64(2) {
		w.Errorf("a call that was given up before it began changed the state to %v", got)
	}
}

func restarts(w *world) {
	vm := w.vm()
	for range 2 {
		w.host.Restart(w.T)
		if _, err := w.virt.Get(w.ctx, vm.Path); err != nil && !errors.Is(err, wmi.ErrDisconnected) {
			w.Errorf("the first call after a restart: %v", err)
		}
		if _, err := w.virt.Get(w.ctx, vm.Path); err != nil {
			w.Errorf("the second call after a restart: %v", err)
		}
	}
}

func denials(w *world) {
	vm := w.vm()
	w.host.Deny(w.T, true)
	fresh := w.open(wmi.NamespaceVirtualization)
	for name, err := range map[string]error{
		"query": second(w.virt.Query(w.ctx, "SELECT * FROM Msvm_ComputerSystem")), "get": second(w.virt.Get(w.ctx, vm.Path)),
		"a new session": second(fresh.Get(w.ctx, vm.Path)),
	} {
		if !errors.Is(err, wmi.ErrAccessDenied) {
			w.Errorf("%s: %v", name, err)
		}
	}
	w.host.Deny(w.T, false)
	for _, s := range []wmi.Session{w.virt, fresh} {
		if _, err := s.Get(w.ctx, vm.Path); err != nil {
			w.Error(err)
		}
	}
}

func failedProperties(w *world) {
	if w.host.FailProperty == nil {
		w.Skip("instances arrive as a whole")
	}
	w.host.FailProperty(w.T, "Msvm_ComputerSystem", "ElementName")
	if got, err := w.virt.Query(w.ctx, "SELECT * FROM Msvm_ComputerSystem"); err == nil || got != nil {
		w.Errorf("%v, %v", got, err)
	}
	w.query(w.virt, "SELECT * FROM Msvm_ComputerSystem")
}

func missingNamespace(w *world) {
	cluster := w.open(wmi.NamespaceCluster)
	for range 2 {
		if _, err := cluster.Query(w.ctx, "SELECT * FROM MSCluster_Cluster"); !errors.Is(err, wmi.ErrInvalidNamespace) {
			w.Errorf("a host without a cluster: %v", err)
		}
	}
}

func closedTwice(w *world) {
	used, unused := w.host.Open(w.T, wmi.NamespaceVirtualization), w.host.Open(w.T, wmi.NamespaceVirtualization)
	w.query(used, "SELECT * FROM Msvm_ComputerSystem")
	for range 2 {
		if err := errors.Join(used.Close(), unused.Close()); err != nil {
			w.Error(err)
		}
	}
}

// watched is a query for events of settings, which change only on demand.
func watched(class string) string {
	return "SELECT * FROM " + class + " WITHIN 0.1 WHERE TargetInstance ISA 'Msvm_VirtualSystemSettingData'"
}

func (w *world) watch(wql string) wmi.Subscription {
	w.Helper()
	s, err := w.virt.(wmi.Watcher).Watch(w.ctx, wql)
	if err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() {
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			w.Error(err)
		}
	})
	return s
}

func (w *world) next(s wmi.Subscription, class string) wmi.Event {
	w.Helper()
	e, err := s.Next(w.ctx)
	if err != nil || e.Class != class {
		w.Fatalf("the event is %q, not %q: %v", e.Class, class, err)
	}
	return e
}

func events(w *world) {
	created, deleted := w.watch(watched(wmi.EventCreation)), w.watch(watched(wmi.EventDeletion))
	changed := w.watch(watched(wmi.EventOperation) + " AND TargetInstance.VirtualSystemType = 'Microsoft:Hyper-V:System:Realized'")
	ended, cancel := context.WithCancel(w.ctx)
	cancel()
	if _, err := created.Next(ended); !errors.Is(err, context.Canceled) {
		w.Errorf("next after the end of its context: %v", err)
	}
	checkpoint := w.checkpoint()
	e := w.next(created, wmi.EventCreation)
	if e.Target.Properties["InstanceID"] != checkpoint.Properties["InstanceID"] || e.Target.Class != checkpoint.Class || e.Previous.Properties != nil {
		w.Errorf("created: %+v", e)
	}
	if got, err := w.virt.Get(w.ctx, e.Target.Path); err != nil || got.Path != checkpoint.Path {
		w.Errorf("the path of an event leads to %q: %v", got.Path, err)
	}
	w.destroy(checkpoint)
	if e := w.next(deleted, wmi.EventDeletion); e.Target.Properties["InstanceID"] != checkpoint.Properties["InstanceID"] {
		w.Errorf("deleted: %+v", e)
	}
	settings := w.settings()
	for _, notes := range [][]string{{"changed"}, settings.Properties["Notes"].([]string)} {
		w.mustCall(managementService, "ModifySystemSettings", wmi.Params{
			"SystemSettings": wmi.Object{Class: settings.Class, Path: settings.Path, Properties: map[string]any{"Notes": notes}},
		})
		for {
			e := w.next(changed, wmi.EventChange)
			if got, _ := e.Target.Strings("Notes"); len(got) == len(notes) && got[0] == notes[0] {
				if before, _ := e.Previous.Strings("Notes"); len(before) == 0 || before[0] == got[0] {
					w.Errorf("before it was %v", before)
				}
				break
			}
		}
	}
}

func subscriptionsEnd(w *world) {
	s := w.watch(watched(wmi.EventOperation))
	w.host.Restart(w.T)
	for range 2 {
		if _, err := s.Next(w.ctx); !errors.Is(err, wmi.ErrDisconnected) {
			w.Errorf("next without the service: %v", err)
		}
	}
	w.watch(watched(wmi.EventOperation))
}

func wrongEventQueries(w *world) {
	const head = "SELECT * FROM __InstanceCreationEvent "
	for query, want := range map[string]error{
		head + "WHERE TargetInstance ISA 'Msvm_ComputerSystem'": wmi.ErrInvalidQuery,
		head + "WITHIN 1": wmi.ErrInvalidQuery,
		head + "WITHIN 1 WHERE TargetInstance.Name = 'x'":                                                wmi.ErrInvalidQuery,
		head + "WITHIN 1 WHERE TargetInstance ISA 'Msvm_ComputerSystem' AND Name = 'x'":                  wmi.ErrInvalidQuery,
		head + "WITHIN 1 WHERE TargetInstance ISA 'Msvm_ComputerSystem' AND PreviousInstance.Name = 'x'": wmi.ErrInvalidQuery,
		head + "WITHIN 1 WHERE TargetInstance ISA 'Msvm_ComputerSystem' AND TargetInstance.Names = 'x'":  wmi.ErrInvalidQuery,
		head + "WITHIN 1 WHERE TargetInstance ISA 'Msvm_ComputerSytem'":                                  wmi.ErrInvalidClass,
		"SELECT * FROM Msvm_ComputerSystem WITHIN 1 WHERE TargetInstance ISA 'Msvm_ComputerSystem'":      wmi.ErrInvalidClass,
		"SELECT FROM": wmi.ErrInvalidQuery,
	} {
		if _, err := w.virt.(wmi.Watcher).Watch(w.ctx, query); !errors.Is(err, want) {
			w.Errorf("%s: %v, not %v", query, err, want)
		}
	}
	for _, query := range []string{
		"SELECT * FROM Msvm_ComputerSystem WITHIN 2", "SELECT * FROM Msvm_ComputerSystem WHERE TargetInstance ISA 'Msvm_ComputerSystem'",
	} {
		if _, err := w.virt.Query(w.ctx, query); !errors.Is(err, wmi.ErrInvalidQuery) {
			w.Errorf("%s: %v", query, err)
		}
	}
}
