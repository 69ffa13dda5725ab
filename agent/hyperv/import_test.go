package hyperv_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// staged takes a checkpoint of the VM and copies its configuration files to a folder of the host, as an image does. It returns the file to import.
func (l *lab) staged() string {
	l.Helper()
	cp := l.mustCheckpoint("task-1", hyperv.Crash)
	files, err := l.ConfigurationFiles(l.Context(), cp)
	l.Expect(err).NotTo(HaveOccurred())
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
		l.copyFile(strings.ReplaceAll(strings.TrimPrefix(f.Path, `D:\VMs\`), `\`, "/"), "staging/"+f.Name)
	}
	l.Expect(l.Release(l.Context(), cp)).To(Succeed())
	l.waitReleased(cp, nil)
	return `D:\VMs\staging\` + hyperv.DefinitionFile(names)
}

func (l *lab) prepareImport(file, keepID string) hyperv.Import {
	l.Helper()
	im, err := l.PrepareImport(l.Context(), file, keepID, "crm", l.vm(crmID).Notes)
	l.Expect(err).NotTo(HaveOccurred())
	return im
}

// planned lists the names of the host's planned VMs.
func (l *lab) planned() []string {
	l.Helper()
	found, err := l.foreignSession().Query(l.Context(), "SELECT * FROM Msvm_PlannedComputerSystem")
	l.Expect(err).NotTo(HaveOccurred())
	names := []string{}
	for _, p := range found {
		names = append(names, p.Properties["ElementName"].(string))
	}
	return names
}

func (l *lab) target(keys ...string) hyperv.RestoreTarget {
	l.Helper()
	t := hyperv.RestoreTarget{Name: "crm restored", Folder: `D:\VMs\restored`, Tag: "task-9"}
	for _, key := range keys {
		t.Disks = append(t.Disks, hyperv.TargetDisk{Key: key, Path: l.restoredDisk("restored/"+key+".vhdx", 'r')})
	}
	return t
}

// guestState is what a VM's UEFI variables lie in.
func (l *lab) guestState(folder, id string) string {
	l.Helper()
	text, err := os.ReadFile(filepath.Join(l.dir, folder, "Virtual Machines", id+".vmgs"))
	l.Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// I5: wherever the agent dies, one VM comes out, with everything that the files have, and no planned one.
func TestImportVMSurvivesEveryCrash(t *testing.T) {
	var im hyperv.Import
	var target hyperv.RestoreTarget
	crashTest{
		files: twoControllers,
		prepare: func(l *lab) {
			im, target = l.prepareImport(l.staged(), ""), l.target("SCSI-0-0", "SCSI-1-7")
		},
		operation: func(l *lab) error {
			_, err := l.ImportVM(t.Context(), im, target)
			return err
		},
		check: func(l *lab) {
			l.Expect(l.called("RealizePlannedSystem")).To(Equal(1))
			imported, err := l.ImportVM(t.Context(), im, target)
			l.Expect(err).NotTo(HaveOccurred())
			vm, original := imported.VM, l.vm(crmID)
			l.Expect([]any{vm.Name, vm.State, vm.Generation, vm.Processors, vm.Memory, vm.Firmware, vm.CheckpointType}).
				To(Equal([]any{"crm restored", hyperv.Off, 2, 4, original.Memory, original.Firmware, original.CheckpointType}))
			l.Expect(vm.ID).NotTo(Equal(crmID))
			l.Expect(vm.Notes).To(Equal([]string{"the crm of sales\nRestored by Hyperkeep, task task-9, as " + vm.ID}))
			for i, d := range vm.Disks {
				l.Expect([]string{d.Key, d.Path}).To(Equal([]string{target.Disks[i].Key, target.Disks[i].Path}))
			}
			l.Expect(vm.Networks).To(Equal([]hyperv.NetworkAdapter{{Name: "Network Adapter", Address: vm.Networks[0].Address}}),
				"a copy is not connected and has an address of its own")
			l.Expect(l.guestState("restored", vm.ID)).To(Equal(l.guestState("crm", crmID)), "the UEFI variables")
			l.Expect(l.planned()).To(BeEmpty())
			inventory, err := l.Inventory(t.Context())
			l.Expect(err).NotTo(HaveOccurred())
			l.Expect(inventory.VMs).To(HaveLen(2))
		},
	}.run(t)
}

// I4: a restore that is given up, wherever it died, leaves no planned VM.
func TestRemoveImportSurvivesEveryCrash(t *testing.T) {
	for name, files := range map[string]func() machines{
		"of a VM of its user": oneVM,
		"of a VM that an earlier restore marked": func() machines {
			return oneVM().with("state: running", "state: running\nnotes: [\"Restored by Hyperkeep, task task-1\"]")
		},
	} {
		t.Run(name, func(t *testing.T) { removeImportAfterEveryCall(t, files) })
	}
}

func removeImportAfterEveryCall(t *testing.T, files func() machines) {
	var im hyperv.Import
	for n, done := 1, false; !done && !t.Failed(); n++ {
		l := newLab(t, files())
		l.wire.effects = true
		im = l.prepareImport(l.staged(), "")
		target := l.target("SCSI-0-0", "SCSI-0-1")
		l.wire.cutAfter(n)
		_, err := l.ImportVM(t.Context(), im, target)
		done = err == nil
		l.wire.mend()
		_, err = patient(l, func() (any, error) {
			if err := l.RemoveImport(t.Context(), im, target.Tag); err != nil {
				return nil, err
			}
			return nil, l.RemoveVM(t.Context(), target.Tag)
		})
		l.Expect(err).NotTo(HaveOccurred(), "after call %d", n)
		l.Expect(l.planned()).To(BeEmpty(), "after call %d", n)
		inventory, err := l.Inventory(t.Context())
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(inventory.VMs).To(HaveLen(1), "after call %d", n)
	}
}

func TestImportIsRefused(t *testing.T) {
	refused := func(l *lab, file string, target hyperv.RestoreTarget) {
		t.Helper()
		_, err := l.ImportVM(t.Context(), l.prepareImport(file, ""), target)
		l.Expect(err).To(MatchError(hyperv.ErrImportRefused))
		l.Expect(l.planned()).To(BeEmpty())
	}
	t.Run("when the files are torn", func(t *testing.T) {
		l := newLab(t, oneVM())
		name := strings.TrimPrefix(l.staged(), `D:\VMs\staging\`)
		text, err := os.ReadFile(filepath.Join(l.dir, "staging", name))
		l.Expect(err).NotTo(HaveOccurred())
		l.writeFile("staging/"+name, string(text[:len(text)/2]))
		refused(l, `D:\VMs\staging\`+name, l.target("SCSI-0-0"))
	})
	t.Run("when the VM cannot be realized", func(t *testing.T) {
		l := newLab(t, oneVM())
		file := l.staged()
		target := l.target("SCSI-0-0", "SCSI-0-1")
		target.Disks[0].Path = `D:\VMs\crm\system.vhdx` // another VM's
		refused(l, file, target)
	})
	t.Run("when a VM has the id", func(t *testing.T) {
		l := newLab(t, oneVM())
		_, err := l.ImportVM(t.Context(), l.prepareImport(l.staged(), crmID), l.target("SCSI-0-0"))
		l.Expect(err).To(MatchError(hyperv.ErrImportRefused))
	})
	t.Run("not when the host has no space or another operation runs", func(t *testing.T) {
		l := newLab(t, oneVM())
		im := l.prepareImport(l.staged(), "")
		for code, want := range map[uint32]error{32774: hyperv.ErrBusy, 32775: hyperv.ErrBusy, 32777: hyperv.ErrBusy} {
			stop := l.refuse("ImportSystemDefinition", code)
			_, err := l.ImportVM(t.Context(), im, l.target("SCSI-0-0"))
			l.Expect(err).To(And(MatchError(want), Not(MatchError(hyperv.ErrImportRefused))))
			stop()
		}
	})
}

func TestSomebodyElsesPlannedVMIsLeftAlone(t *testing.T) {
	l := newLab(t, oneVM())
	file := l.staged()
	s := l.foreignSession()
	service, err := s.Query(t.Context(), "SELECT * FROM Msvm_VirtualSystemManagementService")
	l.Expect(err).NotTo(HaveOccurred())
	_, err = wmi.Call(t.Context(), s, hurried{}, service[0].Path, "ImportSystemDefinition", wmi.Params{"SystemDefinitionFile": file, "GenerateNewSystemIdentifier": true})
	l.Expect(err).NotTo(HaveOccurred())
	im := l.prepareImport(file, "")
	l.Expect(l.RemoveImport(t.Context(), im, "task-9")).To(Succeed())
	l.Expect(l.planned()).To(HaveLen(1))
	_, err = l.ImportVM(t.Context(), im, l.target("SCSI-0-0", "SCSI-0-1"))
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(l.planned()).To(Equal([]string{"hyperkeep task-1 crash"}), "the name that the checkpoint gave it")
	l.Expect(l.PlannedTags(t.Context())).To(BeEmpty())
}

// importBy imports a file as somebody else does.
func (l *lab) importBy(s wmi.Session, file string) {
	l.Helper()
	service, err := s.Query(l.Context(), "SELECT * FROM Msvm_VirtualSystemManagementService")
	l.Expect(err).NotTo(HaveOccurred())
	_, err = wmi.Call(l.Context(), s, hurried{}, service[0].Path, "ImportSystemDefinition", wmi.Params{"SystemDefinitionFile": file, "GenerateNewSystemIdentifier": true})
	l.Expect(err).NotTo(HaveOccurred())
}

func TestPlannedVMOfTheSameNameIsNotAdopted(t *testing.T) {
	t.Run("when it came between the preparation and the import", func(t *testing.T) {
		l := newLab(t, oneVM())
		im, target := l.prepareImport(l.staged(), ""), l.target("SCSI-0-0", "SCSI-0-1")
		l.importBy(l.foreignSession(), im.File)
		l.Expect(l.RemoveImport(t.Context(), im, target.Tag)).To(Succeed())
		_, err := l.ImportVM(t.Context(), im, target)
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(l.planned()).To(HaveLen(1), "it was neither removed nor realized")
	})
	t.Run("when it was imported from a VM that we restored", func(t *testing.T) {
		l := newLab(t, oneVM())
		imported, err := l.ImportVM(t.Context(), l.prepareImport(l.staged(), ""), l.target("SCSI-0-0", "SCSI-0-1"))
		l.Expect(err).NotTo(HaveOccurred())
		for _, ending := range []string{".vmcx", ".vmgs", ".VMRS"} {
			l.copyFile("restored/Virtual Machines/"+imported.VM.ID+ending, "exported/"+imported.VM.ID+ending)
		}
		l.importBy(l.foreignSession(), `D:\VMs\exported\`+imported.VM.ID+".vmcx")
		l.Expect(l.planned()).To(HaveLen(1))
		l.Expect(l.PlannedTags(t.Context())).To(BeEmpty(), "its mark is that of another VM")
		l.Expect(l.RemoveImport(t.Context(), hyperv.Import{}, "task-9")).To(Succeed())
		l.Expect(l.planned()).To(HaveLen(1))
	})
}

func TestDropMark(t *testing.T) {
	l := newLab(t, oneVM().with("state: running", "state: running\nnotes: [the crm of sales]"))
	imported, err := l.ImportVM(t.Context(), l.prepareImport(l.staged(), ""), l.target("SCSI-0-0", "SCSI-0-1"))
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(l.DropMark(t.Context(), imported.VM.ID, "task-8")).To(Succeed())
	l.Expect(l.vm(imported.VM.ID).Notes).To(Equal(imported.VM.Notes), "another task's")
	for range 2 {
		l.Expect(l.DropMark(t.Context(), imported.VM.ID, "task-9")).To(Succeed())
		l.Expect(l.vm(imported.VM.ID).Notes).To(Equal([]string{"the crm of sales"}))
	}
	l.Expect(l.DropMark(t.Context(), webID, "task-9")).To(MatchError(hyperv.ErrVMNotFound))
}

func TestTryImportSurvivesEveryCrash(t *testing.T) {
	var im hyperv.Import
	var target hyperv.RestoreTarget
	crashTest{
		files: oneVM, effects: true,
		prepare: func(l *lab) {
			im, target = l.prepareImport(l.staged(), crmID), l.target("SCSI-0-0", "SCSI-0-1")
		},
		operation: func(l *lab) error {
			_, err := l.TryImport(t.Context(), im, target)
			return err
		},
		check: func(l *lab) {
			l.Expect(l.planned()).To(BeEmpty())
			l.Expect(l.called("RealizePlannedSystem")).To(BeZero())
			l.Expect(l.vm(crmID).State).To(Equal(hyperv.Running), "the original was not touched")
		},
	}.run(t)
}

// withDisk is a VM that an import takes some things from.
func withDisk() machines {
	files := oneVM().with("- path: data.vhdx", "- path: data.vhdx\n- passThrough: 1\n  sizeBytes: 1048576").
		with("  mac: 00155D010203", "  mac: 00155D010203\n- name: Backup\n  switch: SAN").with("name: crm", "name: crm\nprocessors: 4")
	files["host.yaml"] = "jobMillis: 1\nprocessors: 2\nswitches: [LAN, DMZ, SAN]\n"
	return files
}

// I9: wherever the agent dies, it has been told all that the VM lost.
func TestWarningsOfAnImportSurviveEveryCrash(t *testing.T) {
	var im hyperv.Import
	var target hyperv.RestoreTarget
	var told []string
	crashTest{
		files: withDisk, effects: true,
		prepare: func(l *lab) {
			im, target, told = l.prepareImport(l.staged(), ""), l.target("SCSI-0-0"), nil
			target.Switches = map[string]string{"LAN": "DMZ", "SAN": "gone"}
			target.Warned = func(warning string) error {
				if !slices.Contains(told, warning) {
					told = append(told, warning)
				}
				return nil
			}
		},
		operation: func(l *lab) error {
			_, err := l.ImportVM(t.Context(), im, target)
			return err
		},
		check: func(l *lab) {
			l.Expect(told).To(ConsistOf(ContainSubstring("SCSI-0-1"), ContainSubstring("SCSI-0-2"),
				ContainSubstring(`no virtual switch "gone"`), ContainSubstring("4 processors, more than the host's 2")))
		},
	}.run(t)
}

func TestImportedVMIsFitted(t *testing.T) {
	t.Run("to switches by the mapping, with warnings of all that it lacks", func(t *testing.T) {
		l := newLab(t, withDisk())
		file := l.staged()
		target := l.target("SCSI-0-0")
		target.Switches = map[string]string{"LAN": "DMZ", "SAN": "gone"}
		imported, err := l.ImportVM(t.Context(), l.prepareImport(file, ""), target)
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(imported.VM.Disks).To(HaveLen(1), "EZ-25: nothing is attached in place of a disk that the image does not have")
		l.Expect(imported.VM.Networks).To(ConsistOf(
			And(HaveField("Name", "Network Adapter"), HaveField("Switch", "DMZ"), HaveField("Static", false)),
			And(HaveField("Name", "Backup"), HaveField("Switch", ""))))
		l.Expect(imported.Warnings).To(ConsistOf(ContainSubstring("SCSI-0-1"), ContainSubstring("SCSI-0-2"),
			ContainSubstring(`no virtual switch "gone"`), ContainSubstring("4 processors, more than the host's 2")))
	})
	t.Run("without a disk on a controller that we do not know, which would stay the original's", func(t *testing.T) {
		l := newLab(t, onPersistentMemory())
		imported, err := l.ImportVM(t.Context(), l.prepareImport(l.staged(), ""), l.target("SCSI-0-0", "SCSI-0-1"))
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(imported.VM.Disks).To(HaveLen(2))
		l.Expect(imported.Warnings).To(ConsistOf(And(ContainSubstring("Other-0-0"), ContainSubstring("memory"))))
		mine, err := l.foreignSession().Query(t.Context(), "SELECT * FROM Msvm_StorageAllocationSettingData WHERE ResourceSubType='Microsoft:Hyper-V:Virtual Hard Disk'")
		l.Expect(err).NotTo(HaveOccurred())
		for _, disk := range mine {
			if strings.Contains(disk.Properties["InstanceID"].(string), imported.VM.ID) {
				l.Expect(disk.Properties["HostResource"]).To(ConsistOf(HavePrefix(`D:\VMs\restored\`)))
			}
		}
	})
	t.Run("keeping what the original had", func(t *testing.T) {
		l := newLab(t, oneVM().with("state: running", "state: off"))
		im := l.prepareImport(l.staged(), crmID)
		l.Expect(os.Remove(filepath.Join(l.dir, "crm", "vm.yaml"))).To(Succeed())
		target := l.target("SCSI-0-0", "SCSI-0-1")
		target.Name, target.KeepNetworks = "crm", true
		imported, err := l.ImportVM(t.Context(), im, target)
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(imported.VM.ID).To(Equal(crmID))
		l.Expect(imported.VM.Networks).To(Equal([]hyperv.NetworkAdapter{{Name: "Network Adapter", Address: "00155D010203", Static: true, Switch: "LAN"}}))
		l.Expect(imported.Warnings).To(BeEmpty())
	})
	keeping := func(l *lab) hyperv.RestoreTarget {
		target := l.target("SCSI-0-0", "SCSI-0-1")
		target.KeepNetworks = true
		return target
	}
	t.Run("to a switch that was renamed since", func(t *testing.T) {
		files := oneVM()
		files["host.yaml"] = "jobMillis: 1\nswitches: [DMZ, Production]\nrenamedSwitches: {Production: LAN}\n"
		l := newLab(t, files)
		imported, err := l.ImportVM(t.Context(), l.prepareImport(l.staged(), ""), keeping(l))
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(imported.VM.Networks).To(ConsistOf(HaveField("Switch", "Production")))
		l.Expect(imported.Warnings).To(BeEmpty())
	})
	t.Run("without a switch that is missing, with a warning", func(t *testing.T) {
		files := oneVM()
		files["host.yaml"] = "jobMillis: 1\nswitches: [DMZ]\n"
		l := newLab(t, files)
		imported, err := l.ImportVM(t.Context(), l.prepareImport(l.staged(), ""), keeping(l))
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(imported.VM.Networks).To(ConsistOf(HaveField("Switch", "")))
		l.Expect(imported.Warnings).To(ConsistOf(ContainSubstring(`no virtual switch "LAN"`)))
	})
	t.Run("without the DVD images that the host does not have", func(t *testing.T) {
		l := newLab(t, oneVM().with("networkAdapters:", "dvdDrives:\n- {controller: \"SCSI 0:5\", image: 'D:\\VMs\\gone.iso'}\n- {controller: \"SCSI 0:6\", image: 'D:\\VMs\\tools.iso'}\n"+
			"- {controller: \"SCSI 0:7\", image: '\\\\library\\isos\\setup.iso'}\nnetworkAdapters:"))
		l.writeFile("tools.iso", "x")
		imported, err := l.ImportVM(t.Context(), l.prepareImport(l.staged(), ""), l.target("SCSI-0-0", "SCSI-0-1"))
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(imported.Warnings).To(ConsistOf(ContainSubstring(`D:\VMs\gone.iso`), ContainSubstring(`setup.iso`)))
		left, err := l.foreignSession().Query(t.Context(), "SELECT * FROM Msvm_StorageAllocationSettingData WHERE ResourceSubType='Microsoft:Hyper-V:Virtual CD/DVD Disk'")
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(left).To(HaveLen(3+1), "the original's, and the one that is there")
	})
	t.Run("without the checkpoints of its user", func(t *testing.T) {
		l := newLab(t, oneVM())
		l.snapshot(2)
		file := l.staged()
		imported, err := l.ImportVM(t.Context(), l.prepareImport(file, ""), l.target("SCSI-0-0", "SCSI-0-1"))
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(imported.VM.Checkpoints).To(BeEmpty())
		l.Expect(imported.Warnings).To(ConsistOf(ContainSubstring("is not restored")))
	})
}

func TestDefinedVMIsConnectedByTheMapping(t *testing.T) {
	files := oneVM()
	files["host.yaml"] = "jobMillis: 1\nswitches: [LAN, DMZ]\n"
	l := newLab(t, files)
	d := l.definition(l.vm(crmID))
	d.Networks = append(d.Networks, hyperv.NetworkAdapter{Name: "Backup", Switch: "SAN"})
	target := l.target("SCSI-0-0")
	target.Switches = map[string]string{"LAN": "DMZ", "SAN": "SAN"}
	for range 2 {
		defined, err := l.DefineVM(t.Context(), d, target)
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(defined.VM.Networks).To(ConsistOf(
			And(HaveField("Name", "Network Adapter"), HaveField("Switch", "DMZ")), And(HaveField("Name", "Backup"), HaveField("Switch", ""))))
		l.Expect(defined.Warnings).To(ConsistOf(ContainSubstring(`no virtual switch "SAN"`)))
	}
}

func TestSupportedVersions(t *testing.T) {
	l := newLab(t, machines{"host.yaml": "osVersion: \"2016\"\n"})
	l.Expect(l.SupportedVersions(t.Context())).To(Equal([]string{"5.0", "6.2", "7.0", "7.1", "8.0"}))
}
