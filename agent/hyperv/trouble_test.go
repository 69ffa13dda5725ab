package hyperv_test

import (
	"bytes"
	"context"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

const dataDisk = `D:\VMs\crm\data.vhdx`

// happen lets something happen to the VM's second disk.
func (l *lab) happen(what emulator.Happening) {
	l.Helper()
	what.Machine, what.Path = "crm", dataDisk
	l.Expect(l.host.Faults().Happen(what)).To(Succeed())
}

func (l *lab) trouble(name string, on bool) {
	l.Helper()
	l.Expect(l.host.Faults().SetTrouble("crm", name, on)).To(Succeed())
}

func (l *lab) turn(state int64) {
	l.Helper()
	l.requestState(state)
}

// AC-14, I3: whatever made an id unusable, the next backup reads everything, and reads it rightly.
func TestEveryLossOfTrackingIsAFullRead(t *testing.T) {
	tests := map[string]struct {
		happen  func(*lab)
		offline bool
		empty   bool // the disk is a new one
	}{
		"the host crashed":                        {happen: func(l *lab) { l.happen(emulator.Happening{What: "hostCrashed"}) }},
		"another product switched tracking off":   {happen: func(l *lab) { l.happen(emulator.Happening{What: "trackingDisabled"}) }},
		"the tracking files were deleted":         {happen: func(l *lab) { l.happen(emulator.Happening{What: "trackingFilesLost"}) }},
		"the disk was moved to another storage":   {happen: func(l *lab) { l.happen(emulator.Happening{What: "storageMigrated", To: `D:\VMs\crm\moved\data.vhdx`}) }},
		"the disk was replaced by an empty one":   {happen: func(l *lab) { l.happen(emulator.Happening{What: "diskReplaced"}) }, offline: true, empty: true},
		"the disk got another id":                 {happen: func(l *lab) { l.happen(emulator.Happening{What: "diskIDChanged"}) }, offline: true},
		"the disk was enlarged while it was off":  {happen: func(l *lab) { l.happen(emulator.Happening{What: "diskResized", SizeBytes: diskSize + mib}) }, offline: true},
		"the disk was shrunk while it was off":    {happen: func(l *lab) { l.happen(emulator.Happening{What: "diskResized", SizeBytes: diskSize - mib}) }, offline: true},
		"the disk was converted while it was off": {happen: func(l *lab) { l.happen(emulator.Happening{What: "diskConverted"}) }, offline: true},
		"the disk was compacted while it was off": {happen: func(l *lab) { l.happen(emulator.Happening{What: "diskCompacted"}) }, offline: true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM())
			l.write("crm/data.vhdx", 0, filled(mib, 'a'))
			base := l.base()
			if tt.offline {
				l.turn(3)
			}
			tt.happen(l)
			if tt.offline {
				l.turn(2)
			}
			disks := l.frozen(l.mustCheckpoint("task-1", hyperv.Crash))
			_, err := l.Changes(t.Context(), disks[1], base.Disks[1].Tracked())
			l.Expect(err).To(MatchError(hyperv.ErrTrackingLost))
			want := filled(mib, 'a')
			if tt.empty {
				want = make([]byte, mib)
			}
			l.Expect(bytes.Equal(l.read(disks[1], mib), want)).To(BeTrue(), "the full read has what is on the disk")
		})
	}
}

// Reference 2.6: a VM that was taken back to a checkpoint of its user is another one than its base knew.
func TestRevertingToACheckpointLosesTracking(t *testing.T) {
	l := newLab(t, oneVM())
	l.write("crm/data.vhdx", 0, filled(mib, 'a'))
	l.snapshot(2)
	base := l.base()
	l.write("crm/data.vhdx", 0, filled(mib, 'b'))
	s := l.foreignSession()
	nodes, err := s.Query(t.Context(), "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemType='Microsoft:Hyper-V:Snapshot:Realized'")
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(nodes).To(HaveLen(1))
	service, err := s.Query(t.Context(), "SELECT * FROM Msvm_VirtualSystemSnapshotService")
	l.Expect(err).NotTo(HaveOccurred())
	_, err = wmi.Call(t.Context(), s, hurried{}, service[0].Path, "ApplySnapshot", wmi.Params{"Snapshot": nodes[0].Path})
	l.Expect(err).NotTo(HaveOccurred())
	l.turn(2)
	disks := l.frozen(l.mustCheckpoint("task-1", hyperv.Crash))
	_, err = l.Changes(t.Context(), disks[1], base.Disks[1].Tracked())
	l.Expect(err).To(MatchError(hyperv.ErrTrackingLost))
	l.Expect(bytes.Equal(l.read(disks[1], mib), filled(mib, 'a'))).To(BeTrue(), "what was written since is gone")
}

