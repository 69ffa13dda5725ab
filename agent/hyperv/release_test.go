package hyperv_test

import (
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
)

// NW-17, NW-18: released means that the VM is on its own files again, and not a moment earlier.
func TestReleasedOnlyWhenMerged(t *testing.T) {
	files := oneVM()
	files["host.yaml"] = "jobMillis: 1\nmergeBytesPerSecond: 4194304\n"
	l := newLab(t, files)
	cp := l.mustCheckpoint("task-1", hyperv.Application)
	disks := l.frozen(cp)
	state, err := l.Released(t.Context(), cp, disks)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(state).To(Equal(hyperv.ReleaseState{Message: "the checkpoint exists"}))

	l.write("crm/data.vhdx", 0, filled(2*mib, 'b'))
	l.Expect(l.Release(t.Context(), cp)).To(Succeed())
	state, err = l.Released(t.Context(), cp, disks)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(state.Done).To(BeFalse())
	l.Expect(state.Message).To(Or(ContainSubstring("MergingDisks"), ContainSubstring("is not merged")))

	l.waitReleased(cp, disks)
	vm := l.vm(crmID)
	l.Expect(vm.Disks[1].Path).To(Equal(`D:\VMs\crm\data.vhdx`))
	l.Expect(l.listing("crm")).To(ConsistOf("vm.yaml", "system.vhdx", "data.vhdx"))
	next := l.frozen(l.mustCheckpoint("task-2", hyperv.Crash))
	l.Expect(l.read(next[1], 2*mib)).To(Equal(filled(2*mib, 'b')), "what the guest wrote meanwhile is there")
}

// A task that was cancelled before it knew the disks is not done before the merge either.
func TestReleasedWithoutKnowingTheDisks(t *testing.T) {
	l := newLab(t, oneVM())
	l.snapshot(2)
	l.host.Faults().HoldMerges()
	cp := l.mustCheckpoint("task-1", hyperv.Crash)
	l.Expect(l.Release(t.Context(), cp)).To(Succeed())
	l.Expect(l.Released(t.Context(), cp, nil)).To(HaveField("Message", ContainSubstring("MergingDisks")))
	l.host.Faults().ReleaseMerges()
	l.waitReleased(cp, nil)
}

// The file that the VM wrote since the checkpoint must be gone, even where Hyper-V reports no merge: a failed one shows only so.
func TestReleasedNoticesAFileThatWasNeverMerged(t *testing.T) {
	l := newLab(t, oneVM())
	cp := l.mustCheckpoint("task-1", hyperv.Crash)
	disks := l.frozen(cp)
	l.Expect(l.Release(t.Context(), cp)).To(Succeed())
	l.waitReleased(cp, disks)
	l.writeFile("crm/left.avhdx", "")
	disks[1].LivePath = `D:\VMs\crm\left.avhdx`
	l.Expect(l.Released(t.Context(), cp, disks)).To(Equal(hyperv.ReleaseState{Message: `D:\VMs\crm\left.avhdx is not merged into D:\VMs\crm\data.vhdx yet`}))
}

func TestReleaseTwice(t *testing.T) {
	l := newLab(t, oneVM())
	cp := l.mustCheckpoint("task-1", hyperv.Application)
	for range 2 {
		l.Expect(l.Release(t.Context(), cp)).To(Succeed())
	}
	l.Expect(l.called("DestroySnapshot")).To(Equal(1))
}

// I4.
func TestReleaseSurvivesEveryCrash(t *testing.T) {
	var cp hyperv.Checkpoint
	var disks []hyperv.FrozenDisk
	crashTest{
		files:     oneVM,
		prepare:   func(l *lab) { cp = l.mustCheckpoint("task-1", hyperv.Crash); disks = l.frozen(cp) },
		operation: func(l *lab) error { return l.Release(t.Context(), cp) },
		check: func(l *lab) {
			l.waitReleased(cp, disks)
			l.Expect(l.vm(crmID).Checkpoints).To(BeEmpty())
		},
	}.run(t)
}

func TestReleasedOfAVMThatIsGone(t *testing.T) {
	l := newLab(t, oneVM())
	gone := hyperv.Checkpoint{ID: "Microsoft:none", VMID: webID}
	l.Expect(l.Release(t.Context(), gone)).To(Succeed())
	l.Expect(l.Released(t.Context(), gone, nil)).To(Equal(hyperv.ReleaseState{Done: true}))
}
