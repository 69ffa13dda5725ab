package hyperv_test

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
)

// exchange plans giving the VM the configuration that it had at a checkpoint, and restored disks. It has other processors since.
func (l *lab) exchange() (hyperv.Exchange, hyperv.RestoreTarget) {
	l.Helper()
	target := hyperv.RestoreTarget{
		Name: "crm", Tag: "task-9", KeepNetworks: true,
		Disks: []hyperv.TargetDisk{
			{Key: "SCSI-0-0", Path: l.restoredDisk("crm/system-restored.vhdx", 'r')}, {Key: "SCSI-0-1", Path: l.restoredDisk("crm/data-restored.vhdx", 'r')},
		},
	}
	im := l.prepareImport(l.staged(), crmID)
	l.writeFile("crm/vm.yaml", crm+"processors: 3\n")
	l.Eventually(func() int { return l.vm(crmID).Processors }, "10s", "5ms").Should(Equal(3))
	x, err := l.PlanExchange(l.Context(), im, target.Disks, `D:\VMs\aside`)
	l.Expect(err).NotTo(HaveOccurred())
	return x, target
}

// I5: wherever the agent dies, the VM comes out under its own id, and its old disks and files are aside until the end.
func TestExchangeSurvivesEveryCrash(t *testing.T) {
	var x hyperv.Exchange
	var target hyperv.RestoreTarget
	crashTest{
		files: oneVM, effects: true,
		prepare: func(l *lab) { x, target = l.exchange() },
		operation: func(l *lab) error {
			_, err := l.Exchange(t.Context(), x, target)
			return err
		},
		check: func(l *lab) {
			vm := l.vm(crmID)
			l.Expect([]any{vm.State, vm.Processors, vm.Disks[0].Path, vm.Disks[1].Path}).To(Equal(
				[]any{hyperv.Off, 1, `D:\VMs\crm\system-restored.vhdx`, `D:\VMs\crm\data-restored.vhdx`}))
			l.Expect(vm.Networks).To(Equal([]hyperv.NetworkAdapter{{Name: "Network Adapter", Address: "00155D010203", Static: true, Switch: "LAN"}}))
			l.Expect(l.listing("crm")).To(ContainElements("system.vhdx", "data.vhdx"), "the old disks are aside")
			l.Expect(l.listing("aside")).To(ConsistOf(crmID+".vmcx", crmID+".vmgs", crmID+".VMRS"))
			for range 2 {
				l.Expect(l.FinishExchange(t.Context(), x)).To(Succeed())
			}
			l.Expect(l.listing("crm")).NotTo(ContainElements("system.vhdx", "data.vhdx"))
			l.Expect(filepath.Join(l.dir, "aside")).NotTo(BeADirectory())
			l.Expect(l.planned()).To(BeEmpty())
			l.Expect(l.Start(t.Context(), crmID)).To(Succeed())
		},
	}.run(t)
}

// expectBack checks that the VM is as it was before an exchange, but off.
func (l *lab) expectBack(before hyperv.VM, guestState string) {
	l.Helper()
	vm := l.vm(crmID)
	l.Expect(vm.Definition()).To(Equal(before.Definition()))
	l.Expect(l.guestState("crm", crmID)).To(Equal(guestState))
	l.Expect(l.listing("crm")).To(ContainElements("system.vhdx", "data.vhdx"))
	l.Expect(l.planned()).To(BeEmpty())
	inventory, err := l.Inventory(l.Context())
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(inventory.VMs).To(HaveLen(1))
}

// Wherever an exchange dies, it can be taken back, and the VM is what it was.
func TestExchangeIsTakenBackFromEveryCrash(t *testing.T) {
	for n, done := 1, false; !done && !t.Failed(); n++ {
		l := newLab(t, oneVM())
		l.wire.effects = true
		x, target := l.exchange()
		before, guestState := l.vm(crmID), l.guestState("crm", crmID)
		l.wire.cutAfter(n)
		_, err := l.Exchange(t.Context(), x, target)
		done = err == nil
		l.wire.mend()
		for range 2 {
			_, err = patient(l, func() (any, error) { return l.RollBackExchange(t.Context(), x, target.Tag) })
			l.Expect(err).NotTo(HaveOccurred(), "after call %d", n)
		}
		l.expectBack(before, guestState)
	}
}

func TestRollBackExchangeSurvivesEveryCrash(t *testing.T) {
	var x hyperv.Exchange
	var before hyperv.VM
	var guestState string
	crashTest{
		files: oneVM, effects: true,
		prepare: func(l *lab) {
			var target hyperv.RestoreTarget
			x, target = l.exchange()
			before, guestState = l.vm(crmID), l.guestState("crm", crmID)
			_, err := l.Exchange(t.Context(), x, target)
			l.Expect(err).NotTo(HaveOccurred())
		},
		operation: func(l *lab) error {
			_, err := l.RollBackExchange(t.Context(), x, "task-9")
			return err
		},
		check: func(l *lab) {
			l.expectBack(before, guestState)
			l.Expect(l.DropAside(t.Context(), x)).To(Succeed())
		},
	}.run(t)
}

// Where the agent dies before the VM is removed, somebody may use it until the agent is back.
func TestExchangePutsBackWhatTheVMHasSetMeanwhile(t *testing.T) {
	l := newLab(t, oneVM())
	x, target := l.exchange()
	stop := l.refuse("DestroySystem", 32775)
	_, err := l.Exchange(t.Context(), x, target)
	l.Expect(err).To(MatchError(hyperv.ErrBusy))
	stop()
	l.Expect(l.RemoveImport(t.Context(), hyperv.Import{}, "task-9 (put back)")).To(Succeed())
	l.Expect(l.Start(t.Context(), crmID)).To(Succeed())
	l.writeFile("crm/Virtual Machines/"+crmID+".vmgs", "set since")
	before := l.vm(crmID)
	_, err = l.Exchange(t.Context(), x, target)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(l.RollBackExchange(t.Context(), x, target.Tag)).To(BeEmpty())
	l.expectBack(before, "set since")
}

