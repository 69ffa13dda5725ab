package hyperv_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// on calls a method of a service as somebody else does.
func (l *lab) on(service, method string, in wmi.Params) {
	l.Helper()
	s := l.foreignSession()
	found, err := s.Query(l.Context(), "SELECT * FROM "+service)
	l.Expect(err).NotTo(HaveOccurred())
	_, err = patient(l, func() (wmi.Done, error) { return wmi.Call(l.Context(), s, hurried{}, found[0].Path, method, in) })
	l.Expect(err).NotTo(HaveOccurred())
}

// checkpointOf finds a checkpoint of a VM by its name.
func (l *lab) checkpointOf(vmID, name string) wmi.Instance {
	l.Helper()
	found, err := l.foreignSession().Query(l.Context(), "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemIdentifier='"+strings.ToUpper(vmID)+
		"' AND VirtualSystemType='Microsoft:Hyper-V:Snapshot:Realized' AND ElementName='"+name+"'")
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(found).To(HaveLen(1), "checkpoint %s", name)
	return found[0]
}

func (l *lab) apply(vmID, name string) {
	l.Helper()
	l.on("Msvm_VirtualSystemSnapshotService", "ApplySnapshot", wmi.Params{"Snapshot": l.checkpointOf(vmID, name).Path})
}

// grow fills the first MiB of the system disk and makes a checkpoint, which gets a name and notes.
func (l *lab) grow(name string) {
	l.Helper()
	l.write("crm/system.vhdx", 0, filled(mib, name[0]))
	l.snapshot(2)
	made := l.checkpointOf(crmID, "crm")
	l.on("Msvm_VirtualSystemManagementService", "ModifySystemSettings", wmi.Params{"SystemSettings": wmi.Object{
		Class: made.Class, Path: made.Path, Properties: map[string]any{"ElementName": name, "Notes": []string{"of " + name}},
	}})
}

// plant makes a tree: b and c follow a, and the VM, off, goes on from c. Its guest's memory is in all of them.
func (l *lab) plant() {
	l.Helper()
	l.grow("a")
	l.grow("b")
	l.apply(crmID, "a")
	l.requestState(2)
	l.grow("c")
	l.write("crm/system.vhdx", 0, filled(mib, 'd'))
	l.requestState(3)
}

// standardVM is a VM with one disk, whose checkpoints have its memory.
func standardVM() machines {
	return oneVM().with("- path: data.vhdx\n", "").with("state: running", "state: running\ncheckpoints: standard")
}

