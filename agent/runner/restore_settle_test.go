package runner

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

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
		if err := restores.sweep(t.Context(), entry.Tag, entry.Restore.ID, time.Now()); err != nil {
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
		if err := restores.sweep(t.Context(), entry.Tag, entry.Restore.ID, time.Now()); err == nil || !exists(r, "system.vhdx") {
			t.Errorf("a disk in use was deleted: %v", err)
		}
		if left, _, err := restores.journal.Get(entry.Tag); left.Restore.Settled.IsZero() || err != nil {
			t.Errorf("it is swept for ever: %v", err)
		}
	})
}

// TestNextAttemptInheritsWhatTheSweeperSettled: the agent died between the result and its report, and the sweeper was faster than the next attempt (I5).
func TestNextAttemptInheritsWhatTheSweeperSettled(t *testing.T) {
	r := newHostOnly(t, "")
	journal, clk := r.journal(), clocktesting.NewFakeClock(time.Now())
	restores := &restore{host: r.logic, files: r.host.Files(), journal: journal}
	first := r.leaveAttempt(journal)
	first.Restore.Result = &v1alpha1.RestoredVirtualMachine{Name: "restored"}
	if err := journal.Put(first); err != nil {
		t.Fatal(err)
	}
	if err := restores.sweep(t.Context(), first.Tag, first.Restore.ID, clk.Now()); err != nil {
		t.Fatal(err)
	}
	sweeper := &Sweeper{Journal: journal, Clock: clk}
	settled, _, err := journal.Get(first.Tag)
	if err == nil {
		_, err = sweeper.forget(settled)
	}
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := restores.inherit(t.Context(), Entry{Tag: "attempt-2", Restore: &RestoreEntry{ID: first.Restore.ID}})
	if err != nil || got.Restore.Result == nil || got.Restore.Result.Name != "restored" {
		t.Errorf("it would be restored a second time: %+v, %v", got.Restore, err)
	}
	clk.Step(settledPeriod)
	if _, err := sweeper.forget(settled); err != nil {
		t.Fatal(err)
	}
	if left, err := journal.List(); err != nil || len(left) != 1 || left[0].Tag != "attempt-2" {
		t.Errorf("the journal has %+v, %v", left, err)
	}
}
