package hyperv_test

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
)

// legacyVM is a VM of generation 1, off, with a legacy network adapter beside the usual one. Both have a fixed address.
func legacyVM() machines {
	files := oneVM().with("state: running", "state: off\ngeneration: 1").
		with("  mac: 00155D010203", "  mac: 00155D010203\n- name: Boot\n  switch: DMZ\n  mac: 00155D010204\n  legacy: true")
	return files.on("jobMillis: 1\nswitches: [LAN, DMZ]\n")
}

var legacyNetworks = []hyperv.NetworkAdapter{
	{Name: "Boot", Address: "00155D010204", Static: true, Switch: "DMZ", Legacy: true},
	{Name: "Network Adapter", Address: "00155D010203", Static: true, Switch: "LAN"},
}

func TestLegacyAdapterIsDescribed(t *testing.T) {
	l := newLab(t, legacyVM())
	l.Expect(l.vm(crmID).Networks).To(Equal(legacyNetworks))
	inventory, err := l.Inventory(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(inventory.VMs[0].Networks).To(Equal(legacyNetworks))
}

func TestLegacyAdapterOfACopyDoesNotMeetTheOriginal(t *testing.T) {
	mapped := map[string]string{"LAN": "LAN", "DMZ": "DMZ"}
	notTheOriginals := ConsistOf(
		And(HaveField("Name", "Boot"), HaveField("Legacy", true), HaveField("Switch", "DMZ"), HaveField("Static", false), HaveField("Address", Not(Equal("00155D010204")))),
		And(HaveField("Name", "Network Adapter"), HaveField("Legacy", false), HaveField("Switch", "LAN"), HaveField("Static", false)))
	t.Run("that is imported", func(t *testing.T) {
		l := newLab(t, legacyVM())
		target := l.target("IDE-0-0", "IDE-0-1")
		target.Switches = mapped
		imported, err := l.ImportVM(t.Context(), l.prepareImport(l.staged(), ""), target)
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(imported.VM.Networks).To(notTheOriginals)
		l.Expect(imported.Warnings).To(BeEmpty())
	})
	t.Run("that is defined", func(t *testing.T) {
		l := newLab(t, legacyVM())
		target := l.target("IDE-0-0", "IDE-0-1")
		target.Switches = mapped
		definition := l.definition(l.vm(crmID))
		for range 2 {
			defined, err := l.DefineVM(t.Context(), definition, target)
			l.Expect(err).NotTo(HaveOccurred())
			l.Expect(defined.VM.Networks).To(notTheOriginals)
			l.Expect(defined.Warnings).To(BeEmpty())
		}
	})
	t.Run("in a checkpoint", func(t *testing.T) {
		l := newLab(t, legacyVM().with("state: off", "state: running"))
		l.grow("a")
		im, target := l.felled()
		target.Switches = mapped
		imported, err := l.ImportVM(t.Context(), im, target)
		l.Expect(err).NotTo(HaveOccurred())
		l.apply(imported.VM.ID, "a")
		l.Expect(l.vm(imported.VM.ID).Networks).To(notTheOriginals)
	})
}

func TestLegacyAdapterIsKeptOnRequest(t *testing.T) {
	for name, restore := range map[string]func(*lab, hyperv.RestoreTarget) (hyperv.Restored, error){
		"by an import": func(l *lab, target hyperv.RestoreTarget) (hyperv.Restored, error) {
			im := l.prepareImport(l.staged(), crmID)
			l.Expect(os.Remove(filepath.Join(l.dir, "crm", "vm.yaml"))).To(Succeed())
			return l.ImportVM(l.Context(), im, target)
		},
		"by a definition": func(l *lab, target hyperv.RestoreTarget) (hyperv.Restored, error) {
			return l.DefineVM(l.Context(), l.definition(l.vm(crmID)), target)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, legacyVM())
			target := l.target("IDE-0-0", "IDE-0-1")
			target.KeepNetworks = true
			restored, err := restore(l, target)
			l.Expect(err).NotTo(HaveOccurred())
			l.Expect(restored.VM.Networks).To(Equal(legacyNetworks))
		})
	}
}

func TestAdaptersOfOneNameKeepTheirKindAndSwitch(t *testing.T) {
	l := newLab(t, legacyVM().with("name: Boot", "name: Network Adapter"))
	target := l.target("IDE-0-0", "IDE-0-1")
	target.KeepNetworks = true
	defined, err := l.DefineVM(t.Context(), l.definition(l.vm(crmID)), target)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(defined.VM.Networks).To(Equal([]hyperv.NetworkAdapter{
		{Name: "Network Adapter", Address: "00155D010203", Static: true, Switch: "LAN"},
		{Name: "Network Adapter", Address: "00155D010204", Static: true, Switch: "DMZ", Legacy: true},
	}))
}
