package hyperv_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// NW-01, NW-04, NW-15.
func TestCheckpointFreezesTheDisks(t *testing.T) {
	l := newLab(t, oneVM())
	l.write("crm/data.vhdx", 0, filled(4096, 'a'))
	cp := l.mustCheckpoint("task-1", hyperv.Application)
	l.Expect(cp.Level).To(Equal(hyperv.Application))
	l.Expect(cp.Taken).To(BeTemporally("~", time.Now(), time.Minute))
	l.Expect(l.host.QuiesceCalls()).To(Equal(1))

	l.write("crm/data.vhdx", 0, filled(4096, 'b'))
	disks := l.frozen(cp)
	l.Expect(disks).To(HaveLen(2))
	l.Expect(disks[1].Key).To(Equal("SCSI-0-1"))
	l.Expect(disks[1].Path).To(Equal(`D:\VMs\crm\data.vhdx`))
	l.Expect(disks[1].LivePath).To(HaveSuffix(".avhdx"))
	l.Expect(l.read(disks[1], 4096)).To(Equal(filled(4096, 'a')))

	files, err := l.ConfigurationFiles(t.Context(), cp)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(files).To(ContainElements(HaveField("Name", HaveSuffix(".vmcx")), HaveField("Name", HaveSuffix(".vmgs")), HaveField("Name", HaveSuffix(".VMRS"))))
	for _, f := range files {
		l.Expect(f.Size).To(BeNumerically(">", 0), f.Name)
	}
}

// NW-05.
func TestCrashConsistentCheckpointDoesNotAskTheGuest(t *testing.T) {
	l := newLab(t, oneVM().with("state: running", "state: running\nintegrationServices: hanging"))
	l.Expect(l.mustCheckpoint("task-1", hyperv.Crash).Level).To(Equal(hyperv.Crash))
	l.Expect(l.host.QuiesceCalls()).To(BeZero())
}

func TestCheckpointIsTakenOncePerTag(t *testing.T) {
	l := newLab(t, oneVM())
	first := l.mustCheckpoint("task-1", hyperv.Application)
	again := l.mustCheckpoint("task-1", hyperv.Crash)
	l.Expect(again).To(Equal(first), "the level of the checkpoint that exists counts")
	l.Expect(l.called("CreateSnapshot")).To(Equal(1))
	_, err := l.checkpoint("task-2", hyperv.Crash)
	l.Expect(err).To(MatchError(hyperv.ErrBusy))
	l.Expect(err).To(MatchError(ContainSubstring("task-1")))
	owned, err := l.Owned(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(owned).To(Equal([]hyperv.Checkpoint{first}))
}

// A VM that is off is as consistent as it gets, and nobody is asked.
func TestCheckpointOfAnOffVMIsOffline(t *testing.T) {
	l := newLab(t, oneVM().with("state: running", "state: off"))
	l.Expect(l.mustCheckpoint("task-1", hyperv.Application).Level).To(Equal(hyperv.Offline))
	l.Expect(l.host.QuiesceCalls()).To(BeZero())
	l.Expect(l.mustCheckpoint("task-1", hyperv.Application).Level).To(Equal(hyperv.Offline), "found again")
}

// NW-08, NW-09, EZ-17.
func TestApplicationConsistentCheckpointIsRefused(t *testing.T) {
	tests := map[string]struct {
		old, replacement string
		want             error
		crashWorks       bool
	}{
		"of a saved VM":                         {"state: running", "state: saved", hyperv.ErrVMState, true},
		"of a paused VM":                        {"state: running", "state: paused", hyperv.ErrVMState, true},
		"of a replica":                          {"state: running", "state: off\nreplica: replica", hyperv.ErrVMState, false},
		"when the service is disabled":          {"state: running", "state: running\nintegrationServices: disabled", hyperv.ErrQuiesce, true},
		"when the guest has no services":        {"state: running", "state: running\nintegrationServices: missing", hyperv.ErrQuiesce, true},
		"when a writer in the guest fails":      {"state: running", "state: running\nintegrationServices: failing", hyperv.ErrQuiesce, true},
		"when production checkpoints are off":   {"state: running", "state: running\ncheckpoints: standard", nil, true},
		"never on account of the guest's being": {"state: running", "state: running", nil, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM().with(tt.old, tt.replacement))
			_, err := l.checkpoint("task-1", hyperv.Application)
			if tt.want == nil {
				l.Expect(err).NotTo(HaveOccurred())
				return
			}
			l.Expect(err).To(MatchError(tt.want))
			owned, err := l.Owned(t.Context())
			l.Expect(err).NotTo(HaveOccurred())
			l.Expect(owned).To(BeEmpty(), "nothing is left by a refusal")
			if tt.crashWorks {
				l.Expect(l.mustCheckpoint("task-1", hyperv.Crash).Level).To(Equal(hyperv.Crash))
			}
		})
	}
}

