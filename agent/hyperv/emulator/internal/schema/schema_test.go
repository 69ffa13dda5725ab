package schema

import "testing"

func TestOlderWindowsLacksWhatCameLater(t *testing.T) {
	all, err := Load()
	if err != nil {
		t.Fatal(err)
	}
	const namespace = `root\virtualization\v2`
	for name, c := range map[string]struct {
		class, property, method string
		since                   int // the first build that has it
	}{
		"reference points":         {"Msvm_VirtualSystemReferencePoint", "InstanceID", "", 14393},
		"conversion":               {"Msvm_VirtualSystemSnapshotService", "", "ConvertToReferencePoint", 14393},
		"changes of a disk":        {"Msvm_ImageManagementService", "", "GetVirtualDiskChanges", 14393},
		"generation of a VM":       {"Msvm_VirtualSystemSettingData", "VirtualSystemSubType", "", 9600},
		"copy and full checkpoint": {"Msvm_VirtualSystemSnapshotSettingData", "GuestBackupType", "", 15063},
		"isolated guests":          {"Msvm_VirtualSystemSettingData", "GuestStateIsolationType", "", 25398},
	} {
		for _, build := range []int{9200, 9600, 14393, 15063, 17763, 20348, 25398, 26100} {
			class, has := all.At(build).Class(namespace, c.class)
			if has && c.property != "" {
				_, _, has = class.Property(c.property)
			}
			if has && c.method != "" {
				_, has = class.Methods[c.method]
			}
			if has != (build >= c.since) {
				t.Errorf("%s: build %d has it: %v", name, build, has)
			}
		}
	}
}

func TestTextsHaveTheFormOfTheirType(t *testing.T) {
	for name, c := range map[string]struct {
		kind  Type
		value any
		fits  bool
	}{
		"a moment":                       {"datetime", "20260102030405.000000+060", true},
		"an interval":                    {"datetime", "00000000001000.000000:000", true},
		"a moment of another format":     {"datetime", "2026-01-02T03:04:05Z", false},
		"a path with its host":           {"ref", `\\HV01\root\virtualization\v2:Msvm_ComputerSystem.CreationClassName="a",Name="b"`, true},
		"a path of this namespace":       {"ref", `Msvm_ComputerSystem.Name="b"`, true},
		"a name":                         {"ref", "crm", false},
		"paths":                          {"ref[]", []string{`a.b="c"`}, true},
		"names":                          {"ref[]", []string{"crm"}, false},
		"NULL":                           {"ref", nil, true},
		"a text is no number":            {"uint16", "1", false},
		"a number is no text":            {"string", int64(1), false},
		"a number that is too large":     {"uint8", int64(256), false},
		"numbers of which one is":        {"uint8[]", []int64{1, 256}, false},
		"an embedded instance":           {"object", `<INSTANCE CLASSNAME="x"></INSTANCE>`, true},
		"a text that is none":            {"object", "x", false},
		"a text among others is no flag": {"bool", "true", false},
	} {
		if err := c.kind.Check(c.value); (err == nil) != c.fits {
			t.Errorf("%s: %v", name, err)
		}
	}
}
