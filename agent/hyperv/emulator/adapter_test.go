package emulator

import (
	"path/filepath"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Windows has legacy network adapters for virtual machines of generation 1 only, and at most four.
func TestLegacyAdaptersAreAddedAsFarAsTheVMCanHaveThem(t *testing.T) {
	for name, c := range map[string]struct {
		vm   string
		want uint32
	}{
		"to generation 1":                       {"generation: 1", codeDone},
		"to generation 1 beside three":          {"generation: 1\nnetworkAdapters: [{legacy: true}, {legacy: true}, {legacy: true}, {}]", codeDone},
		"not to generation 1 beside four":       {"generation: 1\nnetworkAdapters: [{legacy: true}, {legacy: true}, {legacy: true}, {legacy: true}]", codeInvalidParameter},
		"not to generation 2, which knows none": {"generation: 2", codeInvalidParameter},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			write(t, filepath.Join(dir, "crm", "vm.yaml"), "name: CRM\nstate: \"off\"\n"+c.vm+"\n")
			_, w := openHost(t, dir)
			settings := w.active("CRM").Path
			legacy := func() []wmi.Instance {
				return w.associated(settings, "Msvm_VirtualSystemSettingDataComponent", "Msvm_EmulatedEthernetPortSettingData")
			}
			before := len(legacy())
			r := w.invoke(managementService, "AddResourceSettings", wmi.Params{"AffectedConfiguration": settings, "ResourceSettings": []wmi.Object{
				{Class: "Msvm_EmulatedEthernetPortSettingData", Properties: map[string]any{
					"ResourceSubType": subLegacyPort, "ElementName": "boot", "Address": "00155D000001", "StaticMacAddress": true,
				}},
			}})
			if r.ReturnValue != c.want {
				t.Fatalf("returned %d, not %d", r.ReturnValue, c.want)
			}
			if c.want != codeDone {
				return
			}
			made := legacy()
			if len(made) != before+1 || made[before].Properties["Address"] != "00155D000001" || made[before].Properties["ElementName"] != "boot" {
				t.Errorf("the adapters are %v", made)
			}
		})
	}
}
