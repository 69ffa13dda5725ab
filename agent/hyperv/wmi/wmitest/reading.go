package wmitest

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func valuesArrive(w *world) {
	vm, settings := w.vm(), w.settings()
	drive := w.one(w.virt, "SELECT * FROM Msvm_DiskDrive")
	os := w.one(w.cim, "SELECT * FROM Win32_OperatingSystem")
	for name, c := range map[string]struct{ got, want any }{
		"text":                       {vm.Properties["ElementName"], vmName},
		"uint16":                     {vm.Properties["EnabledState"], int64(2)},
		"uint16 array":               {vm.Properties["OperationalStatus"], []int64{2}},
		"text array":                 {settings.Properties["Notes"], []string{"first", `second "<&>`}},
		"bool":                       {settings.Properties["SecureBootEnabled"], true},
		"null":                       {vm.Properties["ProcessID"], nil},
		"null array":                 {vm.Properties["AvailableRequestedStates"], nil},
		"uint32 above the sign bit":  {drive.Properties["DriveNumber"], int64(passThrough)},
		"uint64":                     {drive.Properties["MaxMediaSize"], int64(1 << 20)},
		"uint32":                     {os.Properties["ProductType"], int64(3)},
		"class":                      {vm.Class, "Msvm_ComputerSystem"},
		"reference array":            {len(w.reference()), 1},
		"the host's own ElementName": {w.one(w.virt, "SELECT * FROM Msvm_ComputerSystem WHERE NOT Caption = 'Virtual Machine'").Path != "", true},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			w.Errorf("%s: %T %v, not %T %v", name, c.got, c.got, c.want, c.want)
		}
	}
	installed, err := vm.String("InstallDate")
	at, parsed := wmi.ParseTime(installed)
	if err != nil || parsed != nil || time.Since(at).Abs() > time.Hour {
		w.Errorf("installed %s: %v, %v", installed, err, parsed)
	}
}

// reference is the path that leads from the VM's drive to the host's disk.
func (w *world) reference() []string {
	for _, drive := range w.query(w.virt, "SELECT * FROM Msvm_ResourceAllocationSettingData WHERE HostResource IS NOT NULL") {
		paths, err := drive.Strings("HostResource")
		if err != nil || len(paths) != 1 || !strings.Contains(paths[0], "Msvm_DiskDrive") {
			continue
		}
		if found, err := w.virt.Get(w.ctx, paths[0]); err == nil && found.Class == "Msvm_DiskDrive" {
			return paths
		}
	}
	return nil
}

