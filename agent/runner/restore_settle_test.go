package runner

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// TestSweptSuccessLeavesNothingBehind: an agent died right behind the restore's success, and the task was deleted (I4).
func TestSweptSuccessLeavesNothingBehind(t *testing.T) {
	exists := func(r *rig, name string) bool {
		_, err := os.Stat(filepath.Join(r.dir, "crm", name))
		return err == nil
	}
	// replaced has put new disks into the virtual machine.
	replaced := func(t *testing.T) (*rig, *restore, Entry) {
		r := newHostOnly(t, "")
		content, err := os.ReadFile(filepath.Join(r.dir, "crm", "system.vhdx"))
		if err == nil {
			err = os.WriteFile(filepath.Join(r.dir, "crm", "new.vhdx"), content, 0o600)
		}
		if err == nil {
			err = os.Mkdir(filepath.Join(r.dir, "crm", "staging"), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(r.dir, "crm", "staging", "a.vmcx"), []byte("x"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		plan, err := r.logic.PlanReplacement(t.Context(), r.machine("crm").ID, []hyperv.TargetDisk{{Key: "SCSI-0-0", Path: `D:\VMs\crm\new.vhdx`}}, nil)
		if err == nil {
			err = r.logic.Replace(t.Context(), plan)
		}
		entry := Entry{Tag: "task-1", Restore: &RestoreEntry{
			ID: "restore-1", Files: []string{`D:\VMs\crm\new.vhdx`}, Replacement: &plan, Result: &v1alpha1.RestoredVirtualMachine{},
			Staging: `D:\VMs\crm\staging`, Config: []string{`D:\VMs\crm\staging\a.vmcx`},
		}}
		restores := &restore{host: r.logic, files: r.host.Files(), journal: r.journal()}
		if err == nil {
			err = restores.journal.Put(entry)
		}
		if err != nil {
			t.Fatal(err)
		}
		return r, restores, entry
	}
	t.Run("of what it replaced and staged", func(t *testing.T) {
		r, restores, entry := replaced(t)
		if err := restores.sweep(t.Context(), entry.Tag, entry.Restore.ID); err != nil {
			t.Fatal(err)
		}
		if exists(r, "system.vhdx") || exists(r, "staging") || !exists(r, "new.vhdx") {
			t.Error("the replaced disk or the staged file remains, or the restored disk does not")
		}
	})
	t.Run("but what the virtual machine uses again", func(t *testing.T) {
		r, restores, entry := replaced(t)
		if err := r.logic.RollBackReplacement(t.Context(), *entry.Restore.Replacement); err != nil {
			t.Fatal(err)
		}
		if err := restores.sweep(t.Context(), entry.Tag, entry.Restore.ID); err == nil || !exists(r, "system.vhdx") {
			t.Errorf("a disk in use was deleted: %v", err)
		}
		if _, found, err := restores.journal.Get(entry.Tag); found || err != nil {
			t.Errorf("it is swept for ever: %v", err)
		}
	})
}
