package runner

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/recovery"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// overwrite changes some bytes of the disk of a machine that is off.
func (r *rig) overwrite(text string, at int64) {
	r.t.Helper()
	file, err := os.OpenFile(filepath.Join(r.dir, "crm", "system.vhdx"), os.O_RDWR, 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		r.t.Fatal(err)
	}
	disk, err := vhdx.OpenWriter(file, stat.Size(), nil)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := disk.WriteAt([]byte(text), at); err != nil {
		r.t.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		r.t.Fatal(err)
	}
}

// TestRollBackThroughHyperV rolls a machine back by what differs: in its own disk at the end, and not at all when that fails.
func TestRollBackThroughHyperV(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	wantSuccess(t, r.backup("first"))
	original, taken := r.machine("crm"), r.content("crm", "system.vhdx")
	rollBack := func(name string) *v1alpha1.AgentTask {
		return r.restore(name, "first", func(s *v1alpha1.RestoreTask) {
			s.Name, s.Overwrite, s.Blocks = "", v1alpha1.OverwriteReplace, v1alpha1.BlocksChanged
		})
	}
	r.overwrite("what the guest wrote", 2<<20)
	r.overwrite("where nothing was", diskSize-4096)
	changed := r.content("crm", "system.vhdx")

	r.host.Faults().FailNext(emulator.Fault{Method: "ModifyResourceSettings", ReturnValue: 32768})
	if task := rollBack("failed"); task.Status.Failure == nil {
		t.Error("the rollback did not fail")
	}
	r.expectOnly(t, original.ID, changed)

	task := rollBack("rolled-back")
	wantSuccess(t, task)
	got := task.Status.Restored
	if got.Method != v1alpha1.RestoreRollBack || got.ComparedBytes != diskSize || got.WrittenBytes == 0 || got.WrittenBytes > 256<<10 || got.Paths[0] != original.Disks[0].Path {
		t.Errorf("restored %+v", got)
	}
	r.expectOnly(t, original.ID, taken)
	if vm := r.machine("crm"); vm.Disks[0].Path != original.Disks[0].Path {
		t.Errorf("the machine has %s", vm.Disks[0].Path)
	}
	second := r.backup("second")
	wantSuccess(t, second)
	if second.Status.Image.Type != v1alpha1.ImageFull { // change tracking has not seen what was rewritten (I3)
		t.Errorf("the next image is %+v", second.Status.Image)
	}
}

// What was rewritten is merged later when it cannot be merged now, such as into the disk of a machine that was started. Until then the machine has it all the
// same, in a file above its disk.
func TestRollBackIsMergedWhenTheMachineIsOff(t *testing.T) {
	r := newHostOnly(t, "")
	ctx, vm, now := t.Context(), r.machine("crm"), time.Now()
	disk := vm.Disks[0]
	above := strings.TrimSuffix(disk.Path, ".vhdx") + "-restored-1.vhdx"
	want := bytes.Clone(r.content("crm", "system.vhdx"))
	copy(want[2<<20:], "as in the image")
	files := r.host.Files()
	base, err := openBase(ctx, files, disk.Path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := files.Create(ctx, above)
	if err != nil {
		t.Fatal(err)
	}
	child, err := recovery.OpenChild(file, 0, base.disk, baseName(disk.Path))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := child.WriteAt([]byte("as in the image"), 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(child.Close(), file.Close()); err != nil {
		t.Fatal(err)
	}
	base.close()
	plan, err := r.logic.PlanReplacement(ctx, vm.ID, []hyperv.TargetDisk{{Key: disk.Key, Path: above}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.logic.Replace(ctx, plan); err != nil {
		t.Fatal(err)
	}
	restores := &restore{host: r.logic, files: files, journal: r.journal()}
	entry := Entry{Tag: "1", Restore: &RestoreEntry{
		ID: "1", Files: []string{above}, Beneath: []string{disk.Path}, Replacement: &plan, Result: &v1alpha1.RestoredVirtualMachine{ID: vm.ID},
	}}
	if err := restores.journal.Put(entry); err != nil {
		t.Fatal(err)
	}
	if err := r.logic.Start(ctx, vm.ID); err != nil {
		t.Fatal(err)
	}
	if err := restores.settle(ctx, entry, now); err == nil || !strings.Contains(err.Error(), "when it is off") {
		t.Errorf("a running machine: %v", err)
	}
	if got := r.machine("crm"); got.State != hyperv.Running || got.Disks[0].Path != above {
		t.Errorf("the machine is %+v", got)
	}
	if err := r.logic.TurnOff(ctx, vm.ID); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second call finds nothing to do
		if err := restores.settle(ctx, entry, now); err != nil {
			t.Fatal(err)
		}
	}
	r.expectOnly(t, vm.ID, want)
	if settled, found, err := restores.journal.Get("1"); !found || settled.Restore.Settled.IsZero() || err != nil {
		t.Errorf("it is not settled: %v", err)
	}
}

// TestSingleDisksThroughHyperV restores one disk: to a file, and in place of the original's.
func TestSingleDisksThroughHyperV(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	wantSuccess(t, r.backup("first"))
	original, taken := r.machine("crm"), r.content("crm", "system.vhdx")
	key := original.Disks[0].Key

	task := r.restore("files", "first", func(s *v1alpha1.RestoreTask) { s.Disks = []string{key} })
	wantSuccess(t, task)
	if got := task.Status.Restored; got.Method != v1alpha1.RestoreFiles || got.ID != "" || len(got.Paths) != 1 || !strings.HasSuffix(got.Paths[0], `\files\system.vhdx`) {
		t.Errorf("restored %+v", got)
	}
	if !bytes.Equal(r.content("files", "system.vhdx"), taken) || r.machines() != 1 {
		t.Errorf("the file differs, or there are %d machines", r.machines())
	}
	task = r.restore("missing", "first", func(s *v1alpha1.RestoreTask) { s.Disks = []string{"SCSI-9-9"} })
	if f := task.Status.Failure; f == nil || f.Reason != reasonDiskNotInImage || !strings.Contains(f.Message, "SCSI-9-9") {
		t.Errorf("the failure is %+v", f)
	}
	r.overwrite("what the guest wrote", 2<<20)
	task = r.restore("in-place", "first", func(s *v1alpha1.RestoreTask) {
		s.Name, s.Overwrite, s.Disks = "", v1alpha1.OverwriteReplace, []string{key}
	})
	wantSuccess(t, task)
	if got := task.Status.Restored; got.Method != v1alpha1.RestoreSwapDisks || !strings.EqualFold(got.ID, original.ID) {
		t.Errorf("restored %+v", got)
	}
	r.expectOnly(t, original.ID, taken)
}
