package runner

import (
	"bytes"
	"cmp"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/nbd"
)

// call calls a method of a service, or of the machine, as a person's tools do.
func (r *rig) call(object, method string, in wmi.Params) {
	r.t.Helper()
	s := r.host.Session(wmi.NamespaceVirtualization)
	found, err := s.Query(r.t.Context(), "SELECT * FROM "+object)
	if err == nil {
		_, err = wmi.Call(r.t.Context(), s, clock.RealClock{}, found[0].Path, method, in)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// checkpointNamed finds a checkpoint of a machine.
func (r *rig) checkpointNamed(vm hyperv.VM, name string) wmi.Instance {
	r.t.Helper()
	found, err := r.host.Session(wmi.NamespaceVirtualization).Query(r.t.Context(), "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemIdentifier='"+
		strings.ToUpper(vm.ID)+"' AND VirtualSystemType='Microsoft:Hyper-V:Snapshot:Realized' AND ElementName='"+name+"'")
	if err != nil || len(found) != 1 {
		r.t.Fatalf("%d checkpoints have the name %s, %v", len(found), name, err)
	}
	return found[0]
}

func (r *rig) apply(vm hyperv.VM, name string) {
	r.t.Helper()
	r.call("Msvm_VirtualSystemSnapshotService", "ApplySnapshot", wmi.Params{"Snapshot": r.checkpointNamed(vm, name).Path})
}

// grow writes to the machine's disk and makes a checkpoint with that name.
func (r *rig) grow(name string) {
	r.t.Helper()
	r.guest(name)
	r.userCheckpoint()
	made := r.checkpointNamed(r.machine("crm"), "crm")
	r.call("Msvm_VirtualSystemManagementService", "ModifySystemSettings", wmi.Params{"SystemSettings": wmi.Object{
		Class: made.Class, Path: made.Path, Properties: map[string]any{"ElementName": name},
	}})
}

// guest fills the second MiB of the machine's disk.
func (r *rig) guest(text string) {
	r.t.Helper()
	if vm := r.machine("crm"); vm.State != hyperv.Running { // which has the host look at it
		r.t.Fatalf("it is %s", vm.State)
	}
	if err := nbd.WriteOnce(filepath.Join(r.dir, "crm", "system.vhdx.nbd"), bytes.Repeat([]byte(text), 1<<20), 1<<20); err != nil {
		r.t.Fatal(err)
	}
}

// disk is all that a disk file shows, with everything beneath it.
func (r *rig) disk(path string) []byte {
	r.t.Helper()
	open, err := r.logic.OpenFiles(r.t.Context(), hyperv.FrozenDisk{Key: path, Path: path})
	if err != nil {
		r.t.Fatal(err)
	}
	defer open.Close()
	content := make([]byte, open.Size())
	if _, err := open.ReadAt(content, 0); err != nil {
		r.t.Fatal(err)
	}
	return content
}

// frozen is the disk of a checkpoint, and the file with its memory.
func (r *rig) frozen(vm hyperv.VM, name string) (disk, memory []byte) {
	r.t.Helper()
	settings := r.checkpointNamed(vm, name)
	found, err := r.host.Session(wmi.NamespaceVirtualization).Associators(r.t.Context(), settings.Path,
		"Msvm_VirtualSystemSettingDataComponent", "Msvm_StorageAllocationSettingData")
	if err != nil || len(found) != 1 {
		r.t.Fatalf("the checkpoint %s has %d disks, %v", name, len(found), err)
	}
	id := strings.TrimPrefix(settings.Properties["InstanceID"].(string), "Microsoft:")
	memory, err = os.ReadFile(filepath.Join(r.dir, baseName(vm.Folder), "Snapshots", id+".VMRS"))
	if err != nil {
		r.t.Fatal(err)
	}
	return r.disk(found[0].Properties["HostResource"].([]string)[0]), memory
}

// family is a tree by names: each checkpoint with its parent's, and what the machine goes on from.
func family(vm hyperv.VM) map[string]string {
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

// forest is a machine with a tree of checkpoints, b and c upon a, that goes on from c: what its disk is now, and what each checkpoint has.
type forest struct {
	now    []byte
	disks  map[string][]byte
	memory map[string][]byte
}

var planted = map[string]string{"a": "", "b": "a", "c": "a", "now": "c"}

// plant makes the tree. The machine runs, and its guest writes no more.
func (r *rig) plant() forest {
	r.t.Helper()
	const system = "Msvm_ComputerSystem WHERE ElementName='crm'"
	r.set("state: running\ncheckpoints: standard\n")
	r.grow("a")
	r.grow("b")
	r.apply(r.machine("crm"), "a")
	r.call(system, "RequestStateChange", wmi.Params{"RequestedState": int64(2)})
	r.grow("c")
	r.guest("d")
	r.call(system, "RequestStateChange", wmi.Params{"RequestedState": int64(3)})
	vm := r.machine("crm")
	out := forest{now: r.disk(vm.Disks[0].Path), disks: map[string][]byte{}, memory: map[string][]byte{}}
	for _, name := range []string{"a", "b", "c"} {
		out.disks[name], out.memory[name] = r.frozen(vm, name)
	}
	r.call(system, "RequestStateChange", wmi.Params{"RequestedState": int64(2)})
	return out
}

// expectForest checks that a machine has the tree, bit by bit, and that it can go back to each checkpoint.
func (r *rig) expectForest(t *testing.T, name string, want forest) {
	t.Helper()
	vm := r.machine(name)
	if got := family(vm); !maps.Equal(got, planted) {
		t.Fatalf("EZ-07: the tree is %v", got)
	}
	if !bytes.Equal(r.disk(vm.Disks[0].Path), want.now) {
		t.Error("the disk is not what it was when the image was taken")
	}
	for _, checkpoint := range []string{"b", "c", "a"} {
		if disk, memory := r.frozen(vm, checkpoint); !bytes.Equal(disk, want.disks[checkpoint]) || !bytes.Equal(memory, want.memory[checkpoint]) {
			t.Errorf("EZ-06, EZ-07: checkpoint %s differs", checkpoint)
		}
		r.apply(vm, checkpoint)
		if now := r.machine(name); now.State != hyperv.Saved || !bytes.Equal(r.disk(now.Disks[0].Path), want.disks[checkpoint]) {
			t.Errorf("gone back to %s, the machine is %s", checkpoint, now.State)
		}
	}
}

// expectAlone checks that a machine has its disk without checkpoints, and no file of them.
func (r *rig) expectAlone(t *testing.T, name string, want forest) {
	t.Helper()
	vm := r.machine(name)
	if len(vm.Checkpoints) != 0 || !bytes.Equal(r.disk(vm.Disks[0].Path), want.now) {
		t.Errorf("it has %d checkpoints, or another disk", len(vm.Checkpoints))
	}
	left, err := filepath.Glob(filepath.Join(r.dir, name, "*.*vhdx"))
	if err != nil || len(left) != 1 {
		t.Errorf("its folder has %v, %v", left, err)
	}
}

// TestTreeOfCheckpointsIsRestored restores an image by VSS of a machine with a tree of checkpoints that have memory: as a tree, or without it and saying so.
func TestTreeOfCheckpointsIsRestored(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	want := r.plant()
	wantSuccess(t, r.backup("tree", byVSS, crashConsistent))
	original := r.machine("crm")
	succeeds := func(t *testing.T, name string, restored int32, reason string, change func(*v1alpha1.RestoreTask)) {
		t.Helper()
		task := r.restore(name, "tree", change)
		wantSuccess(t, task)
		got := task.Status.Restored
		if c := got.Checkpoints; got.Method != v1alpha1.RestoreImport || c == nil || c.InImage != 3 || c.Restored != restored || !strings.Contains(c.Reason, reason) {
			t.Fatalf("restored by %s %s; checkpoints %+v", got.Method, got.MethodReason, got.Checkpoints)
		}
		warned := slices.ContainsFunc(task.Status.Warnings, func(w v1alpha1.Warning) bool { return w.Reason == reasonCheckpoints })
		if warned != (restored < 3) {
			t.Errorf("the warnings are %+v", task.Status.Warnings)
		}
		if left, err := os.ReadDir(filepath.Join(r.dir, name, "hyperkeep")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the imported files remain: %v, %v", left, err)
		}
	}
	t.Run("to a new machine", func(t *testing.T) {
		succeeds(t, "twin", 3, "", nil)
		r.expectForest(t, "twin", want)
	})
	for name, fault := range map[string]emulator.Fault{
		"unsupported": {Method: "ImportSnapshotDefinitions", ReturnValue: 32770, Message: ""},
		"in-vain":     {Method: "ImportSnapshotDefinitions", JobError: 32768, Message: "0xDEAD"},
		"unrealized":  {Method: "RealizePlannedSystem", JobError: 32768, Message: "0xDEAD"},
	} {
		t.Run("without the tree when Hyper-V refuses it: "+name, func(t *testing.T) {
			r.host.Faults().FailNext(fault)
			succeeds(t, name, 0, cmp.Or(fault.Message, "32770"), nil)
			r.expectAlone(t, name, want)
		})
	}
	t.Run("not with a single disk", func(t *testing.T) {
		task := r.restore("one-disk", "tree", func(s *v1alpha1.RestoreTask) { s.Disks = []string{"SCSI-0-0"} })
		wantSuccess(t, task)
		if got := task.Status.Restored; got.Checkpoints != nil || !bytes.Equal(r.disk(got.Paths[0]), want.now) {
			t.Errorf("restored %+v", got)
		}
	})
	t.Run("and taken back whole", func(t *testing.T) {
		r.host.Faults().FailNext(emulator.Fault{Method: "RealizePlannedSystem", JobError: 32768, Message: "0xDEAD", Times: 2})
		r.host.Faults().FailNext(emulator.Fault{Method: "DefineSystem", JobError: 32768, Message: "0xBEEF"})
		task := r.restore("failed", "tree", nil)
		if task.Status.Failure == nil || !strings.Contains(task.Status.Failure.Message, "0xBEEF") {
			t.Errorf("the failure is %+v", task.Status.Failure)
		}
		if _, err := os.Stat(filepath.Join(r.dir, "failed")); !os.IsNotExist(err) || r.planned() != 0 {
			t.Errorf("something is left: %v, %d planned", err, r.planned())
		}
	})
	inPlace := func(s *v1alpha1.RestoreTask) { s.Name, s.Overwrite = "", v1alpha1.OverwriteReplace }
	t.Run("not in place of a machine that has checkpoints", func(t *testing.T) {
		task := r.restore("occupied", "tree", inPlace)
		if f := task.Status.Failure; f == nil || !strings.Contains(f.Message, "checkpoints") {
			t.Errorf("the failure is %+v", f)
		}
		if got := family(r.machine("crm")); !maps.Equal(got, planted) {
			t.Errorf("the original has %v", got)
		}
	})
	t.Run("in place of a machine that lost them", func(t *testing.T) {
		r.call("Msvm_VirtualSystemSnapshotService", "DestroySnapshotTree", wmi.Params{"SnapshotSettingData": r.checkpointNamed(original, "a").Path})
		for limit := time.Now().Add(time.Minute); r.machine("crm").Operation != ""; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("the checkpoints are not merged")
			}
		}
		succeeds(t, "in-place", 3, "", inPlace)
		if vm := r.machine("crm"); vm.ID != original.ID {
			t.Errorf("the machine has the id %s", vm.ID)
		}
		if _, err := os.Stat(filepath.Join(r.dir, "crm", "system.vhdx")); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the replaced disk is still there: %v", err)
		}
		r.expectForest(t, "crm", want)
	})
}