func TestExchangeIsRefused(t *testing.T) {
	planOn := func(h *hyperv.Host) error {
		im := hyperv.Import{File: `D:\VMs\staging\x.vmcx`, ID: crmID, Name: "crm"}
		_, err := h.PlanExchange(t.Context(), im, []hyperv.TargetDisk{{Key: "SCSI-0-0", Path: `D:\VMs\crm\new.vhdx`}}, `D:\VMs\aside`)
		return err
	}
	plan := func(l *lab) error { return planOn(l.Host) }
	t.Run("of a VM that a cluster has a resource for", func(t *testing.T) {
		l := newLab(t, oneVM())
		l.Expect(planOn(l.withCluster(10, vmResource(crmID, "HV01")))).To(MatchError(hyperv.ErrImportRefused))
	})
	t.Run("of a VM with a disk that cannot be put back", func(t *testing.T) {
		l := newLab(t, oneVM().with("- path: data.vhdx", "- passThrough: 1\n  sizeBytes: 1048576"))
		l.Expect(plan(l)).To(MatchError(hyperv.ErrImportRefused))
	})
	t.Run("of a VM that replicates", func(t *testing.T) {
		l := newLab(t, oneVM().with("state: running", "replica: primary"))
		l.Expect(plan(l)).To(MatchError(hyperv.ErrImportRefused))
	})
	t.Run("of a VM with checkpoints of its user", func(t *testing.T) {
		l := newLab(t, oneVM())
		l.snapshot(2)
		l.Expect(plan(l)).To(MatchError(hyperv.ErrUserCheckpoints))
	})
	t.Run("when Hyper-V would not take the old files back: the VM stays", func(t *testing.T) {
		l := newLab(t, oneVM())
		x, target := l.exchange()
		l.host.Faults().FailNext(emulator.Fault{Method: "ImportSystemDefinition", JobError: 32768})
		_, err := l.Exchange(t.Context(), x, target)
		l.Expect(err).To(MatchError(hyperv.ErrImportRefused))
		l.Expect(l.called("DestroySystem")).To(BeZero())
		l.Expect(l.vm(crmID).Disks[0].Path).To(Equal(`D:\VMs\crm\system.vhdx`))
	})
	t.Run("when Hyper-V does not take the new files: the VM is put back", func(t *testing.T) {
		l := newLab(t, oneVM())
		x, target := l.exchange()
		before, guestState := l.vm(crmID), l.guestState("crm", crmID)
		l.Expect(os.Remove(filepath.Join(l.dir, "crm", "data-restored.vhdx"))).To(Succeed())
		_, err := l.Exchange(t.Context(), x, target)
		l.Expect(err).To(MatchError(hyperv.ErrImportRefused))
		l.Expect(l.RollBackExchange(t.Context(), x, target.Tag)).To(BeEmpty())
		l.expectBack(before, guestState)
	})
	t.Run("when somebody removed the VM since: nothing is imported, and nothing put back", func(t *testing.T) {
		l := newLab(t, oneVM().with("state: running", "state: off"))
		x, target := l.exchange()
		l.Expect(os.Remove(filepath.Join(l.dir, "crm", "vm.yaml"))).To(Succeed())
		_, err := l.Exchange(t.Context(), x, target)
		l.Expect(err).To(MatchError(hyperv.ErrVMNotFound))
		for range 2 {
			l.Expect(l.RollBackExchange(t.Context(), x, target.Tag)).To(BeEmpty())
		}
		l.Expect(l.called("ImportSystemDefinition")).To(BeZero())
	})
	t.Run("when somebody changed the VM's disks since: it is not even turned off", func(t *testing.T) {
		l := newLab(t, oneVM())
		x, target := l.exchange()
		x.Aside.Disks[1].Path = `D:\VMs\crm\other.vhdx`
		_, err := l.Exchange(t.Context(), x, target)
		l.Expect(err).To(MatchError(hyperv.ErrDiskMismatch))
		l.Expect(l.vm(crmID).State).To(Equal(hyperv.Running))
	})
	t.Run("when the VM replicates since: it is not even turned off", func(t *testing.T) {
		l := newLab(t, oneVM())
		x, target := l.exchange()
		l.writeFile("crm/vm.yaml", crm+"processors: 3\nreplica: primary\n")
		l.Eventually(func() hyperv.ReplicaRole { return l.vm(crmID).Replica }, "10s", "5ms").Should(Equal(hyperv.ReplicaPrimary))
		_, err := l.Exchange(t.Context(), x, target)
		l.Expect(err).To(MatchError(hyperv.ErrImportRefused))
		l.Expect(l.vm(crmID).State).To(Equal(hyperv.Running))
	})
	t.Run("once the new VM runs, it is not taken back", func(t *testing.T) {
		l := newLab(t, oneVM())
		x, target := l.exchange()
		_, err := l.Exchange(t.Context(), x, target)
		l.Expect(err).NotTo(HaveOccurred())
		l.Expect(l.Start(t.Context(), crmID)).To(Succeed())
		_, err = l.RollBackExchange(t.Context(), x, target.Tag)
		l.Expect(err).To(MatchError(hyperv.ErrVMState))
	})
}
