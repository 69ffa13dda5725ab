package wmitest

import (
	"errors"
	"reflect"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// wrongCalls covers what a misspelt name, or a value of another type, must not become: a call with a default in its place.
func wrongCalls(w *world) {
	vm, service := w.vm(), w.one(w.virt, "SELECT * FROM %s", snapshotService).Path
	create := func(in wmi.Params) error {
		_, err := w.virt.Invoke(w.ctx, service, "CreateSnapshot", in)
		return err
	}
	with := func(name string, value any) error {
		return create(w.checkpointOf(map[string]any{name: value, "IgnoreNonSnapshottableDisks": true}))
	}
	query := func(text string) error { return second(w.virt.Query(w.ctx, text)) }
	gone := strings.Replace(vm.Path, vm.Properties["Name"].(string), "none", 1)
	for name, c := range map[string]struct{ err, want error }{
		"a class that does not exist":          {query("SELECT * FROM Msvm_ComputerSytem"), wmi.ErrInvalidClass},
		"a class of another namespace":         {query("SELECT * FROM Win32_OperatingSystem"), wmi.ErrInvalidClass},
		"a property that does not exist":       {query("SELECT * FROM Msvm_ComputerSystem WHERE Names = 'x'"), wmi.ErrInvalidQuery},
		"a selected column that does not":      {query("SELECT ElementNmae FROM Msvm_ComputerSystem"), wmi.ErrInvalidQuery},
		"a comparison of other types":          {query("SELECT * FROM Msvm_ComputerSystem WHERE EnabledState = 'x'"), wmi.ErrInvalidQuery},
		"a backslash that is not escaped":      {query(`SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'a\b'`), wmi.ErrInvalidQuery},
		"a query that ends early":              {query("SELECT * FROM Msvm_ComputerSystem WHERE"), wmi.ErrInvalidQuery},
		"a parameter that does not exist":      {create(wmi.Params{"AffectedSytem": vm.Path}), wmi.ErrInvalidParameter},
		"an out parameter":                     {create(wmi.Params{"Job": "x"}), wmi.ErrInvalidParameter},
		"a text for an integer":                {create(wmi.Params{"SnapshotType": "32768"}), wmi.ErrInvalidParameter},
		"an integer for a text":                {create(wmi.Params{"AffectedSystem": int64(1)}), wmi.ErrInvalidParameter},
		"a list for one":                       {create(wmi.Params{"AffectedSystem": []string{vm.Path}}), wmi.ErrInvalidParameter},
		"an integer that is too large":         {create(wmi.Params{"SnapshotType": int64(65536)}), wmi.ErrInvalidParameter},
		"an integer below zero":                {create(wmi.Params{"SnapshotType": int64(-1)}), wmi.ErrInvalidParameter},
		"an embedded property that is unknown": {with("Consistency", int64(1)), wmi.ErrInvalidParameter},
		"an embedded property's wrong type":    {with("ConsistencyLevel", "1"), wmi.ErrInvalidParameter},
		"an embedded property out of range":    {with("ConsistencyLevel", int64(1<<16)), wmi.ErrInvalidParameter},
		"an embedded instance of other class": {
			create(wmi.Params{"SnapshotSettings": wmi.Object{Class: "Msvm_MemorySettingData"}}), wmi.ErrInvalidParameter,
		},
		"an embedded instance of no class": {create(wmi.Params{"SnapshotSettings": wmi.Object{Class: "Msvm_Nothing"}}), wmi.ErrInvalidParameter},
		"a parameter of a method that has none": {
			second(w.cim.Invoke(w.ctx, w.one(w.cim, "SELECT * FROM Win32_Service WHERE Name = 'VSS'").Path, "StartService", wmi.Params{"X": "y"})), wmi.ErrInvalidParameter,
		},
		"a method that does not exist":       {second(w.virt.Invoke(w.ctx, service, "MakeSnapshot", nil)), wmi.ErrInvalidMethod},
		"an object that does not exist":      {second(w.virt.Get(w.ctx, gone)), wmi.ErrNotFound},
		"a method of an object that is gone": {second(w.virt.Invoke(w.ctx, gone, "RequestStateChange", nil)), wmi.ErrNotFound},
		"associators of one that is gone":    {second(w.virt.Associators(w.ctx, gone, "Msvm_SettingsDefineState", "Msvm_VirtualSystemSettingData")), wmi.ErrNotFound},
		"an association that does not exist": {second(w.virt.Associators(w.ctx, vm.Path, "Msvm_Settings", "Msvm_VirtualSystemSettingData")), wmi.ErrInvalidClass},
		"the description of no class":        {second(w.virt.(wmi.Describer).Describe(w.ctx, "Msvm_Nothing")), wmi.ErrInvalidClass},
	} {
		if !errors.Is(c.err, c.want) {
			w.Errorf("%s: %v, not %v", name, c.err, c.want)
		}
	}
	if left := w.query(w.virt, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemType LIKE '%%Snapshot%%'"); len(left) != 0 {
		w.Errorf("a refused call made %d checkpoints", len(left))
	}
}

func second[T any](_ T, err error) error { return err }

func plainMethods(w *world) {
	vss := w.one(w.cim, "SELECT * FROM Win32_Service WHERE Name = 'VSS'").Path
	for _, c := range []struct {
		method string
		want   uint32
	}{{"StartService", 0}, {"StartService", 10}, {"StopService", 0}} {
		if r, err := w.cim.Invoke(w.ctx, vss, c.method, nil); err != nil || r.ReturnValue != c.want || len(r.Out) != 0 {
			w.Errorf("%s returned %+v, not %d: %v", c.method, r, c.want, err)
		}
	}
}

func jobsAffect(w *world) {
	checkpoint := w.checkpoint()
	if got := checkpoint.Properties["VirtualSystemIdentifier"]; got != w.vm().Properties["Name"] {
		w.Errorf("the checkpoint belongs to %v", got)
	}
	_, err := w.call(snapshotService, "CreateSnapshot", w.checkpointOf(map[string]any{"IgnoreNonSnapshottableDisks": true}))
	if !errors.Is(err, wmi.ErrInvalidState) {
		w.Errorf("a second recovery checkpoint: %v", err)
	}
	w.destroy(checkpoint)
	if _, err := w.virt.Get(w.ctx, checkpoint.Path); !errors.Is(err, wmi.ErrNotFound) {
		w.Errorf("the destroyed checkpoint: %v", err)
	}
}

func jobsFail(w *world) {
	_, err := w.call(snapshotService, "CreateSnapshot", w.checkpointOf(nil))
	var failed *wmi.MethodError
	if !errors.As(err, &failed) || failed.JobState != 10 || failed.JobErrorCode == 0 || !strings.Contains(failed.Text(), "physical disk") {
		w.Fatalf("a checkpoint of a physical disk: %v", err)
	}
	r, err := w.virt.Invoke(w.ctx, w.one(w.virt, "SELECT * FROM Msvm_ConcreteJob WHERE JobState = 10").Path, "GetErrorEx", nil)
	if texts, ok := r.Out["Errors"].([]string); err != nil || !ok || len(texts) != 1 {
		w.Fatalf("GetErrorEx: %v, %v", r, err)
	}
	said := w.mustCall(managementService, "FormatError", wmi.Params{"Errors": r.Out["Errors"]}).Out["ErrorMessage"]
	if said != failed.Text() {
		w.Errorf("FormatError said %q, not %q", said, failed.Text())
	}
}

func embeddedInstances(w *world) {
	before := w.settings()
	restore := map[string]any{}
	change := map[string]any{
		"Notes": []string{"a", "", `<b attr="c">&amp;`, `büro \ 漢字 🙂`}, "HighMmioGapSize": int64(1 << 40), "AutomaticStartupAction": int64(3), "LockOnDisconnect": true,
	}
	for name := range change {
		restore[name] = before.Properties[name]
	}
	modify := func(properties map[string]any) {
		w.Helper()
		w.mustCall(managementService, "ModifySystemSettings", wmi.Params{
			"SystemSettings": wmi.Object{Class: before.Class, Path: before.Path, Properties: properties},
		})
	}
	modify(change)
	after := w.settings()
	for name, value := range after.Properties {
		want, changed := change[name]
		if !changed {
			want = before.Properties[name]
		}
		if !reflect.DeepEqual(value, want) {
			w.Errorf("%s is %T %v, not %T %v", name, value, value, want, want)
		}
	}
	for name, value := range restore {
		if value == nil {
			delete(restore, name)
		}
	}
	modify(restore)
}

func lists(w *world) {
	settings := w.settingsOf(w.one(w.virt, "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = %s", wmi.Quote(offName))).Path
	count := func() int {
		found, err := w.virt.Associators(w.ctx, settings, "Msvm_VirtualSystemSettingDataComponent", "Msvm_SyntheticEthernetPortSettingData")
		if err != nil {
			w.Fatal(err)
		}
		return len(found)
	}
	before := count()
	adapter := func(name string) wmi.Object {
		return wmi.Object{Class: "Msvm_SyntheticEthernetPortSettingData", Properties: map[string]any{
			"ResourceType": int64(10), "ResourceSubType": "Microsoft:Hyper-V:Synthetic Ethernet Port", "ElementName": name,
		}}
	}
	done := w.mustCall(managementService, "AddResourceSettings", wmi.Params{
		"AffectedConfiguration": settings, "ResourceSettings": []wmi.Object{adapter("one"), adapter(`two "<&>`)},
	})
	made, ok := done.Out["ResultingResourceSettings"].([]string)
	if !ok || len(made) != 2 || count() != before+2 {
		w.Fatalf("adding two adapters made %v; there are %d", done.Out, count())
	}
	if got, err := w.virt.Get(w.ctx, made[1]); err != nil || got.Properties["ElementName"] != `two "<&>` {
		w.Errorf("the second is %v: %v", got.Properties["ElementName"], err)
	}
	w.mustCall(managementService, "RemoveResourceSettings", wmi.Params{"ResourceSettings": made})
	if count() != before {
		w.Errorf("%d adapters, not %d", count(), before)
	}
}
