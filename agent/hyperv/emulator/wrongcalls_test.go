package emulator

import (
	"errors"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// wrongCall is a call with one mistake in it.
type wrongCall struct {
	query  string // or:
	object string // the service that is called; "" is the VM, "path" the path in in
	method string
	in     wmi.Params
	want   error
}

func (c wrongCall) run(w *world, vm string) error {
	if c.query != "" {
		_, err := w.session.Query(w.ctx, c.query)
		return err
	}
	path := vm
	if c.object != "" {
		path = w.one("SELECT * FROM %s", c.object).Path
	}
	_, err := w.session.Invoke(w.ctx, path, c.method, c.in)
	return err
}

// wrongQueries have a class or a property wrong.
var wrongQueries = []wrongCall{
	{query: "SELECT * FROM Msvm_ComputerSytem", want: wmi.ErrInvalidClass},
	{query: "SELECT * FROM Msvm_ComputerSystems", want: wmi.ErrInvalidClass},
	{query: "SELECT * FROM MsvmComputerSystem", want: wmi.ErrInvalidClass},
	{query: "SELECT * FROM Msvm_VirtualSystemSettingsData", want: wmi.ErrInvalidClass},
	{query: "SELECT * FROM Msvm_VirtualSystemSnapshotsService", want: wmi.ErrInvalidClass},
	{query: "SELECT * FROM Msvm_ReferencePointService", want: wmi.ErrInvalidClass},
	{query: "SELECT * FROM Msvm_StorageAllocationSettings", want: wmi.ErrInvalidClass},
	{query: "SELECT * FROM Msvm_ConcretJob", want: wmi.ErrInvalidClass},
	{query: "SELECT * FROM Msvm_KvpExchangeComponentSettings", want: wmi.ErrInvalidClass},
	{query: "SELECT * FROM Win32_OperatingSystem", want: wmi.ErrInvalidClass}, // of another namespace
	{query: "SELECT * FROM MSCluster_Resource", want: wmi.ErrInvalidClass},
	{query: "SELECT * FROM Msvm_SettingsDefineState", want: wmi.ErrInvalidQuery},
	{query: "SELECT * FROM Msvm_ComputerSystem WHERE Nmae = 'x'", want: wmi.ErrInvalidQuery},
	{query: "SELECT * FROM Msvm_ComputerSystem WHERE ID = 'x'", want: wmi.ErrInvalidQuery},
	{query: "SELECT * FROM Msvm_ComputerSystem WHERE State = 2", want: wmi.ErrInvalidQuery},
	{query: "SELECT * FROM Msvm_ComputerSystem WHERE VirtualSystemIdentifier = 'x'", want: wmi.ErrInvalidQuery}, // of the settings
	{query: "SELECT * FROM Msvm_ComputerSystem WHERE EnabledState = 'x'", want: wmi.ErrInvalidQuery},
	{query: "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 7", want: wmi.ErrInvalidQuery},
	{query: "SELECT ElementNmae FROM Msvm_ComputerSystem", want: wmi.ErrInvalidQuery},
	{query: "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemTyp = 'x'", want: wmi.ErrInvalidQuery},
	{query: "SELECT * FROM Msvm_VirtualSystemSettingData WHERE Generation = 2", want: wmi.ErrInvalidQuery},
	{query: "SELECT * FROM Msvm_VirtualSystemReferencePoint WHERE Name = 'x'", want: wmi.ErrInvalidQuery},
	{query: "SELECT * FROM Msvm_StorageAllocationSettingData WHERE Path = 'x'", want: wmi.ErrInvalidQuery},
	{query: `SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'a\b'`, want: wmi.ErrInvalidQuery},
	{query: "SELECT * FROM Msvm_ComputerSystem WHERE", want: wmi.ErrInvalidQuery},
	{query: "SELECT * Msvm_ComputerSystem", want: wmi.ErrInvalidQuery},
	{query: "SELECT * FROM Msvm_ComputerSystem WITHIN 2", want: wmi.ErrInvalidQuery},
}

// snapshotOf is an embedded instance for CreateSnapshot with one property in it.
func snapshotOf(class, property string, value any) wmi.Params {
	return wmi.Params{"SnapshotType": int64(snapshotRecovery), "SnapshotSettings": wmi.Object{Class: class, Properties: map[string]any{property: value}}}
}

const snapshotSettings, systemSettings = "Msvm_VirtualSystemSnapshotSettingData", "Msvm_VirtualSystemSettingData"

// wrongMethods have a method, a parameter or a type wrong.
var wrongMethods = []wrongCall{
	{object: snapshotService, method: "MakeSnapshot", want: wmi.ErrInvalidMethod},
	{object: snapshotService, method: "CreateSnapshots", want: wmi.ErrInvalidMethod},
	{object: snapshotService, method: "DestroyReferencePoint", want: wmi.ErrInvalidMethod}, // of another service
	{object: pointService, method: "ConvertToReferencePoint", want: wmi.ErrInvalidMethod},
	{object: pointService, method: "DestroyReferencePoints", want: wmi.ErrInvalidMethod},
	{object: managementService, method: "CreateVirtualSystem", want: wmi.ErrInvalidMethod},
	{object: managementService, method: "AddVirtualSystemResources", want: wmi.ErrInvalidMethod}, // of the first namespace
	{object: "Msvm_ImageManagementService", method: "GetVirtualHardDiskInfo", want: wmi.ErrInvalidMethod},
	{method: "Start", want: wmi.ErrInvalidMethod},
	{method: "Terminate", want: wmi.ErrInvalidMethod},
	{object: snapshotService, method: "CreateSnapshot", in: wmi.Params{"AffectedSytem": `Msvm_ComputerSystem.Name="x"`}, want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: wmi.Params{"Type": int64(2)}, want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: wmi.Params{"Job": `Msvm_ConcreteJob.InstanceID="x"`}, want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: wmi.Params{"AffectedSystem": "crm"}, want: wmi.ErrInvalidParameter}, // no object path
	{object: snapshotService, method: "CreateSnapshot", in: wmi.Params{"AffectedSystem": int64(1)}, want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: wmi.Params{"AffectedSystem": []string{"x"}}, want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: wmi.Params{"SnapshotType": "32768"}, want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: wmi.Params{"SnapshotType": int64(65536)}, want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: wmi.Params{"SnapshotType": int64(-1)}, want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: wmi.Params{"SnapshotType": true}, want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: wmi.Params{"SnapshotSettings": "<INSTANCE/>"}, want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: snapshotOf("Msvm_MemorySettingData", "Limit", int64(1)), want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: snapshotOf("Msvm_SnapshotSettingData", "ConsistencyLevel", int64(1)), want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: snapshotOf(snapshotSettings, "Consistency", int64(1)), want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: snapshotOf(snapshotSettings, "ConsistencyLevel", "1"), want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: snapshotOf(snapshotSettings, "ConsistencyLevel", int64(256)), want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: snapshotOf(snapshotSettings, "IgnoreNonSnapshotableDisks", true), want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "CreateSnapshot", in: snapshotOf(snapshotSettings, "IgnoreNonSnapshottableDisks", int64(1)), want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "DestroySnapshot", in: wmi.Params{"AffectedSnapshots": `a.b="c"`}, want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "DestroySnapshotTree", in: wmi.Params{"AffectedSnapshot": `a.b="c"`}, want: wmi.ErrInvalidParameter},
	{object: snapshotService, method: "ConvertToReferencePoint", in: wmi.Params{"Snapshot": `a.b="c"`}, want: wmi.ErrInvalidParameter},
	{object: pointService, method: "DestroyReferencePoint", in: wmi.Params{"ReferencePoint": `a.b="c"`}, want: wmi.ErrInvalidParameter},
	{object: managementService, method: "DefineSystem", in: wmi.Params{"SystemSettings": wmi.Object{Class: systemSettings, Properties: map[string]any{"Name": "x"}}},
		want: wmi.ErrInvalidParameter},
	{object: managementService, method: "ModifySystemSettings", in: wmi.Params{"SystemSetting": wmi.Object{Class: systemSettings}}, want: wmi.ErrInvalidParameter},
	{object: managementService, method: "ModifySystemSettings", in: wmi.Params{"SystemSettings": wmi.Object{Class: systemSettings,
		Properties: map[string]any{"CreationTime": "2026-01-02"}}}, want: wmi.ErrInvalidParameter}, // no datetime
	{object: managementService, method: "AddResourceSettings", in: wmi.Params{"ResourceSettings": wmi.Object{Class: "Msvm_MemorySettingData"}},
		want: wmi.ErrInvalidParameter}, // one where an array belongs
	{object: managementService, method: "AddResourceSettings", in: wmi.Params{"ResourceSettings": []wmi.Object{{Class: systemSettings}}},
		want: wmi.ErrInvalidParameter}, // of a class that is none of the parameter's
	{object: managementService, method: "RemoveResourceSettings", in: wmi.Params{"ResourceSettings": `a.b="c"`}, want: wmi.ErrInvalidParameter},
	{object: managementService, method: "DestroySystem", in: wmi.Params{"System": `a.b="c"`}, want: wmi.ErrInvalidParameter},
	{object: "Msvm_ImageManagementService", method: "GetVirtualHardDiskState", in: wmi.Params{"FilePath": "x"}, want: wmi.ErrInvalidParameter},
	{method: "RequestStateChange", in: wmi.Params{"State": int64(3)}, want: wmi.ErrInvalidParameter},
	{method: "RequestStateChange", in: wmi.Params{"RequestedState": "off"}, want: wmi.ErrInvalidParameter},
	{method: "RequestStateChange", in: wmi.Params{"RequestedState": int64(3), "TimeoutPeriod": "10s"}, want: wmi.ErrInvalidParameter},
}

// The emulated host knows the classes of Windows: a call that Windows would refuse must not pass here.
func TestMisspeltAndWronglyTypedCallsAreRefused(t *testing.T) {
	all := append(append([]wrongCall{}, wrongQueries...), wrongMethods...)
	if len(all) < 50 {
		t.Fatalf("only %d calls", len(all))
	}
	eachWay(t, richVM, func(t *testing.T, _ *Host, w *world) {
		vm := w.vm("CRM").Path
		for _, c := range all {
			if err := c.run(w, vm); !errors.Is(err, c.want) {
				t.Errorf("%s%s.%s(%v): %v, not %v", c.query, c.object, c.method, c.in, err, c.want)
			}
		}
		if made := w.query("SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemType LIKE '%%Snapshot%%'"); len(made) != 0 {
			t.Errorf("a refused call made %d checkpoints", len(made))
		}
		if got := w.vm("CRM").Properties["EnabledState"]; got != int64(2) {
			t.Errorf("a refused call brought the VM into state %v", got)
		}
	})
}