// TestTreeOfADeadRestoreIsSwept has an agent that was killed while it wrote the files of a tree, and whose task is gone (I4).
func TestTreeOfADeadRestoreIsSwept(t *testing.T) {
	const tag = "aaaaaaaa-0000-4000-8000-000000000002"
	file := func(name, to string) TreeFile {
		return TreeFile{Name: name, MovedFile: hyperv.MovedFile{From: `D:\VMs\crm\` + name, To: `D:\VMs\dead\` + to}}
	}
	dead := RestoreEntry{
		ID: tag, Folder: `D:\VMs\dead`, Staging: `D:\VMs\dead\hyperkeep`, Config: []string{`D:\VMs\dead\hyperkeep\crm.vmcx`},
		Files: []string{`D:\VMs\dead\system_1.avhdx`},
		Tree: &TreeEntry{
			Folder: `D:\VMs\dead\hyperkeep\checkpoints`, Config: []TreeFile{file("a.vmcx", `hyperkeep\checkpoints\a.vmcx`)}, Done: 1,
			Disks: []TreeFile{file("system.vhdx", "system.vhdx"), file("system_1.avhdx", "system_1.avhdx"), file("system_2.avhdx", "system_2.avhdx")},
		},
	}
	r := newRigOn(t, "", func(r *rig, journal *Journal) {
		for _, name := range []string{"system.vhdx", "system_1.avhdx", "hyperkeep/checkpoints/a.vmcx", "hyperkeep/crm.vmcx"} {
			path := filepath.Join(r.dir, "dead", name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("half"), 0o600)); err != nil {
				r.t.Fatal(err)
			}
		}
		if err := journal.Put(Entry{Tag: tag, Restore: &dead}); err != nil {
			r.t.Fatal(err)
		}
	})
	gone := func() bool { _, err := os.Stat(filepath.Join(r.dir, "dead")); return os.IsNotExist(err) }
	for limit := time.Now().Add(time.Minute); !gone(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(limit) {
			t.Fatal("what it wrote remains")
		}
	}
}