func TestQuiesceErrorSaysWhatTheGuestSaid(t *testing.T) {
	l := newLab(t, oneVM().with("state: running", "state: running\nintegrationServices: failing"))
	_, err := l.checkpoint("task-1", hyperv.Application)
	var failed *wmi.MethodError
	l.Expect(errors.As(err, &failed)).To(BeTrue())
	l.Expect(failed.Text()).NotTo(BeEmpty())
	l.Expect(err).To(MatchError(ContainSubstring(failed.Text())))
}

func TestHangingGuestIsGivenUp(t *testing.T) {
	l := newLab(t, oneVM().with("state: running", "state: running\nintegrationServices: hanging"))
	intent, err := l.PrepareCheckpoint(t.Context(), crmID, hyperv.Application)
	l.Expect(err).NotTo(HaveOccurred())
	_, err = l.Checkpoint(t.Context(), hyperv.CheckpointRequest{
		VMID: crmID, Tag: "task-1", Level: hyperv.Application, Timeout: 50 * time.Millisecond, Intent: intent,
	})
	l.Expect(err).To(MatchError(hyperv.ErrQuiesce))
	l.Expect(l.vm(crmID).Operation).To(BeEmpty(), "the job was stopped")
	l.Expect(l.mustCheckpoint("task-1", hyperv.Crash).Level).To(Equal(hyperv.Crash))
}

func TestCancelledCheckpointStopsTheJob(t *testing.T) {
	l := newLab(t, oneVM().with("state: running", "state: running\nintegrationServices: hanging"))
	intent, err := l.PrepareCheckpoint(t.Context(), crmID, hyperv.Application)
	l.Expect(err).NotTo(HaveOccurred())
	cancelled := errors.New("the task was cancelled")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, cancelled)
	defer cancel()
	_, err = l.Checkpoint(ctx, hyperv.CheckpointRequest{VMID: crmID, Tag: "task-1", Level: hyperv.Application, Intent: intent})
	l.Expect(err).To(MatchError(cancelled))
	l.Expect(errors.Is(err, hyperv.ErrQuiesce)).To(BeFalse())
	l.Expect(l.vm(crmID).Operation).To(BeEmpty())
}

// EZ-18, EZ-19: what passes by itself is told apart from what does not.
func TestRefusalsOfHyperVAreClassified(t *testing.T) {
	tests := map[string]struct {
		code uint32
		want error
	}{
		"invalid state means a conflicting operation": {32775, hyperv.ErrBusy},
		"invalid state of the snapshot service":       {5, hyperv.ErrBusy},
		"in use":                                      {32774, hyperv.ErrBusy},
		"a file in use":                               {32779, hyperv.ErrBusy},
		"system not available":                        {32777, hyperv.ErrBusy},
		"access denied is nobody's business to retry": {32769, wmi.ErrAccessDenied},
		"not supported":                               {32770, wmi.ErrNotSupported},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM())
			stop := l.refuse("CreateSnapshot", tt.code)
			_, err := l.checkpoint("task-1", hyperv.Crash)
			l.Expect(err).To(MatchError(tt.want))
			l.Expect(errors.Is(err, hyperv.ErrBusy)).To(Equal(tt.want == hyperv.ErrBusy))
			stop()
			l.mustCheckpoint("task-1", hyperv.Crash)
		})
	}
}

