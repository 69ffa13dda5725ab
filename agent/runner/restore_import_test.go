package runner

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

func TestImportFiles(t *testing.T) {
	files := func(names ...string) (out []image.FileRecord) {
		for _, name := range names {
			out = append(out, image.FileRecord{Name: name})
		}
		return out
	}
	cases := map[string]struct{ have, want []image.FileRecord }{
		"the definition comes first":            {files("A1.VMRS", "A1.vmcx", "A1.vmgs", "definition.json"), files("A1.vmcx", "A1.VMRS", "A1.vmgs")},
		"versions before 6.0 have an .xml":      {files("A1.bin", "A1.vsv", "A1.xml", "definition.json"), files("A1.xml", "A1.bin", "A1.vsv")},
		"files of another stem are not its own": {files("A1.vmcx", "A10.vmgs", "a1.vmgs"), files("A1.vmcx", "a1.vmgs")},
		"an image without any":                  {files("definition.json"), nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := importFiles(c.have); !slices.Equal(got, c.want) {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
}

// restore restores an image to a new virtual machine.
func (r *rig) restore(name, image string, change func(*v1alpha1.RestoreTask)) *v1alpha1.AgentTask {
	r.t.Helper()
	spec := &v1alpha1.RestoreTask{ImageID: image, Overwrite: v1alpha1.OverwriteNever, Name: name, RestoreID: name}
	if change != nil {
		change(spec)
	}
	return r.do(v1alpha1.AgentNamespace(hostName), name, v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskRestore, Restore: spec})
}

// planned counts the planned virtual machines of the host.
func (r *rig) planned() int {
	r.t.Helper()
	found, err := r.host.Session(wmi.NamespaceVirtualization).Query(r.t.Context(), "SELECT * FROM Msvm_PlannedComputerSystem")
	if err != nil {
		r.t.Fatal(err)
	}
	return len(found)
}

// TestRestoreThroughHyperV proves that an import brings back what only Hyper-V's files have, and that whatever it refuses is defined instead.
func TestRestoreThroughHyperV(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	wantSuccess(t, r.backup("first"))
	guestState := func(folder, id string) string {
		text, err := os.ReadFile(filepath.Join(r.dir, folder, "Virtual Machines", strings.ToUpper(id)+".vmgs"))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	original := guestState("crm", r.machine("crm").ID)
	t.Run("imported and started", func(t *testing.T) {
		task := r.restore("imported", "first", func(s *v1alpha1.RestoreTask) { s.PowerOn = true })
		wantSuccess(t, task)
		if vm := r.machine("imported"); vm.State != hyperv.Running || guestState("imported", vm.ID) != original {
			t.Errorf("the virtual machine is %s; its UEFI variables must be the original's", vm.State)
		}
	})
	t.Run("off, with a warning, when it should be saved and the image has no memory", func(t *testing.T) {
		task := r.restore("unsaved", "first", func(s *v1alpha1.RestoreTask) { s.State = v1alpha1.RestoredSaved })
		wantSuccess(t, task)
		if warnings := task.Status.Warnings; r.machine("unsaved").State != hyperv.Off || len(warnings) != 1 || warnings[0].Reason != "NotSaved" {
			t.Errorf("it is %s; warnings %+v", r.machine("unsaved").State, warnings)
		}
	})
	t.Run("defined when the import is refused", func(t *testing.T) {
		r.host.Faults().FailNext(emulator.Fault{Method: "RealizePlannedSystem", JobError: 32768, Message: "0xDEAD"})
		task := r.restore("refused", "first", nil)
		wantSuccess(t, task)
		got := task.Status.Restored
		if got.Method != v1alpha1.RestoreDefine || !strings.Contains(got.MethodReason, "0xDEAD") || r.planned() != 0 {
			t.Errorf("restored by %s: %s; %d planned virtual machines", got.Method, got.MethodReason, r.planned())
		}
		if vm := r.machine("refused"); len(vm.Disks) != 1 || guestState("refused", vm.ID) == original {
			t.Errorf("defined anew: %+v", vm)
		}
	})
	t.Run("not at all when the image is not the recorded one", func(t *testing.T) {
		for name, forge := range map[string]func(*v1alpha1.RestoreTask){
			"digest": func(s *v1alpha1.RestoreTask) {
				s.VirtualMachineID, s.Digest = r.images["first"].VirtualMachineID, strings.Repeat("0", 64)
			},
			"machine": func(s *v1alpha1.RestoreTask) { s.VirtualMachineID = "4f3c1e0a-0000-4000-8000-000000000666" },
		} {
			failure := r.restore("forged-"+name, "first", forge).Status.Failure
			if failure == nil || failure.Reason != v1alpha1.ReasonImageMismatch || failure.Action != v1alpha1.FailureStall {
				t.Errorf("the failure is %+v", failure)
			}
		}
	})
	t.Run("failed and taken back", func(t *testing.T) {
		r.host.Faults().FailNext(emulator.Fault{Method: "RealizePlannedSystem", JobError: 32768, Message: "0xDEAD"})
		r.host.Faults().FailNext(emulator.Fault{Method: "DefineSystem", JobError: 32768, Message: "0xBEEF"})
		task := r.restore("failed", "first", nil)
		if task.Status.Failure == nil || !strings.Contains(task.Status.Failure.Message, "0xBEEF") {
			t.Errorf("the failure is %+v", task.Status.Failure)
		}
		if _, err := os.Stat(filepath.Join(r.dir, "failed")); !os.IsNotExist(err) || r.planned() != 0 {
			t.Errorf("something is left: %v, %d planned", err, r.planned())
		}
	})
	t.Run("what a dead agent left planned is swept", func(t *testing.T) {
		r.leavePlanned("nobody")
		for limit := time.Now().Add(time.Minute); r.planned() != 0; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("the planned virtual machine remains (I4)")
			}
		}
	})
}

// TestReplaceThroughHyperV replaces the original: by import, by other disks where Hyper-V refuses that, and not at all where everything fails.
func TestReplaceThroughHyperV(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	wantSuccess(t, r.backup("first"))
	original, content := r.machine("crm"), r.content("crm", "system.vhdx")
	state := filepath.Join(r.dir, "crm", "Virtual Machines", original.ID+".vmgs")
	taken, err := os.ReadFile(state)
	if err != nil {
		t.Fatal(err)
	}
	replace := func(name string, change func(*v1alpha1.RestoreTask)) *v1alpha1.AgentTask {
		return r.restore(name, "first", func(s *v1alpha1.RestoreTask) {
			s.Name, s.Overwrite = "", v1alpha1.OverwriteReplace
			if change != nil {
				change(s)
			}
		})
	}
	expect := func(task *v1alpha1.AgentTask, method v1alpha1.RestoreMethod, reason string) {
		t.Helper()
		wantSuccess(t, task)
		if got := task.Status.Restored; got.Method != method || !strings.Contains(got.MethodReason, reason) {
			t.Errorf("restored by %s: %s", got.Method, got.MethodReason)
		}
		r.expectOnly(t, original.ID, content)
	}
	if err := os.WriteFile(state, []byte("what the guest has set since"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(replace("imported", nil), v1alpha1.RestoreImport, "")
	if got, err := os.ReadFile(state); err != nil || string(got) != string(taken) {
		t.Errorf("the UEFI variables are %q, %v", got, err)
	}
	r.host.Faults().FailNext(emulator.Fault{Method: "ImportSystemDefinition", JobError: 32768, Message: "0xDEAD"})
	expect(replace("refused-at-once", nil), v1alpha1.RestoreSwapDisks, "0xDEAD")
	r.host.Faults().FailNext(emulator.Fault{Method: "RealizePlannedSystem", JobError: 32768, Message: "0xBEEF"})
	expect(replace("refused-too-late", nil), v1alpha1.RestoreSwapDisks, "0xBEEF")
	before := r.machine("crm")
	r.host.Faults().FailNext(emulator.Fault{Method: "RealizePlannedSystem", JobError: 32768, Message: "0xBEEF"})
	r.host.Faults().FailNext(emulator.Fault{Method: "ModifyResourceSettings", ReturnValue: 32768, Times: 40})
	if task := replace("failed", nil); task.Status.Failure == nil {
		t.Error("the restore did not fail")
	}
	r.expectOnly(t, original.ID, content)
	if after := r.machine("crm"); after.Disks[0].Path != before.Disks[0].Path {
		t.Errorf("the virtual machine has %s instead of %s", after.Disks[0].Path, before.Disks[0].Path)
	}
}

// expectOnly checks that the host has one virtual machine, with its content, and one disk and no other file of a restore.
func (r *rig) expectOnly(t *testing.T, id string, content []byte) {
	t.Helper()
	vm := r.machine("crm")
	if vm.ID != id || vm.State != hyperv.Off || len(vm.Disks) != 1 || r.planned() != 0 {
		t.Fatalf("the virtual machine is %+v", vm)
	}
	name := vm.Disks[0].Path[strings.LastIndexByte(vm.Disks[0].Path, '\\')+1:]
	if !bytes.Equal(r.content("crm", name), content) {
		t.Error("the disk differs")
	}
	entries, err := os.ReadDir(filepath.Join(r.dir, "crm"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains([]string{".hyperv", "vm.yaml", "Virtual Machines", "Snapshots", name}, e.Name()) {
			t.Errorf("%s remains", e.Name())
		}
	}
}

// leavePlanned leaves a planned virtual machine with a mark, as an agent does that was killed.
func (r *rig) leavePlanned(tag string) {
	r.t.Helper()
	folder := filepath.Join(r.dir, "crm", "Virtual Machines")
	files, err := os.ReadDir(folder)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(folder, file.Name()))
		if err == nil && filepath.Ext(file.Name()) == ".vmcx" {
			err = os.WriteFile(filepath.Join(r.dir, "left.vmcx"), text, 0o600)
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	im, err := r.logic.PrepareImport(r.t.Context(), `D:\VMs\left.vmcx`, "", "crm", nil)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	r.host.Faults().FailNext(emulator.Fault{Method: "ValidatePlannedSystem", ReturnValue: 32775})
	if _, err = r.logic.ImportVM(ctx, im, hyperv.RestoreTarget{Name: "left", Folder: `D:\VMs\left`, Tag: tag}); err == nil || r.planned() != 1 {
		r.t.Fatalf("nothing was left: %v", err)
	}
}
