package hyperv_test

import (
	"encoding/json"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
)

// restoredDisk puts a disk file on the host as a restore does.
func (l *lab) restoredDisk(name string, fill byte) string {
	l.Helper()
	l.writeFile(name, "")
	l.makeDisk(filepath.Join(l.dir, name), fill)
	return `D:\VMs\` + filepath.Dir(name) + `\` + filepath.Base(name)
}

func twoControllers() machines {
	return oneVM().with("- path: data.vhdx", "- path: data.vhdx\n  controller: SCSI 1:7").
		with("state: running", "state: running\nprocessors: 4\nmemoryMiB: 2048\nsecureBoot: true\ndynamicMemory: {minimumMiB: 512, maximumMiB: 4096}\nnotes: [the crm of sales]")
}

// definition goes through JSON, as it does in an image.
func (l *lab) definition(vm hyperv.VM) hyperv.Definition {
	l.Helper()
	text, err := json.Marshal(vm.Definition())
	l.Expect(err).NotTo(HaveOccurred())
	var d hyperv.Definition
	l.Expect(json.Unmarshal(text, &d)).To(Succeed())
	return d
}

// I5: wherever the agent dies, one VM comes out, with everything that it had.
func TestDefineVMSurvivesEveryCrash(t *testing.T) {
	var definition hyperv.Definition
	var target hyperv.RestoreTarget
	crashTest{
		files: twoControllers,
		prepare: func(l *lab) {
			definition = l.definition(l.vm(crmID))
			target = hyperv.RestoreTarget{
				Name: "crm restored", Folder: `D:\VMs\restored`, Tag: "task-9",
				Disks: []hyperv.TargetDisk{
					{Key: "SCSI-0-0", Path: l.restoredDisk("restored/system.vhdx", 's')},
					{Key: "SCSI-1-7", Path: l.restoredDisk("restored/data.vhdx", 'd')},
				},
			}
		},
		operation: func(l *lab) error {
			_, err := l.DefineVM(t.Context(), definition, target)
			return err
		},
		check: func(l *lab) {
			l.Expect(l.called("DefineSystem")).To(Equal(1))
			defined, err := l.DefineVM(t.Context(), definition, target)
			l.Expect(err).NotTo(HaveOccurred())
			vm := defined.VM
			l.Expect([]any{vm.Name, vm.State, vm.Generation, vm.Processors, vm.Memory, vm.Firmware.SecureBoot, vm.CheckpointType}).
				To(Equal([]any{"crm restored", hyperv.Off, 2, 4, definition.Memory, true, definition.CheckpointType}))
			l.Expect(vm.ID).NotTo(Equal(crmID))
			l.Expect(vm.Controllers).To(HaveLen(2))
			l.Expect(vm.Disks).To(HaveLen(2))
			for i, d := range vm.Disks {
				l.Expect([]string{d.Key, d.Path}).To(Equal([]string{target.Disks[i].Key, target.Disks[i].Path}))
			}
			l.Expect(vm.Networks).To(Equal([]hyperv.NetworkAdapter{{Name: "Network Adapter", Address: vm.Networks[0].Address}}),
				"a copy is not connected and has an address of its own")
			l.Expect(vm.Networks[0].Address).NotTo(Equal("00155D010203"))
			inventory, err := l.Inventory(t.Context())
			l.Expect(err).NotTo(HaveOccurred())
			l.Expect(inventory.VMs).To(HaveLen(2))
		},
	}.run(t)
}

func TestDefinedVMStartsAndKeepsItsAddressesOnRequest(t *testing.T) {
	l := newLab(t, twoControllers())
	d := l.definition(l.vm(crmID))
	defined, err := l.DefineVM(t.Context(), d, hyperv.RestoreTarget{
		Name: "crm", Folder: `D:\VMs\restored`, Tag: "task-9", KeepNetworks: true,
		Disks: []hyperv.TargetDisk{{Key: "SCSI-0-0", Path: l.restoredDisk("restored/system.vhdx", 's')}},
	})
	l.Expect(err).NotTo(HaveOccurred())
	vm := defined.VM
	l.Expect(vm.Networks).To(Equal([]hyperv.NetworkAdapter{{Name: "Network Adapter", Address: "00155D010203", Static: true, Switch: "LAN"}}))
	l.Expect(vm.Disks).To(HaveLen(1), "EZ-25: nothing is attached in place of a disk that was not restored")
	for range 2 {
		l.Expect(l.Start(t.Context(), vm.ID)).To(Succeed())
		l.Expect(l.vm(vm.ID).State).To(Equal(hyperv.Running))
	}
	l.Expect(l.RemoveVM(t.Context(), "task-9")).To(MatchError(hyperv.ErrVMState), "one that runs is somebody's")
	for range 2 {
		l.Expect(l.TurnOff(t.Context(), vm.ID)).To(Succeed())
		l.Expect(l.vm(vm.ID).State).To(Equal(hyperv.Off))
	}
}

func TestRemoveVMRemovesOnlyWhatTheTaskDefined(t *testing.T) {
	l := newLab(t, oneVM().with("state: running", "state: off"))
	defined, err := l.DefineVM(t.Context(), l.definition(l.vm(crmID)), hyperv.RestoreTarget{
		Name: "crm", Folder: `D:\VMs\restored`, Tag: "task-9",
		Disks: []hyperv.TargetDisk{{Key: "SCSI-0-0", Path: l.restoredDisk("restored/system.vhdx", 's')}},
	})
	l.Expect(err).NotTo(HaveOccurred())
	vm := defined.VM
	l.Expect(l.RemoveVM(t.Context(), "task-8")).To(Succeed())
	l.Expect(l.vm(vm.ID).ID).To(Equal(vm.ID))
	for range 2 {
		l.Expect(l.RemoveVM(t.Context(), "task-9")).To(Succeed())
	}
	_, err = l.VM(t.Context(), vm.ID)
	l.Expect(err).To(MatchError(hyperv.ErrVMNotFound))
	l.Expect(l.vm(crmID).Name).To(Equal("crm"))
	l.Expect(l.listing("restored")).To(ContainElement("system.vhdx"), "disk files are the caller's")
}

// plan prepares replacing the data disk.
func (l *lab) plan(settings *hyperv.Definition) hyperv.Replacement {
	l.Helper()
	r, err := l.PlanReplacement(l.Context(), crmID, []hyperv.TargetDisk{{Key: "SCSI-0-1", Path: l.restoredDisk("crm/data-restored.vhdx", 'r')}}, settings)
	l.Expect(err).NotTo(HaveOccurred())
	return r
}

func TestReplaceSurvivesEveryCrash(t *testing.T) {
	var plan hyperv.Replacement
	crashTest{
		files: oneVM,
		prepare: func(l *lab) {
			settings := l.definition(l.vm(crmID))
			settings.Processors, settings.Memory.Startup = 6, 3072
			plan = l.plan(&settings)
		},
		operation: func(l *lab) error { return l.Replace(t.Context(), plan) },
		check: func(l *lab) {
			vm := l.vm(crmID)
			l.Expect([]any{vm.State, vm.Processors, vm.Memory.Startup, vm.Disks[0].Path, vm.Disks[1].Path}).To(Equal(
				[]any{hyperv.Off, 6, int64(3072), `D:\VMs\crm\system.vhdx`, `D:\VMs\crm\data-restored.vhdx`}))
			l.Expect(l.listing("crm")).To(ContainElement("data.vhdx"), "the old file is aside")
			l.Expect(l.Start(t.Context(), crmID)).To(Succeed())
			l.Expect(l.read(l.frozen(l.mustCheckpoint("task-1", hyperv.Crash))[1], 4096)).To(Equal(filled(4096, 'r')))
		},
	}.run(t)
}

func TestRollBackSurvivesEveryCrash(t *testing.T) {
	var plan hyperv.Replacement
	var before hyperv.VM
	crashTest{
		files: oneVM,
		prepare: func(l *lab) {
			before = l.vm(crmID)
			settings := l.definition(before)
			settings.Processors = 6
			plan = l.plan(&settings)
			l.Expect(l.Replace(t.Context(), plan)).To(Succeed())
		},
		operation: func(l *lab) error { return l.RollBackReplacement(t.Context(), plan) },
		check: func(l *lab) {
			vm := l.vm(crmID)
			l.Expect([]any{vm.State, vm.Processors, vm.Disks[1].Path}).To(Equal([]any{hyperv.Off, before.Processors, before.Disks[1].Path}))
			l.Expect(vm.Disks[1].DiskID).To(Equal(before.Disks[1].DiskID))
			l.Expect(l.FinishReplacement(t.Context(), plan)).To(MatchError(hyperv.ErrDiskMismatch), "what was taken back is not finished")
			l.Expect(l.listing("crm")).To(ContainElement("data.vhdx"))
		},
	}.run(t)
}

func TestFinishReplacementDeletesTheOldFilesOnly(t *testing.T) {
	l := newLab(t, oneVM())
	plan := l.plan(nil)
	l.Expect(l.FinishReplacement(t.Context(), plan)).To(MatchError(hyperv.ErrDiskMismatch), "nothing was replaced yet")
	l.Expect(l.Replace(t.Context(), plan)).To(Succeed())
	for range 2 {
		l.Expect(l.FinishReplacement(t.Context(), plan)).To(Succeed())
	}
	l.Expect(l.listing("crm")).To(ConsistOf("vm.yaml", "system.vhdx", "data-restored.vhdx"))
	l.Expect(l.RollBackReplacement(t.Context(), plan)).NotTo(Succeed())
}

// A disk that another VM builds on is never deleted.
func TestFinishReplacementSparesADiskInUse(t *testing.T) {
	files := oneVM().with("state: running", "state: off").with("- path: data.vhdx", `- path: D:\VMs\shelf\gold.vhdx`)
	files["shelf/gold.vhdx"] = ""
	files["web/vm.yaml"] = "id: " + webID + "\ndisks: [{path: 'D:\\VMs\\web\\a.vhdx'}]\n"
	files["web/a.vhdx"] = ""
	l := newLab(t, files)
	plan := l.plan(nil)
	l.Expect(l.Replace(t.Context(), plan)).To(Succeed())
	plan.Disks[0].Old = `D:\VMs\web\a.vhdx`
	l.Expect(l.FinishReplacement(t.Context(), plan)).To(MatchError(hyperv.ErrDiskMismatch))
	l.Expect(l.listing("web")).To(ContainElement("a.vhdx"))
}

func TestReplaceAddsADiskThatTheVMHasLost(t *testing.T) {
	l := newLab(t, oneVM().with("- path: data.vhdx\n", ""))
	plan := l.plan(nil)
	l.Expect(plan.Disks[0].Old).To(BeEmpty())
	for range 2 {
		l.Expect(l.Replace(t.Context(), plan)).To(Succeed())
	}
	l.Expect(l.vm(crmID).Disks).To(HaveLen(2))
	for range 2 {
		l.Expect(l.RollBackReplacement(t.Context(), plan)).To(Succeed())
	}
	l.Expect(l.vm(crmID).Disks).To(HaveLen(1))
}

func TestReplacementIsRefused(t *testing.T) {
	replace := func(l *lab) error {
		_, err := l.PlanReplacement(t.Context(), crmID, []hyperv.TargetDisk{{Key: "SCSI-0-1", Path: `D:\VMs\crm\new.vhdx`}}, nil)
		return err
	}
	t.Run("while the VM has checkpoints of its user", func(t *testing.T) {
		l := newLab(t, oneVM())
		plan := l.plan(nil)
		l.snapshot(2)
		l.Expect(replace(l)).To(MatchError(hyperv.ErrUserCheckpoints))
		l.Expect(l.Replace(t.Context(), plan)).To(MatchError(hyperv.ErrUserCheckpoints), "made after the plan")
		l.Expect(l.vm(crmID).State).To(Equal(hyperv.Running), "the VM was not even turned off")
	})
	t.Run("while a backup of ours runs", func(t *testing.T) {
		l := newLab(t, oneVM())
		l.mustCheckpoint("task-1", hyperv.Crash)
		l.Expect(replace(l)).To(MatchError(hyperv.ErrBusy))
	})
	t.Run("while another product backs the VM up", func(t *testing.T) {
		l := newLab(t, oneVM())
		l.snapshot(32768)
		l.Expect(replace(l)).To(MatchError(hyperv.ErrForeignCheckpoint))
	})
	t.Run("where a pass-through disk is", func(t *testing.T) {
		l := newLab(t, oneVM().with("- path: data.vhdx", "- passThrough: 1\n  sizeBytes: 1048576"))
		l.Expect(replace(l)).To(MatchError(hyperv.ErrDiskMismatch))
	})
	t.Run("when somebody attached another disk since the plan", func(t *testing.T) {
		l := newLab(t, oneVM())
		plan := l.plan(nil)
		plan.Disks[0].Old = `D:\VMs\crm\other.vhdx`
		l.Expect(l.Replace(t.Context(), plan)).To(MatchError(hyperv.ErrDiskMismatch))
	})
	t.Run("when the VM is gone", func(t *testing.T) {
		l := newLab(t, machines{})
		l.Expect(replace(l)).To(MatchError(hyperv.ErrVMNotFound))
	})
}
