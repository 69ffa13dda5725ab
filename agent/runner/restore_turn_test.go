package runner

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// leaveAttempt leaves a virtual machine that an attempt defined and could not report, with its file.
func (r *rig) leaveAttempt(journal *Journal) Entry {
	r.t.Helper()
	file := filepath.Join(r.dir, "restored", "system.vhdx")
	err := os.Mkdir(filepath.Dir(file), 0o755)
	if err == nil {
		var content []byte
		if content, err = os.ReadFile(filepath.Join(r.dir, "crm", "system.vhdx")); err == nil {
			err = os.WriteFile(file, content, 0o600)
		}
	}
	entry := Entry{Tag: "attempt-1", Restore: &RestoreEntry{
		ID: "restore-1", Folder: `D:\VMs\restored`, Files: []string{`D:\VMs\restored\system.vhdx`}, Written: true, NotImported: "it has no files",
	}}
	err = errors.Join(err, journal.Put(entry))
	_, defineErr := r.logic.DefineVM(r.t.Context(), r.machine("crm").Definition(), hyperv.RestoreTarget{
		Name: "restored", Folder: entry.Restore.Folder, Tag: entry.Restore.ID, Disks: []hyperv.TargetDisk{{Key: "SCSI-0-0", Path: entry.Restore.Files[0]}},
	})
	if err := errors.Join(err, defineErr); err != nil {
		r.t.Fatal(err)
	}
	return entry
}

func (r *rig) machines() int {
	r.t.Helper()
	inventory, err := r.logic.Inventory(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return len(inventory.VMs)
}

// TestRestoreTakesBackEarlierAttempts proves that an attempt never takes what an earlier one left for its own (I5).
func TestRestoreTakesBackEarlierAttempts(t *testing.T) {
	second := Entry{Tag: "attempt-2", Restore: &RestoreEntry{ID: "restore-1"}}
	t.Run("before it begins", func(t *testing.T) {
		r := newHostOnly(t, "")
		journal := r.journal()
		restores := &restore{host: r.logic, files: r.host.Files(), journal: journal}
		r.leaveAttempt(journal)
		if err := journal.Put(Entry{Tag: "other", Restore: &RestoreEntry{ID: "restore-2"}}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := restores.inherit(t.Context(), second); err != nil {
			t.Fatal(err)
		}
		if left, err := journal.List(); err != nil || len(left) != 1 || left[0].Tag != "other" || r.machines() != 1 {
			t.Errorf("%+v remain, and %d virtual machines: %v", left, r.machines(), err)
		}
	})
	t.Run("or is tried again", func(t *testing.T) {
		r := newHostOnly(t, "")
		journal := r.journal()
		restores := &restore{host: r.logic, files: r.host.Files(), journal: journal}
		r.leaveAttempt(journal)
		r.host.Faults().FailNext(emulator.Fault{Method: "DestroySystem", JobError: 32768, Message: "0xDEAD"})
		task := &v1alpha1.AgentTask{ObjectMeta: metav1.ObjectMeta{UID: "attempt-2"}}
		task.Spec.Restore = &v1alpha1.RestoreTask{RestoreID: "restore-1"}
		err := restores.Run(t.Context(), task, nil)
		if err == nil || failureOf(err).Action != v1alpha1.FailureRetry || r.machines() != 2 {
			t.Errorf("%d virtual machines, %v", r.machines(), err)
		}
	})
	t.Run("unless that one was done but for its report", func(t *testing.T) {
		r := newHostOnly(t, "")
		journal := r.journal()
		restores := &restore{host: r.logic, files: r.host.Files(), journal: journal}
		first := r.leaveAttempt(journal)
		first.Restore.Result = &v1alpha1.RestoredVirtualMachine{Name: "restored"}
		if err := journal.Put(first); err != nil {
			t.Fatal(err)
		}
		got, _, err := restores.inherit(t.Context(), second)
		if err != nil || got.Tag != "attempt-2" || got.Restore.Result == nil || r.machines() != 2 {
			t.Errorf("%+v, %v", got, err)
		}
		if left, err := journal.List(); err != nil || len(left) != 1 || left[0].Tag != "attempt-2" {
			t.Errorf("the journal has %+v, %v", left, err)
		}
	})
}

// TestSweeperLeavesARestoreToItsNextAttempt: what the sweeper finds may be undone already, and its mark another attempt's.
func TestSweeperLeavesARestoreToItsNextAttempt(t *testing.T) {
	r := newHostOnly(t, "")
	journal := r.journal()
	restores := &restore{host: r.logic, files: r.host.Files(), journal: journal}
	first := r.leaveAttempt(journal)
	end, err := restores.turns.take(t.Context(), "restore-1")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int{2, 1} {
		if err := restores.sweep(t.Context(), first.Tag, "restore-1", time.Now()); err != nil || r.machines() != want {
			t.Errorf("%d virtual machines instead of %d: %v", r.machines(), want, err)
		}
		if want == 2 {
			end()
		}
	}
}
