package emulator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func TestVMIsDefinedWithAllItsDevices(t *testing.T) {
	eachWay(t, func(t *testing.T, dir string) {
		createDisk(t, filepath.Join(dir, ".volumes", "D", "restored", "system.vhdx"), "16M")
	}, func(t *testing.T, h *Host, w *world) {
		job := w.done(w.invoke(managementService, "DefineSystem", wmi.Params{
			"SystemSettings": wmi.Object{Class: "Msvm_VirtualSystemSettingData", Properties: map[string]any{
				"ElementName": "CRM restored", "VirtualSystemSubType": "Microsoft:Hyper-V:SubType:2", "Version": "9.0", "Notes": []string{"restored"},
				"BIOSGUID": "{0F0E0D0C-0000-0000-0000-000000000000}", "SecureBootEnabled": true,
			}},
			"ResourceSettings": []wmi.Object{
				{Class: "Msvm_MemorySettingData", Properties: map[string]any{"VirtualQuantity": int64(2048)}},
				{Class: "Msvm_ProcessorSettingData", Properties: map[string]any{"VirtualQuantity": int64(4)}},
			},
		}))
		vm := w.associated(job.Path, "Msvm_AffectedJobElement", "Msvm_ComputerSystem")
		if len(vm) != 1 || vm[0].Properties["ElementName"] != "CRM restored" || vm[0].Properties["EnabledState"] != int64(3) {
			t.Fatalf("defined: %v", vm)
		}
		settings := w.active("CRM restored")
		if settings.Properties["BIOSGUID"] != "{0F0E0D0C-0000-0000-0000-000000000000}" || settings.Properties["Version"] != "9.0" {
			t.Errorf("the settings are %v", settings.Properties)
		}
		add := func(o wmi.Object) string {
			t.Helper()
			r := w.invoke(managementService, "AddResourceSettings", wmi.Params{"AffectedConfiguration": settings.Path, "ResourceSettings": []wmi.Object{o}})
			if r.ReturnValue != codeDone {
				t.Fatalf("adding a %s returned %d", o.Class, r.ReturnValue)
			}
			return r.Out["ResultingResourceSettings"].([]string)[0]
		}
		resource := func(subType string, more map[string]any) wmi.Object {
			more["ResourceSubType"] = subType
			return wmi.Object{Class: "Msvm_ResourceAllocationSettingData", Properties: more}
		}
		controller := add(resource(subController, map[string]any{}))
		drive := add(resource(subDrive, map[string]any{"Parent": controller, "AddressOnParent": "3"}))
		disk := resource(subHardDisk, map[string]any{"Parent": drive, "HostResource": []string{`D:\restored\system.vhdx`}})
		disk.Class = "Msvm_StorageAllocationSettingData"
		added := add(disk)
		port := add(wmi.Object{Class: "Msvm_SyntheticEthernetPortSettingData", Properties: map[string]any{
			"ResourceSubType": subPort, "ElementName": "front", "Address": "00155D000001", "StaticMacAddress": true,
		}})
		lan := w.one("SELECT * FROM Msvm_VirtualEthernetSwitch").Path
		add(wmi.Object{Class: "Msvm_EthernetPortAllocationSettingData", Properties: map[string]any{
			"ResourceSubType": subConnection, "Parent": port, "HostResource": []string{lan},
		}})
		if got, err := w.session.Get(w.ctx, added); err != nil || got.Properties["HostResource"].([]string)[0] != `D:\restored\system.vhdx` {
			t.Errorf("the disk is %v, %v", got, err)
		}
		again := w.invoke(managementService, "AddResourceSettings", wmi.Params{"AffectedConfiguration": settings.Path, "ResourceSettings": []wmi.Object{disk}})
		if again.ReturnValue == codeDone {
			t.Error("a drive took two disks")
		}
		w.startsAndServes(vm[0].Path, filepath.Join(w.dir, "CRM restored", "system.vhdx.nbd"))
		w.destroySystem(vm[0].Path, added)
	})
}

