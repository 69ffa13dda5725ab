package hyperv_test

import (
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// anew is the Host of an agent that was started anew.
func (l *lab) anew() *hyperv.Host {
	return hyperv.New(hyperv.Seams{
		Virtualization: l.wire, CIM: l.host.Session(wmi.NamespaceCIMv2), Cluster: l.host.Session(wmi.NamespaceCluster),
		Disks: l.host.Disks(), Files: l.host.Files(), Clock: hurried{},
	})
}

// unanswered asks for a checkpoint and dies before it knows that there is one.
func (l *lab) unanswered(tag string) hyperv.Intent {
	l.Helper()
	intent, err := l.PrepareCheckpoint(l.Context(), crmID, hyperv.Crash)
	l.Expect(err).NotTo(HaveOccurred())
	l.wire.effects = true
	l.wire.cutAfter(1)
	_, err = l.Checkpoint(l.Context(), hyperv.CheckpointRequest{VMID: crmID, Tag: tag, Level: hyperv.Crash, Intent: intent})
	l.Expect(err).To(MatchError(wmi.ErrDisconnected))
	l.wire.mend()
	l.Eventually(func() hyperv.Operation { return l.vm(crmID).Operation }).Should(BeEmpty())
	return intent
}

// I4: a task that is cancelled in the window before the checkpoint has its name leaves nothing, whether Hyper-V lets it have one or not.
func TestUnnamedCheckpointIsFoundByItsIntentAndReleased(t *testing.T) {
	for name, refused := range map[string]bool{"and gets its name": false, "and never gets its name": true} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM())
			l.trouble("namesRefused", refused)
			intent := l.unanswered("task-1")
			l.Expect(l.Owned(t.Context())).To(BeEmpty(), "it has no name yet")
			_, err := l.FindCheckpoint(t.Context(), crmID, "task-1", hyperv.Intent{})
			l.Expect(err).To(MatchError(hyperv.ErrCheckpointNotFound), "without the intent it is anybody's")
			cp, err := l.FindCheckpoint(t.Context(), crmID, "task-1", intent)
			l.Expect(err).NotTo(HaveOccurred())
			l.Expect(cp.Unnamed != "").To(Equal(refused))
			l.Expect(l.Owned(t.Context())).To(Equal([]hyperv.Checkpoint{cp}))
			l.Expect(l.Release(t.Context(), cp)).To(Succeed())
			l.Expect(l.vm(crmID).Checkpoints).To(BeEmpty())
		})
	}
}

// Where two could be what was asked for, neither is touched (NW-19).
func TestIntentThatFitsTwoCheckpointsIdentifiesNone(t *testing.T) {
	l := newLab(t, oneVM())
	intent := l.unanswered("task-1")
	l.Expect(l.host.Faults().Happen(emulator.Happening{What: "foreignCheckpoint", Machine: "crm"})).To(Succeed())
	_, err := l.FindCheckpoint(t.Context(), crmID, "task-1", intent)
	l.Expect(err).To(MatchError(hyperv.ErrCheckpointNotFound))
	l.Expect(l.vm(crmID).Checkpoints).To(HaveLen(2))
}

// I4: reference 1.4 knows of renamed checkpoints of users only. Where Hyper-V never renames one of a backup, that backup works and leaves nothing.
func TestCheckpointWithoutANameIsOurs(t *testing.T) {
	unnamed := func(t *testing.T) (*lab, hyperv.Checkpoint) {
		l := newLab(t, oneVM())
		l.trouble("namesRefused", true)
		cp := l.mustCheckpoint("task-1", hyperv.Application)
		l.Expect(cp.Unnamed).To(ContainSubstring("ModifySystemSettings returned 32775"))
		l.Expect(cp.Level).To(Equal(hyperv.Application))
		return l, cp
	}
	t.Run("to the Host that took it", func(t *testing.T) {
		l, cp := unnamed(t)
		l.Expect(l.mustCheckpoint("task-1", hyperv.Application)).To(Equal(cp), "it is found again")
		l.Expect(l.called("CreateSnapshot")).To(Equal(1))
		l.Expect(l.Owned(t.Context())).To(Equal([]hyperv.Checkpoint{cp}))
		vm := l.vm(crmID)
		l.Expect(vm.Checkpoints[0].Tag).To(Equal("task-1"))
		l.Expect(vm.Concerns).NotTo(ContainElement(HaveField("Reason", hyperv.ForeignCheckpoint)))
		_, err := l.checkpoint("task-2", hyperv.Crash)
		l.Expect(err).To(And(MatchError(hyperv.ErrBusy), MatchError(ContainSubstring("task-1"))))
		disks := l.frozen(cp)
		l.Expect(l.Release(t.Context(), cp)).To(Succeed())
		l.waitReleased(cp, disks)
		l.mustCheckpoint("task-2", hyperv.Crash)
	})
	t.Run("to a Host that is told of it, which makes a base of it", func(t *testing.T) {
		l, cp := unnamed(t)
		disks := l.frozen(cp)
		l.Host = l.anew()
		_, err := l.Convert(t.Context(), cp, disks)
		l.Expect(err).To(MatchError(hyperv.ErrNotOurs))
		l.Recognize(cp)
		point, err := patient(l, func() (hyperv.ReferencePoint, error) { return l.Convert(t.Context(), cp, disks) })
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(point.Disks).To(HaveLen(2))
		l.waitReleased(cp, disks)
	})
	t.Run("and nobody else's", func(t *testing.T) {
		l, cp := unnamed(t)
		l.Host = l.anew()
		l.Expect(l.Owned(t.Context())).To(BeEmpty())
		l.Expect(l.Release(t.Context(), cp)).To(MatchError(hyperv.ErrNotOurs))
		_, err := l.checkpoint("task-2", hyperv.Crash)
		l.Expect(err).To(MatchError(hyperv.ErrForeignCheckpoint))
	})
}

// I4, I5: that no name is to be had changes nothing about dying anywhere.
func TestCheckpointWithoutANameSurvivesEveryCrash(t *testing.T) {
	var request hyperv.CheckpointRequest
	crashTest{
		files: func() machines { return oneVM().with("state: running", "state: running\ntroubles: [namesRefused]") },
		prepare: func(l *lab) {
			intent, err := l.PrepareCheckpoint(t.Context(), crmID, hyperv.Application)
			l.Expect(err).NotTo(HaveOccurred())
			request = hyperv.CheckpointRequest{VMID: crmID, Tag: "task-1", Level: hyperv.Application, Intent: intent}
		},
		operation: func(l *lab) error {
			l.Host = l.anew() // it knows only the intent
			cp, err := l.Checkpoint(t.Context(), request)
			if err == nil {
				err = l.Release(t.Context(), cp)
			}
			return err
		},
		check: func(l *lab) { l.Expect(l.vm(crmID).Checkpoints).To(BeEmpty()) },
	}.run(t)
}