// An id of another disk's chain must never be answered.
func TestIDsOfAnotherDiskAreRefused(t *testing.T) {
	l := newLab(t, oneVM())
	base := l.base()
	disks := l.frozen(l.mustCheckpoint("task-1", hyperv.Crash))
	mixed := base.Disks[1].Tracked()
	mixed.RCTID = base.Disks[0].RCTID
	_, err := l.Changes(t.Context(), disks[1], mixed)
	l.Expect(err).To(MatchError(hyperv.ErrTrackingLost))
}

// Ids that cannot be told apart are no base for anything.
func TestArraysOfUnequalLengthAreNoBase(t *testing.T) {
	l := newLab(t, oneVM())
	l.trouble("unequalArrays", true)
	base := l.base()
	l.Expect(base.ID).NotTo(BeEmpty(), "the reference point is ours to drop")
	l.Expect(base.Disks).To(BeEmpty())
	l.Expect(l.DropReferencePoint(t.Context(), crmID, base.ID)).To(Succeed())
}

// The frozen file of a host in a hurry makes sense with its log only.
func TestFrozenDiskWithALogIsReadAndMergedRightly(t *testing.T) {
	l := newLab(t, oneVM())
	l.trouble("dirtyLog", true)
	l.write("crm/data.vhdx", 2*mib, filled(mib, 'a'))
	cp := l.mustCheckpoint("task-1", hyperv.Crash)
	l.write("crm/data.vhdx", 0, filled(mib, 'b'))
	disks := l.frozen(cp)
	want := append(make([]byte, 2*mib), filled(mib, 'a')...)
	l.Expect(bytes.Equal(l.read(disks[1], 3*mib), want)).To(BeTrue())
	l.Expect(l.Release(t.Context(), cp)).To(Succeed())
	l.waitReleased(cp, disks)
	l.trouble("dirtyLog", false)
	copy(want, filled(mib, 'b'))
	l.Expect(bytes.Equal(l.read(l.frozen(l.mustCheckpoint("task-2", hyperv.Crash))[1], 3*mib), want)).To(BeTrue())
}

// NW-17: a merge that does not start is told, and is over when the VM was turned off.
func TestBlockedMergeIsNotReleased(t *testing.T) {
	l := newLab(t, oneVM())
	l.trouble("mergeBlocked", true)
	cp := l.mustCheckpoint("task-1", hyperv.Crash)
	disks := l.frozen(cp)
	l.Expect(l.Release(t.Context(), cp)).To(Succeed())
	l.Consistently(func() (hyperv.ReleaseState, error) { return l.Released(t.Context(), cp, disks) }, 100*time.Millisecond).
		Should(HaveField("Done", false))
	l.turn(3)
	l.waitReleased(cp, disks)
}

// EZ-19, I6: another product's objects are never touched, and its checkpoint is waited for.
func TestForeignObjectsAreLeftAlone(t *testing.T) {
	l := newLab(t, oneVM())
	l.Expect(l.host.Faults().Happen(emulator.Happening{What: "foreignReferencePoint", Machine: "crm"})).To(Succeed())
	before, err := l.ReferencePoints(t.Context(), crmID)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(before).To(HaveLen(1))
	l.Eventually(func() hyperv.Operation { return l.vm(crmID).Operation }, 10*time.Second).Should(BeEmpty())
	base := l.base()
	l.Expect(base.ID).NotTo(Equal(before[0].ID))
	l.Expect(l.DropReferencePoint(t.Context(), crmID, base.ID)).To(Succeed())
	l.Expect(l.ReferencePoints(t.Context(), crmID)).To(Equal(before))

	l.Expect(l.host.Faults().Happen(emulator.Happening{What: "foreignCheckpoint", Machine: "crm"})).To(Succeed())
	_, err = l.checkpoint("task-1", hyperv.Crash)
	l.Expect(err).To(MatchError(hyperv.ErrForeignCheckpoint))
	l.Expect(l.Owned(t.Context())).To(BeEmpty())
	l.Expect(l.vm(crmID).Checkpoints).To(HaveLen(1))
}