func instancesAgree(w *world) {
	settings := w.settings()
	queried := w.one(w.virt, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE InstanceID = %s", wmi.Quote(settings.Properties["InstanceID"].(string)))
	got, err := w.virt.Get(w.ctx, settings.Path)
	if err != nil {
		w.Fatal(err)
	}
	if !reflect.DeepEqual(queried, settings) || !reflect.DeepEqual(got, settings) {
		w.Errorf("query %v\nget %v\nassociators %v", queried, got, settings)
	}
	relative := settings.Path[strings.Index(settings.Path, ":")+1:]
	if got, err := w.virt.Get(w.ctx, relative); err != nil || got.Path != settings.Path {
		w.Errorf("by its relative path %s: %q, %v", relative, got.Path, err)
	}
	back, err := w.virt.Associators(w.ctx, settings.Path, "Msvm_SettingsDefineState", "Msvm_ComputerSystem")
	if err != nil || len(back) != 1 || back[0].Path != w.vm().Path {
		w.Errorf("the settings belong to %v, %v", back, err)
	}
	if none, err := w.virt.Associators(w.ctx, settings.Path, "Msvm_AffectedJobElement", "Msvm_ConcreteJob"); err != nil || none == nil || len(none) != 0 {
		w.Errorf("nothing is associated: %v, %v", none, err)
	}
}

// classesAgree compares instances with what their classes declare.
func classesAgree(w *world) {
	for class, s := range map[string]wmi.Session{
		"Msvm_ComputerSystem": w.virt, "Msvm_VirtualSystemSettingData": w.virt, "Msvm_StorageAllocationSettingData": w.virt,
		"Msvm_ResourceAllocationSettingData": w.virt, "Msvm_MemorySettingData": w.virt, "Msvm_ProcessorSettingData": w.virt,
		"Msvm_SyntheticEthernetPortSettingData": w.virt, managementService: w.virt, "Msvm_DiskDrive": w.virt,
		"Win32_OperatingSystem": w.cim, "Win32_LogicalDisk": w.cim, "Win32_Service": w.cim,
	} {
		declared, err := s.(wmi.Describer).Describe(w.ctx, class)
		if err != nil || declared.Name != class {
			w.Fatalf("describe %s: %q, %v", class, declared.Name, err)
		}
		all := w.query(s, "SELECT * FROM %s", class)
		if len(all) == 0 {
			w.Errorf("there is no %s", class)
		}
		for _, i := range all {
			if names, want := slices.Sorted(maps.Keys(i.Properties)), slices.Sorted(maps.Keys(declared.Properties)); !slices.Equal(names, want) {
				w.Errorf("%s has %v, not %v", i.Path, names, want)
			}
			for name, value := range i.Properties {
				if !fits(value, declared.Properties[name]) {
					w.Errorf("%s.%s is a %T, not a %s", class, name, value, declared.Properties[name])
				}
			}
		}
	}
	service, err := w.virt.(wmi.Describer).Describe(w.ctx, snapshotService)
	if err != nil {
		w.Fatal(err)
	}
	if m := service.Methods["CreateSnapshot"]; m.In["SnapshotType"] != "uint16" || m.In["SnapshotSettings"] != "string" || m.Out["Job"] != "ref" || len(m.In) != 4 {
		w.Errorf("CreateSnapshot is %+v", m)
	}
}

func fits(value any, declared string) bool {
	base, array := strings.CutSuffix(declared, "[]")
	text := base == "string" || base == "ref" || base == "datetime"
	switch value.(type) {
	case nil:
		return true
	case string:
		return text && !array
	case []string:
		return text && array
	case bool:
		return base == "bool" && !array
	case int64:
		return strings.Contains(base, "int") && !array
	case []int64:
		return strings.Contains(base, "int") && array
	}
	return false
}

func queriesSelect(w *world) {
	id := w.vm().Properties["Name"].(string)
	for _, where := range []string{
		"EnabledState = 2 AND ElementName LIKE 'b_ro%'", "NOT EnabledState <> 2 AND Name = '" + id + "'",
		"ProcessID IS NULL AND OnTimeInMilliseconds >= 0 AND ElementName LIKE '[a-d]_r%'",
		"(EnabledState = 9 OR EnabledState = 2) AND Caption = 'Virtual Machine'",
	} {
		got := w.one(w.virt, "SELECT Name, ElementName FROM Msvm_ComputerSystem WHERE %s", where)
		if len(got.Properties) != 2 || got.Properties["Name"] != id {
			w.Errorf("%s: %v", where, got)
		}
	}
	disk := w.one(w.virt, `SELECT * FROM Msvm_StorageAllocationSettingData WHERE NOT InstanceID LIKE '%%\\Default'`)
	if again := w.one(w.virt, "SELECT * FROM Msvm_StorageAllocationSettingData WHERE InstanceID = %s", wmi.Quote(disk.Properties["InstanceID"].(string))); again.Path != disk.Path {
		w.Errorf("%s is not %s", again.Path, disk.Path)
	}
	if derived := w.query(w.virt, "SELECT * FROM CIM_ResourceAllocationSettingData WHERE InstanceID = %s", wmi.Quote(disk.Properties["InstanceID"].(string))); len(derived) != 1 {
		w.Errorf("a base class finds %d instances", len(derived))
	}
	if none, err := w.virt.Query(w.ctx, "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'nobody'"); err != nil || none == nil || len(none) != 0 {
		w.Errorf("no match: %v, %v", none, err)
	}
}