func (w *world) startsAndServes(vm, socket string) {
	w.t.Helper()
	start, err := w.session.Invoke(w.ctx, vm, "RequestStateChange", wmi.Params{"RequestedState": int64(2)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.done(start)
	g, err := dialGuest(socket)
	if err != nil {
		w.t.Fatal(err)
	}
	g.close()
}

// destroySystem takes a running VM apart and leaves its disk.
func (w *world) destroySystem(vm, disk string) {
	w.t.Helper()
	if r := w.invoke(managementService, "DestroySystem", wmi.Params{"AffectedSystem": vm}); r.ReturnValue != codeInvalidState {
		w.t.Errorf("destroying a running VM returned %d", r.ReturnValue)
	}
	if r := w.invoke(managementService, "RemoveResourceSettings", wmi.Params{"ResourceSettings": []string{disk}}); r.ReturnValue != codeInvalidState {
		w.t.Errorf("detaching a disk of a running VM returned %d", r.ReturnValue)
	}
	off, err := w.session.Invoke(w.ctx, vm, "RequestStateChange", wmi.Params{"RequestedState": int64(3)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.done(off)
	if r := w.invoke(managementService, "RemoveResourceSettings", wmi.Params{"ResourceSettings": []string{disk}}); r.ReturnValue != codeDone {
		w.t.Errorf("detaching a disk returned %d", r.ReturnValue)
	}
	w.done(w.invoke(managementService, "DestroySystem", wmi.Params{"AffectedSystem": vm}))
	if _, err := os.Stat(filepath.Join(w.dir, ".volumes", "D", "restored", "system.vhdx")); err != nil {
		w.t.Errorf("the disk went with the VM: %v", err)
	}
	if left := w.query("SELECT * FROM Msvm_ComputerSystem WHERE Caption = 'Virtual Machine'"); len(left) != 0 {
		w.t.Errorf("the VM is still there: %v", left)
	}
}

func TestSettingsOfAVMAreModified(t *testing.T) {
	dir := tempDir(t)
	richVM(t, dir)
	createDisk(t, filepath.Join(dir, "crm", "other.vhdx"), "8M")
	write(t, filepath.Join(dir, "crm", "vm.yaml"), strings.Replace(readText(t, filepath.Join(dir, "crm", "vm.yaml")), "running", "\"off\"", 1))
	_, w := openHost(t, dir)
	part := func(class string) wmi.Instance {
		t.Helper()
		all := w.associated(w.active("CRM").Path, "Msvm_VirtualSystemSettingDataComponent", class)
		if len(all) == 0 {
			t.Fatalf("no %s", class)
		}
		return all[0]
	}
	modify := func(class string, properties map[string]any) uint32 {
		t.Helper()
		i := part(class)
		return w.invoke(managementService, "ModifyResourceSettings", wmi.Params{
			"ResourceSettings": []wmi.Object{{Class: i.Class, Path: i.Path, Properties: properties}},
		}).ReturnValue
	}
	for class, properties := range map[string]map[string]any{
		"Msvm_MemorySettingData":                {"VirtualQuantity": int64(3000)},
		"Msvm_ProcessorSettingData":             {"VirtualQuantity": int64(8)},
		"Msvm_StorageAllocationSettingData":     {"HostResource": []string{`D:\VMs\crm\other.vhdx`}},
		"Msvm_VssComponentSettingData":          {"EnabledState": int64(3)},
		"Msvm_SyntheticEthernetPortSettingData": {"Address": "00155D0000FF", "StaticMacAddress": true},
	} {
		if code := modify(class, properties); code != codeDone {
			t.Errorf("modifying %s returned %d", class, code)
		}
		for name, want := range properties {
			if got := part(class).Properties[name]; !equal(got, want) {
				t.Errorf("%s.%s is %v, not %v", class, name, got, want)
			}
		}
	}
	if code := modify("Msvm_MemorySettingData", map[string]any{"VirtualQuantity": int64(9000)}); code != codeInvalidParameter {
		t.Errorf("more memory than the maximum returned %d", code)
	}
	if code := modify("Msvm_StorageAllocationSettingData", map[string]any{"HostResource": []string{`D:\VMs\crm\no.vhdx`}}); code != codeInvalidParameter {
		t.Errorf("a disk that does not exist returned %d", code)
	}
	if state := w.vm("CRM").Properties["HealthState"]; state != int64(5) {
		t.Errorf("a refused call left the VM in health %v", state)
	}
}

func equal(a, b any) bool {
	if x, ok := a.([]string); ok {
		y, ok := b.([]string)
		return ok && strings.Join(x, "|") == strings.Join(y, "|")
	}
	return a == b
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
