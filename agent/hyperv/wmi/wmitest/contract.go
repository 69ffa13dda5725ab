package wmitest

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// patience bounds a test of the suite; a busy machine is slow, a stuck test is a failure.
const patience = 2 * time.Minute

// Run checks the whole contract. The host is left as it was.
func Run(t *testing.T, h Host) {
	for _, test := range []struct {
		name string
		run  func(*world)
	}{
		{"values of every type arrive as they are", valuesArrive},
		{"an instance is the same by query, path and association", instancesAgree},
		{"every class has the properties and types that it declares", classesAgree},
		{"queries select and compare", queriesSelect},
		{"wrong calls are refused, and nothing is called", wrongCalls},
		{"methods without parameters tell their return value", plainMethods},
		{"a method makes a job, and the job what it affects", jobsAffect},
		{"a job that fails says why", jobsFail},
		{"embedded instances change what they name", embeddedInstances},
		{"lists of embedded instances and of references go in and out", lists},
		{"calls run beside each other", concurrentCalls},
		{"a call whose context has ended returns", endedCalls},
		{"a session outlives a restart of the service", restarts},
		{"want of rights is told", denials},
		{"a property that cannot be read fails the whole answer", failedProperties},
		{"events tell what comes, changes and goes", events},
		{"a subscription ends with the service", subscriptionsEnd},
		{"wrong event queries are refused", wrongEventQueries},
		{"a namespace that is missing is told", missingNamespace},
		{"a session can be closed twice", closedTwice},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			w := &world{T: t, ctx: ctx, host: h}
			w.virt, w.cim = w.open(wmi.NamespaceVirtualization), w.open(wmi.NamespaceCIMv2)
			test.run(w)
		})
	}
}

// world is a host as a test sees it.
type world struct {
	*testing.T
	ctx       context.Context
	host      Host
	virt, cim wmi.Session
}

func (w *world) open(namespace string) wmi.Session {
	s := w.host.Open(w.T, namespace)
	w.Cleanup(func() {
		if err := s.Close(); err != nil {
			w.Error(err)
		}
	})
	return s
}

func (w *world) query(s wmi.Session, format string, args ...any) []wmi.Instance {
	w.Helper()
	wql := fmt.Sprintf(format, args...)
	out, err := s.Query(w.ctx, wql)
	if err != nil {
		w.Fatalf("%s: %v", wql, err)
	}
	return out
}

// one returns the only instance that a query finds.
func (w *world) one(s wmi.Session, format string, args ...any) wmi.Instance {
	w.Helper()
	all := w.query(s, format, args...)
	if len(all) != 1 {
		w.Fatalf("%s found %d instances", fmt.Sprintf(format, args...), len(all))
	}
	return all[0]
}

func (w *world) vm() wmi.Instance {
	w.Helper()
	return w.one(w.virt, "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = %s", wmi.Quote(vmName))
}

// settings is the settings object of the VM itself.
func (w *world) settings() wmi.Instance {
	w.Helper()
	return w.settingsOf(w.vm())
}

func (w *world) settingsOf(vm wmi.Instance) wmi.Instance {
	w.Helper()
	found, err := w.virt.Associators(w.ctx, vm.Path, "Msvm_SettingsDefineState", "Msvm_VirtualSystemSettingData")
	if err != nil || len(found) != 1 {
		w.Fatalf("%d settings: %v", len(found), err)
	}
	return found[0]
}

// call calls a method of a service and waits for its job.
func (w *world) call(class, method string, in wmi.Params) (wmi.Done, error) {
	w.Helper()
	return wmi.Call(w.ctx, w.virt, clock{}, w.one(w.virt, "SELECT * FROM %s", class).Path, method, in)
}

func (w *world) mustCall(class, method string, in wmi.Params) wmi.Done {
	w.Helper()
	done, err := w.call(class, method, in)
	if err != nil {
		w.Fatal(err)
	}
	return done
}

// checkpoint makes a recovery checkpoint and returns its settings.
func (w *world) checkpoint() wmi.Instance {
	w.Helper()
	done := w.mustCall(snapshotService, "CreateSnapshot", w.checkpointOf(map[string]any{
		"ConsistencyLevel": int64(2), "IgnoreNonSnapshottableDisks": true,
	}))
	made, err := wmi.Affected(w.ctx, w.virt, done.Job, "Msvm_VirtualSystemSettingData")
	if err != nil || len(made) != 1 {
		w.Fatalf("the job made %d checkpoints: %v", len(made), err)
	}
	return made[0]
}

func (w *world) checkpointOf(settings map[string]any) wmi.Params {
	return wmi.Params{
		"AffectedSystem": w.vm().Path, "SnapshotType": int64(32768),
		"SnapshotSettings": wmi.Object{Class: "Msvm_VirtualSystemSnapshotSettingData", Properties: settings},
	}
}

func (w *world) destroy(checkpoint wmi.Instance) {
	w.Helper()
	w.mustCall(snapshotService, "DestroySnapshot", wmi.Params{"AffectedSnapshot": checkpoint.Path})
}

const (
	snapshotService   = "Msvm_VirtualSystemSnapshotService"
	managementService = "Msvm_VirtualSystemManagementService"
)

// clock is the real one.
type clock struct{}

func (clock) Now() time.Time                         { return time.Now() }
func (clock) After(d time.Duration) <-chan time.Time { return time.After(d) }