// felled copies the files of the VM and of its checkpoints, as an image has them, and returns what restores them.
func (l *lab) felled() (hyperv.Import, hyperv.RestoreTarget) {
	l.Helper()
	vm := l.vm(crmID)
	tree := &hyperv.TargetTree{Folder: `D:\VMs\staging\checkpoints`}
	for _, name := range l.listing("crm") {
		if strings.HasSuffix(name, "vhdx") {
			l.copyFile("crm/"+name, "restored/new-"+name)
			tree.Disks = append(tree.Disks, hyperv.MovedFile{From: `D:\VMs\crm\` + name, To: `D:\VMs\restored\new-` + name})
		}
	}
	for folder, to := range map[string]string{"crm/Virtual Machines": "staging", "crm/Snapshots": "staging/checkpoints"} {
		for _, name := range l.listing(folder) {
			l.copyFile(folder+"/"+name, to+"/"+name)
		}
	}
	for range 2 {
		l.Expect(l.LinkTree(l.Context(), tree.Disks)).To(Succeed())
	}
	target := hyperv.RestoreTarget{Name: "crm restored", Folder: `D:\VMs\restored`, Tag: "task-9", Tree: tree}
	for _, d := range vm.Disks {
		target.Disks = append(target.Disks, hyperv.TargetDisk{Key: d.Key, Path: strings.Replace(d.Path, `\crm\`, `\restored\new-`, 1)})
	}
	return l.prepareImport(`D:\VMs\staging\`+vm.ID+".vmcx", ""), target
}

// shape is a tree of checkpoints by names: each with its parent's, and the one that the VM goes on from.
func shape(vm hyperv.VM) map[string]string {
	names := map[string]string{}
	for _, node := range vm.Checkpoints {
		names[node.ID] = node.Name
	}
	out := map[string]string{"now": names[vm.Current]}
	for _, node := range vm.Checkpoints {
		out[node.Name] = names[node.Parent]
	}
	return out
}

// holds checks what is at the start of the VM's system disk now.
func (l *lab) holds(vmID string, want byte, why string) {
	l.Helper()
	d := l.vm(vmID).Disks[0]
	l.Expect(l.read(hyperv.FrozenDisk{Key: d.Key, Path: d.Path, VirtualSize: d.VirtualSize}, mib)).To(Equal(filled(mib, want)), why)
}

// memory is the saved memory of a VM or a checkpoint.
func (l *lab) memory(folder, id string) string {
	l.Helper()
	text, err := os.ReadFile(filepath.Join(l.dir, folder, id+".VMRS"))
	l.Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// EZ-07, EZ-06, I5: wherever the agent dies, the VM comes out with the tree, and with what each checkpoint has.
func TestTreeIsImportedOverEveryCrash(t *testing.T) {
	var im hyperv.Import
	var target hyperv.RestoreTarget
	crashTest{
		files: standardVM, effects: true,
		prepare: func(l *lab) {
			l.plant()
			im, target = l.felled()
		},
		operation: func(l *lab) error {
			_, err := l.ImportVM(t.Context(), im, target)
			return err
		},
		check: func(l *lab) {
			imported, err := l.ImportVM(t.Context(), im, target)
			l.Expect(err).NotTo(HaveOccurred())
			l.expectTree(imported.VM)
		},
	}.run(t)
}

// expectTree checks that a VM has the tree that was planted.
func (l *lab) expectTree(vm hyperv.VM) {
	l.Helper()
	original := l.vm(crmID)
	l.Expect(shape(vm)).To(Equal(map[string]string{"a": "", "b": "a", "c": "a", "now": "c"}), "EZ-07")
	for i, node := range vm.Checkpoints {
		was := original.Checkpoints[i]
		l.Expect([]any{node.Name, node.Created, node.Kind}).To(Equal([]any{was.Name, was.Created, hyperv.CheckpointUser}))
		l.Expect(node.ID).NotTo(Equal(was.ID), "the original has that")
		l.Expect(l.checkpointOf(vm.ID, node.Name).Properties["Notes"]).To(Equal([]string{"of " + node.Name}))
	}
	l.holds(vm.ID, 'd', "what the VM went on with")
	for _, name := range []string{"b", "a", "c"} {
		l.apply(vm.ID, name)
		l.holds(vm.ID, name[0], "EZ-07: the disk of the checkpoint")
		l.Expect(l.vm(vm.ID).State).To(Equal(hyperv.Saved))
		id := strings.TrimPrefix(l.checkpointOf(crmID, name).Properties["InstanceID"].(string), "Microsoft:")
		l.Expect(l.memory("restored/Virtual Machines", vm.ID)).To(Equal(l.memory("crm/Snapshots", id)), "EZ-06: the memory of the checkpoint")
		l.Expect(l.vm(vm.ID).Networks[0]).To(And(HaveField("Switch", ""), HaveField("Static", false)), "a copy must not meet its original")
	}
	l.Expect(shape(l.vm(vm.ID))["now"]).To(Equal("c"))
	l.Expect(shape(original)).To(Equal(map[string]string{"a": "", "b": "a", "c": "a", "now": "c"}), "the original is as it was")
	l.Expect(l.planned()).To(BeEmpty())
}

func TestTreeIsRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*lab, *hyperv.RestoreTarget)
		want  error
		text  string
	}{
		"when its folder is missing": {
			func(_ *lab, target *hyperv.RestoreTarget) { target.Tree.Folder = `D:\VMs\nowhere` }, hyperv.ErrBusy, "was not found",
		},
		"when a disk of a checkpoint is missing": {
			func(l *lab, _ *hyperv.RestoreTarget) {
				l.Expect(os.Remove(filepath.Join(l.dir, "restored", "new-system.vhdx"))).To(Succeed())
			}, hyperv.ErrImportRefused, "place the disk",
		},
		"when the VM's disk does not build upon its checkpoint": {
			func(l *lab, target *hyperv.RestoreTarget) {
				target.Disks[0].Path = l.restoredDisk("restored/alone.vhdx", 'x')
			}, hyperv.ErrImportRefused, "does not build upon",
		},
		"when the host does not support it": {
			func(l *lab, _ *hyperv.RestoreTarget) {
				l.host.Faults().FailNext(emulator.Fault{Method: "ImportSnapshotDefinitions", ReturnValue: 32770})
			}, hyperv.ErrImportRefused, "import the checkpoints",
		},
		"when its job fails": {
			func(l *lab, _ *hyperv.RestoreTarget) {
				l.host.Faults().FailNext(emulator.Fault{Method: "ImportSnapshotDefinitions", JobError: 32768, Message: "0xDEAD"})
			}, hyperv.ErrImportRefused, "0xDEAD",
		},
		"for now while another operation runs": {
			func(l *lab, _ *hyperv.RestoreTarget) {
				l.host.Faults().FailNext(emulator.Fault{Method: "ImportSnapshotDefinitions", ReturnValue: 32775})
			}, hyperv.ErrBusy, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, standardVM())
			l.plant()
			im, target := l.felled()
			c.spoil(l, &target)
			_, err := l.ImportVM(t.Context(), im, target)
			l.Expect(err).To(And(MatchError(c.want), MatchError(ContainSubstring(c.text))))
			l.Expect(l.RemoveImport(t.Context(), im, target.Tag)).To(Succeed())
			l.Expect(l.planned()).To(BeEmpty())
			l.Expect(shape(l.vm(crmID))).To(HaveLen(4), "the original is as it was")
		})
	}
}

func TestCheckpointWhoseFileIsDamagedIsLeftOut(t *testing.T) {
	l := newLab(t, standardVM())
	l.plant()
	im, target := l.felled()
	id := strings.TrimPrefix(l.checkpointOf(crmID, "a").Properties["InstanceID"].(string), "Microsoft:")
	l.writeFile("staging/checkpoints/"+id+".vmcx", "torn")
	imported, err := l.ImportVM(t.Context(), im, target)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(shape(imported.VM)).To(Equal(map[string]string{"b": "", "c": "", "now": "c"}))
	l.Expect(imported.Warnings).To(ContainElements(ContainSubstring("damaged"), ContainSubstring(`Checkpoint "a"`)))
	l.apply(imported.VM.ID, "b")
	l.holds(imported.VM.ID, 'b', "it still has all of its disk")
}

// I4: a restore with a tree that is given up leaves nothing.
func TestImportedTreeIsRemoved(t *testing.T) {
	l := newLab(t, standardVM())
	l.plant()
	im, target := l.felled()
	imported, err := l.ImportVM(t.Context(), im, target)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(imported.VM.Checkpoints).To(HaveLen(3))
	for range 2 {
		l.Expect(l.RemoveVM(t.Context(), target.Tag)).To(Succeed())
	}
	inventory, err := l.Inventory(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(inventory.VMs).To(HaveLen(1))
}

func TestDisksThatDoNotBelongTogetherAreNotTied(t *testing.T) {
	l := newLab(t, standardVM())
	l.plant()
	_, target := l.felled()
	disks := target.Tree.Disks
	without := func(name string) (out []hyperv.MovedFile) {
		for _, d := range disks {
			if !strings.HasSuffix(d.To, name) {
				out = append(out, d)
			}
		}
		return out
	}
	l.Expect(l.LinkTree(t.Context(), without(`\new-system.vhdx`))).To(MatchError(hyperv.ErrDiskMismatch), "one is missing")
	l.makeDisk(filepath.Join(l.dir, "restored", "new-system.vhdx"), 'x')
	l.Expect(l.LinkTree(t.Context(), disks)).To(MatchError(hyperv.ErrDiskMismatch), "another is in its place")
}