// A job that nobody can end holds the VM, not the agent.
func TestJobThatNeverEndsIsGivenUp(t *testing.T) {
	for _, stubborn := range []bool{false, true} {
		l := newLab(t, oneVM())
		l.host.Faults().FailNext(emulator.Fault{Method: "CreateSnapshot", Hang: true, Stubborn: stubborn})
		intent, err := l.PrepareCheckpoint(t.Context(), crmID, hyperv.Application)
		l.Expect(err).NotTo(HaveOccurred())
		request := hyperv.CheckpointRequest{VMID: crmID, Tag: "task-1", Level: hyperv.Application, Intent: intent, Timeout: 50 * time.Millisecond}
		limited, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		_, err = l.Checkpoint(limited, request)
		cancel()
		l.Expect(err).To(HaveOccurred())
		if stubborn {
			_, err = l.checkpoint("task-2", hyperv.Crash)
			l.Expect(err).To(MatchError(hyperv.ErrBusy), "Hyper-V still works on it")
			l.host.Faults().ReleaseJobs()
		}
		l.mustCheckpoint("task-3", hyperv.Crash)
	}
}

// Reference 7.1: the codes that pass are worth another try, the others are not, from a method as from its job.
func TestCodesMeanTheSameFromMethodAndJob(t *testing.T) {
	tests := map[int64]error{
		32768: nil, 32769: wmi.ErrAccessDenied, 32770: wmi.ErrNotSupported, 32772: wmi.ErrTimeout, 32773: wmi.ErrInvalidParameter,
		32774: hyperv.ErrBusy, 32775: hyperv.ErrBusy, 32776: wmi.ErrInvalidParameter, 32777: hyperv.ErrBusy, 32779: hyperv.ErrBusy,
	}
	l := newLab(t, oneVM())
	for code, want := range tests {
		for _, fault := range []emulator.Fault{{ReturnValue: uint32(code)}, {JobError: code, Message: "refused"}} {
			fault.Method = "CreateSnapshot"
			l.host.Faults().FailNext(fault)
			_, err := l.checkpoint("task-1", hyperv.Crash)
			l.Expect(err).To(HaveOccurred(), "%d", code)
			if want != nil {
				l.Expect(err).To(MatchError(want), "%d", code)
			} else {
				l.Expect(err).NotTo(MatchError(hyperv.ErrBusy), "%d", code)
			}
		}
	}
}

// DR-12, EZ-17: replication and a backup exclude each other for a while; a replica is never asked to quiesce.
func TestReplicationThatWorksOnTheDisksIsWaitedFor(t *testing.T) {
	for name, more := range map[string]string{
		"replicating right now": "replica: primary\ntroubles: [replicating]\n",
		"resynchronizing":       "replica: primary\nreplicationState: resynchronizing\n",
		"failing over":          "replica: replica\nreplicationState: failoverInProgress\n",
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM().with("state: running\n", "state: running\n"+more))
			_, err := l.checkpoint("task-1", hyperv.Crash)
			l.Expect(err).To(MatchError(hyperv.ErrBusy))
		})
	}
	for name, more := range map[string]string{
		"suspended":                       "replica: primary\nreplicationState: suspended\n",
		"waiting for initial replication": "replica: primary\nreplicationState: waitingForInitialReplication\n",
		"critical":                        "replica: extended\nreplicationState: critical\n",
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM().with("state: running\n", "state: running\n"+more))
			l.mustCheckpoint("task-1", hyperv.Crash)
		})
	}
}

// NW-09: what the guest's component cannot do is known before, or told by the failed attempt.
func TestGuestsThatCannotQuiesce(t *testing.T) {
	for services, want := range map[string]hyperv.BackupService{
		"failing": hyperv.BackupServiceOK, "refusing": hyperv.BackupServiceOK, "incompatible": hyperv.BackupServiceFailing, "lost": hyperv.BackupServiceFailing,
	} {
		t.Run(services, func(t *testing.T) {
			l := newLab(t, oneVM().with("state: running\n", "state: running\nintegrationServices: "+services+"\n"))
			l.Expect(l.vm(crmID).BackupService).To(Equal(want))
			_, err := l.checkpoint("task-1", hyperv.Application)
			l.Expect(err).To(MatchError(hyperv.ErrQuiesce))
			l.mustCheckpoint("task-1", hyperv.Crash)
		})
	}
}