// NW-19.
func TestForeignCheckpointsAreNeverTouched(t *testing.T) {
	l := newLab(t, oneVM())
	l.snapshot(32768)
	_, err := l.checkpoint("task-1", hyperv.Crash)
	l.Expect(err).To(MatchError(hyperv.ErrForeignCheckpoint))
	vm := l.vm(crmID)
	l.Expect(vm.Checkpoints).To(HaveLen(1))
	l.Expect(vm.Concerns).To(ContainElement(HaveField("Reason", hyperv.ForeignCheckpoint)))

	foreign := hyperv.Checkpoint{ID: vm.Checkpoints[0].ID, VMID: crmID, Tag: "task-1"}
	l.Expect(l.Release(t.Context(), foreign)).To(MatchError(hyperv.ErrNotOurs))
	_, err = l.Convert(t.Context(), foreign, nil)
	l.Expect(err).To(MatchError(hyperv.ErrNotOurs))
	owned, err := l.Owned(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(owned).To(BeEmpty())
	l.Expect(l.vm(crmID).Checkpoints).To(Equal(vm.Checkpoints))
}

// NW-19: the checkpoints of a VM's user are part of what is read, and stay.
func TestUserCheckpointsStayAndTheirChainIsRead(t *testing.T) {
	l := newLab(t, oneVM())
	l.write("crm/data.vhdx", 0, filled(4096, 'a'))
	l.snapshot(2)
	l.write("crm/data.vhdx", 4096, filled(4096, 'b'))
	l.snapshot(2)
	cp := l.mustCheckpoint("task-1", hyperv.Application)
	disks := l.frozen(cp)
	l.Expect(disks[1].Path).To(HaveSuffix(".avhdx"))
	l.Expect(l.read(disks[1], 8192)).To(Equal(append(filled(4096, 'a'), filled(4096, 'b')...)))

	l.Expect(l.Release(t.Context(), cp)).To(Succeed())
	l.waitReleased(cp, disks)
	vm := l.vm(crmID)
	l.Expect(vm.Checkpoints).To(HaveLen(2))
	for _, node := range vm.Checkpoints {
		l.Expect(node.Kind).To(Equal(hyperv.CheckpointUser))
		l.Expect(l.Release(t.Context(), hyperv.Checkpoint{ID: node.ID, VMID: crmID, Tag: "task-1"})).To(MatchError(hyperv.ErrNotOurs))
	}
	l.Expect(vm.Checkpoints[1].Parent).To(Equal(vm.Checkpoints[0].ID))
	l.Expect(vm.Disks[1].Path).To(Equal(disks[1].Path))
}

// EZ-22: the rest is backed up, and what is not has a name and a reason.
func TestPassThroughAndSharedDisksAreExcluded(t *testing.T) {
	files := oneVM().with("networkAdapters:", "- passThrough: 3\n  sizeBytes: 1048576\n- path: shared.vhdx\n  shared: true\nnetworkAdapters:")
	files["crm/shared.vhdx"] = ""
	l := newLab(t, files)
	disks, excluded, err := l.Disks(t.Context(), l.mustCheckpoint("task-1", hyperv.Application))
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(disks).To(HaveLen(2))
	l.Expect(excluded).To(HaveLen(2))
	l.Expect(excluded[0]).To(And(HaveField("Key", "SCSI-0-2"), HaveField("Reason", hyperv.PassThroughDisk), HaveField("Message", ContainSubstring("agent inside the guest"))))
	l.Expect(excluded[1]).To(And(HaveField("Key", "SCSI-0-3"), HaveField("Reason", hyperv.SharedDisk)))
}

// onPersistentMemory is a VM with a third disk, on a controller that we do not know.
func onPersistentMemory() machines {
	files := oneVM().with("networkAdapters:", "- path: memory.vhdx\n  controller: PMEM 0:3\nnetworkAdapters:")
	files["crm/memory.vhdx"] = ""
	return files
}

// EZ-22, EZ-24: by both methods, and it is known before the first backup.
func TestDiskOnAnUnknownControllerIsExcluded(t *testing.T) {
	l := newLab(t, onPersistentMemory())
	l.Expect(l.vm(crmID).Concerns).To(ConsistOf(And(HaveField("Disk", "Other-0-0"), HaveField("Reason", hyperv.UnknownController))))
	disks, excluded, err := l.Disks(t.Context(), l.mustCheckpoint("task-1", hyperv.Application))
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(disks).To(HaveLen(2))
	named := ConsistOf(And(HaveField("Key", "Other-0-0"), HaveField("Reason", hyperv.UnknownController)))
	l.Expect(excluded).To(named)

	l = newLab(t, onPersistentMemory())
	s, _, _ := l.shadow(true, false)
	_, err = s.Snapshot(t.Context())
	l.Expect(err).NotTo(HaveOccurred())
	copied := l.contents(s)
	l.Expect(copied.Excluded).To(named)
	l.Expect(copied.Files).NotTo(ContainElement(HaveField("Source", HaveSuffix(".vhdx"))), "it is no file of the configuration either")
	l.Expect(s.Complete(t.Context(), true)).To(Succeed())
}

func TestCheckpointOfAVMThatIsGone(t *testing.T) {
	l := newLab(t, oneVM())
	_, err := l.PrepareCheckpoint(t.Context(), webID, hyperv.Crash)
	l.Expect(err).To(MatchError(hyperv.ErrVMNotFound))
	_, err = l.Checkpoint(t.Context(), hyperv.CheckpointRequest{VMID: webID, Tag: "task-1", Level: hyperv.Crash})
	l.Expect(err).To(MatchError(hyperv.ErrVMNotFound))
	_, _, err = l.Disks(t.Context(), hyperv.Checkpoint{ID: "Microsoft:none", VMID: crmID})
	l.Expect(err).To(MatchError(hyperv.ErrCheckpointNotFound))
}

// I4, I5: wherever the agent dies, there is one checkpoint afterwards, and it carries the tag.
func TestCheckpointSurvivesEveryCrash(t *testing.T) {
	var request hyperv.CheckpointRequest
	crashTest{
		files: oneVM,
		prepare: func(l *lab) {
			intent, err := l.PrepareCheckpoint(t.Context(), crmID, hyperv.Application)
			l.Expect(err).NotTo(HaveOccurred())
			request = hyperv.CheckpointRequest{VMID: crmID, Tag: "task-1", Level: hyperv.Application, Intent: intent}
		},
		operation: func(l *lab) error {
			_, err := l.Checkpoint(t.Context(), request)
			return err
		},
		check: func(l *lab) {
			l.Expect(l.called("CreateSnapshot")).To(Equal(1))
			owned, err := l.Owned(t.Context())
			l.Expect(err).NotTo(HaveOccurred())
			l.Expect(owned).To(HaveLen(1))
			l.Expect(owned[0]).To(And(HaveField("Tag", "task-1"), HaveField("Level", hyperv.Application)))
			l.Expect(l.vm(crmID).Checkpoints).To(HaveLen(1))
		},
	}.run(t)
}

// The host's own word for a full volume reaches the task, in whatever language.
func TestFullVolumeIsToldAsSuch(t *testing.T) {
	l := newLab(t, oneVM())
	l.host.Faults().FailNext(emulator.Fault{Method: "CreateSnapshot", JobError: 32768, Message: "Der Datenträger ist voll (0x80070070)."})
	_, err := l.checkpoint("task-1", hyperv.Application)
	l.Expect(err).To(MatchError(hyperv.ErrNoSpace))
	l.Expect(errors.Is(err, hyperv.ErrQuiesce)).To(BeFalse(), "a crash-consistent attempt would not help")
	l.Expect(l.host.Faults().Hits("CreateSnapshot")).To(Equal(1))
}

// EZ-18, EZ-19: replication makes Hyper-V fail the job with a code that says nothing.
func TestConflictingOperationIsBusyAndQuoted(t *testing.T) {
	const text = "'crm' cannot start a backup operation because it is currently executing a conflicting operation. Try the backup again."
	l := newLab(t, oneVM())
	l.host.Faults().FailNext(emulator.Fault{Method: "CreateSnapshot", JobError: 32768, Message: text})
	_, err := l.checkpoint("task-1", hyperv.Application)
	l.Expect(err).To(MatchError(hyperv.ErrBusy))
	l.Expect(err).To(MatchError(ContainSubstring(text)))
	l.Expect(errors.Is(err, hyperv.ErrQuiesce)).To(BeFalse())
}

// A policy that does not accept a partial image lets Hyper-V refuse.
func TestRequireAllDisksRefusesAPassThroughDisk(t *testing.T) {
	l := newLab(t, oneVM().with("networkAdapters:", "- passThrough: 3\n  sizeBytes: 1048576\nnetworkAdapters:"))
	_, err := l.Checkpoint(t.Context(), hyperv.CheckpointRequest{VMID: crmID, Tag: "task-1", Level: hyperv.Crash, RequireAllDisks: true})
	l.Expect(err).To(MatchError(ContainSubstring("physical disk")))
	_, err = l.Checkpoint(t.Context(), hyperv.CheckpointRequest{VMID: crmID, Tag: "task-1", Level: hyperv.Crash, CopyOnly: true})
	l.Expect(err).NotTo(HaveOccurred())
}

// While a checkpoint merges, the next one waits: chains must not grow.
func TestCheckpointWaitsForTheMerge(t *testing.T) {
	l := newLab(t, oneVM())
	l.host.Faults().HoldMerges()
	cp := l.mustCheckpoint("task-1", hyperv.Crash)
	disks := l.frozen(cp)
	l.write("crm/data.vhdx", 0, filled(4096, 'a'))
	l.Expect(l.Release(t.Context(), cp)).To(Succeed())
	l.Expect(l.vm(crmID).Operation).To(Equal(hyperv.MergingDisks))
	_, err := l.checkpoint("task-2", hyperv.Crash)
	l.Expect(err).To(MatchError(hyperv.ErrBusy))
	l.Expect(err).To(MatchError(ContainSubstring("MergingDisks")))
	l.host.Faults().ReleaseMerges()
	l.waitReleased(cp, disks)
	l.mustCheckpoint("task-2", hyperv.Crash)
}

func TestVMThatLostItsStorageIsNotBackedUp(t *testing.T) {
	l := newLab(t, oneVM().with("state: running", "state: off"))
	l.Expect(os.Remove(filepath.Join(l.dir, "crm/data.vhdx"))).To(Succeed())
	vm := l.vm(crmID)
	l.Expect(vm.State).To(Equal(hyperv.Other))
	l.Expect(vm.Concerns).To(ContainElements(HaveField("Reason", hyperv.CriticalState), HaveField("Reason", hyperv.DiskUnreadable)))
	_, err := l.checkpoint("task-1", hyperv.Crash)
	l.Expect(err).To(MatchError(hyperv.ErrVMState))
}
