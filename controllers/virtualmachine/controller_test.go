package virtualmachine_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
	"github.com/hyperkeep/hyperkeep/controllers/test/testcluster"
	"github.com/hyperkeep/hyperkeep/controllers/virtualmachine"
)

// world is a cluster with the controller under test.
type world struct {
	*testcluster.Cluster
	clock *clocktesting.FakePassiveClock
}

func TestController(t *testing.T) {
	// Whole seconds, as the API server stores times.
	w := &world{testcluster.New(t), clocktesting.NewFakePassiveClock(time.Now().Truncate(time.Second))}
	w.Manage(t, func(mgr ctrl.Manager) error {
		return virtualmachine.SetupWithManager(mgr, virtualmachine.Options{Clock: w.clock})
	})
	for _, namespace := range []string{"sales", "finance", "hyperkeep-host-hv01", "hyperkeep-host-hv02"} {
		w.Namespace(t, namespace)
	}
	w.host(t, "hv01")
	w.host(t, "hv02")
	t.Run("protection", w.protection)
	t.Run("a scan that found nothing new", w.rescan)
	t.Run("two hosts with one id", w.duplicate)
	t.Run("placement rules that change", w.moved)
	t.Run("a label that somebody forged", w.forged)
}

func (w *world) host(t *testing.T, name string) *v1alpha1.HyperVHost {
	host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.HyperVHostSpec{VirtualMachineNamespace: "sales"}}
	w.Create(t, host)
	host.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonAgentAlive, LastTransitionTime: metav1.Now(),
	}}
	if err := w.Admin.Status().Update(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	return host
}

// scan replaces all that a host says.
func (w *world) scan(t *testing.T, host, id string, machines ...v1alpha1.VirtualMachineFacts) {
	t.Helper()
	part := &v1alpha1.HostInventory{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.AgentNamespace(host), Name: inventory.PartName(0)}}
	if err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(part), part); err != nil {
		w.Create(t, part)
	}
	now := metav1.Now()
	part.Status = v1alpha1.HostInventoryStatus{ScanID: id, ScanTime: &now, Parts: 1, VirtualMachines: machines}
	if err := w.Admin.Status().Update(t.Context(), part); err != nil {
		t.Fatal(err)
	}
}

func (w *world) machine(t *testing.T, namespace string, facts v1alpha1.VirtualMachineFacts) *v1alpha1.VirtualMachine {
	machine := &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: inventory.ObjectName(facts), Labels: map[string]string{v1alpha1.LabelVirtualMachineID: facts.ID, "tier": "1"},
	}}
	w.Create(t, machine)
	return machine
}

// reason of a condition, read from the API server; empty while there is none.
func (w *world) reason(t *testing.T, machine *v1alpha1.VirtualMachine, kind string) func() string {
	return func() string {
		if err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(machine), machine); err != nil {
			return err.Error()
		}
		if condition := meta.FindStatusCondition(machine.Status.Conditions, kind); condition != nil {
			return condition.Reason
		}
		return ""
	}
}

func facts(id, name string) v1alpha1.VirtualMachineFacts {
	return v1alpha1.VirtualMachineFacts{ID: id, DisplayName: name, State: v1alpha1.StateRunning}
}

// image makes a usable image.
func (w *world) image(t *testing.T, name string, machine *v1alpha1.VirtualMachine, taken time.Time) *v1alpha1.BackupImage {
	t.Helper()
	image := &v1alpha1.BackupImage{
		ObjectMeta: metav1.ObjectMeta{Namespace: machine.Namespace, Name: name},
		Spec: v1alpha1.BackupImageSpec{
			ImageID: name, RepositoryRef: v1alpha1.RepositoryReference{Name: "main"},
			VirtualMachine: v1alpha1.ImageVirtualMachine{ID: machine.Labels[v1alpha1.LabelVirtualMachineID], Name: "crm", ObjectName: machine.Name, HostName: "hv01"},
			Summary: v1alpha1.ImageSummary{
				SnapshotTime: metav1.NewTime(taken), Type: v1alpha1.ImageFull, Consistency: v1alpha1.ConsistencyApplication, Method: v1alpha1.MethodWMI,
			},
		},
	}
	w.Create(t, image)
	image.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonPublished, LastTransitionTime: metav1.Now(),
	}}
	if err := w.Admin.Status().Update(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	return image
}

func (w *world) protection(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(10 * time.Second)
	w.scan(t, "hv01", "1", facts("a1", "crm"))
	machine := w.machine(t, "sales", facts("a1", "crm"))
	rpoMet := w.reason(t, machine, v1alpha1.ConditionRPOMet)
	g.Eventually(rpoMet).Should(Equal(v1alpha1.ReasonUnprotected))
	g.Expect(machine.Status.HostName).To(Equal("hv01"))
	g.Expect(machine.Status.Facts.State).To(Equal(v1alpha1.StateRunning))
	g.Expect(machine.Labels).To(HaveKeyWithValue(v1alpha1.LabelHost, "hv01"))
	g.Expect(machine.Labels).To(HaveKeyWithValue("tier", "1"), "labels of people stay")

	policy := &v1alpha1.BackupPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "sales", Name: "tier1"},
		Spec: v1alpha1.BackupPolicySpec{
			BackupSettings: v1alpha1.BackupSettings{RepositoryRef: v1alpha1.RepositoryReference{Name: "main"}},
			Selection:      v1alpha1.Selection{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"tier": "1"}}},
			Objectives:     &v1alpha1.Objectives{RPO: "4h"},
		},
	}
	w.Create(t, policy)
	g.Eventually(rpoMet).Should(Equal(v1alpha1.ReasonNeverBackedUp))

	// An image brings it into compliance; the moment its RPO is missed takes it out, with no event but the clock (E.6).
	image := w.image(t, "image-1", machine, w.clock.Now().Add(-4*time.Hour))
	g.Eventually(rpoMet).Should(Equal(v1alpha1.ReasonRPOMet))
	g.Expect(machine.Status.LastRestorePoint.ImageRef.Name).To(Equal("image-1"))
	w.clock.SetTime(w.clock.Now().Add(2 * time.Second))
	g.Eventually(rpoMet).Should(Equal(v1alpha1.ReasonRPOMissed))

	// An image in another namespace is no help, a newer one here is; without any it was never backed up.
	elsewhere := machine.DeepCopy()
	elsewhere.Namespace = "finance"
	w.image(t, "image-2", elsewhere, w.clock.Now())
	g.Consistently(rpoMet, time.Second).Should(Equal(v1alpha1.ReasonRPOMissed))
	newer := w.image(t, "image-3", machine, w.clock.Now())
	g.Eventually(rpoMet).Should(Equal(v1alpha1.ReasonRPOMet))
	g.Expect(machine.Status.Images).To(Equal(int32(2)))
	g.Expect(w.Admin.Delete(t.Context(), newer)).To(Succeed())
	g.Expect(w.Admin.Delete(t.Context(), image)).To(Succeed())
	g.Eventually(rpoMet).Should(Equal(v1alpha1.ReasonNeverBackedUp))

	// A label takes it out of the policy.
	g.Expect(w.Admin.Patch(t.Context(), machine, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"tier":"2"}}}`)))).To(Succeed())
	g.Eventually(rpoMet).Should(Equal(v1alpha1.ReasonUnprotected))
}

// rescan proves that scans at short intervals load nobody: nothing is written when nothing is new.
func (w *world) rescan(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(10 * time.Second)
	w.scan(t, "hv01", "2", facts("b1", "web"))
	machine := w.machine(t, "sales", facts("b1", "web"))
	g.Eventually(w.reason(t, machine, v1alpha1.ConditionPresent)).Should(Equal(v1alpha1.ReasonFound))
	written := machine.ResourceVersion
	for _, id := range []string{"3", "4", "5"} {
		w.scan(t, "hv01", id, facts("b1", "web"))
	}
	g.Consistently(func() string { w.reason(t, machine, "")(); return machine.ResourceVersion }, time.Second).Should(Equal(written))

	off := facts("b1", "web")
	off.State = v1alpha1.StateOff
	w.scan(t, "hv01", "6", off)
	g.Eventually(func() v1alpha1.VirtualMachineState { w.reason(t, machine, "")(); return machine.Status.Facts.State }).Should(Equal(v1alpha1.StateOff))
	w.scan(t, "hv01", "7")
	g.Eventually(w.reason(t, machine, v1alpha1.ConditionPresent)).Should(Equal(v1alpha1.ReasonNotFound))
	g.Expect(machine.Status.Facts).NotTo(BeNil(), "what it was stays known")
}

func (w *world) duplicate(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(10 * time.Second)
	w.scan(t, "hv01", "8", facts("c1", "erp"))
	machine := w.machine(t, "sales", facts("c1", "erp"))
	present := w.reason(t, machine, v1alpha1.ConditionPresent)
	g.Eventually(present).Should(Equal(v1alpha1.ReasonFound))

	w.scan(t, "hv02", "1", facts("c1", "erp"))
	g.Eventually(present).Should(Equal(v1alpha1.ReasonDuplicateID))
	g.Expect(machine.Status.HostName).To(Equal("hv01"), "it stays where it was")
	g.Expect(machine.Status.Facts.Concerns).To(HaveLen(1))

	primary, replica := facts("c1", "erp"), facts("c1", "erp")
	primary.ReplicaRole, replica.ReplicaRole = "Primary", "Replica"
	w.scan(t, "hv01", "9", replica)
	w.scan(t, "hv02", "2", primary)
	g.Eventually(present).Should(Equal(v1alpha1.ReasonFound))
	g.Expect(machine.Status.HostName).To(Equal("hv02"), "the primary of a replica pair leads")
	g.Eventually(func() string { present(); return machine.Labels[v1alpha1.LabelHost] }).Should(Equal("hv02"))

	// The primary's host is removed from Hyperkeep.
	host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: "hv02"}}
	g.Expect(w.Admin.Delete(t.Context(), host)).To(Succeed())
	g.Eventually(func() string { present(); return machine.Status.HostName }).Should(Equal("hv01"))
}

func (w *world) moved(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(10 * time.Second)
	w.scan(t, "hv01", "10", facts("d1", "ledger"))
	machine := w.machine(t, "sales", facts("d1", "ledger"))
	g.Eventually(w.reason(t, machine, v1alpha1.ConditionPresent)).Should(Equal(v1alpha1.ReasonFound))

	patch := client.RawPatch(types.MergePatchType, []byte(`{"spec":{"placement":[{"namePattern":"ledger*","namespace":"finance"}]}}`))
	g.Expect(w.Admin.Patch(t.Context(), &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: "hv01"}}, patch)).To(Succeed())
	g.Eventually(w.reason(t, machine, v1alpha1.ConditionPresent)).Should(Equal(v1alpha1.ReasonMovedAway))
	g.Expect(meta.IsStatusConditionFalse(machine.Status.Conditions, v1alpha1.ConditionReady)).To(BeTrue())
	there := w.machine(t, "finance", facts("d1", "ledger"))
	g.Eventually(w.reason(t, there, v1alpha1.ConditionPresent)).Should(Equal(v1alpha1.ReasonFound))
}

// forged proves that a tenant who labels an object with the id of another namespace's machine learns nothing of it (T6).
func (w *world) forged(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(10 * time.Second)
	secret := facts("e1", "payroll")
	secret.Disks = []v1alpha1.VirtualMachineDisk{{Key: "SCSI-0-0", Kind: "VHDX", Path: `D:\secret.vhdx`}}
	w.scan(t, "hv01", "11", facts("f1", "mine"), secret)
	machine := w.machine(t, "sales", facts("f1", "mine"))
	g.Eventually(w.reason(t, machine, v1alpha1.ConditionPresent)).Should(Equal(v1alpha1.ReasonFound))
	relabel := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"hyperkeep.io/virtual-machine-id":"e1"}}}`))
	g.Expect(w.Admin.Patch(t.Context(), machine, relabel)).To(Succeed())
	g.Eventually(func() string { w.reason(t, machine, "")(); return machine.Labels[v1alpha1.LabelVirtualMachineID] }).Should(Equal("f1"))
	g.Expect(machine.Status.Facts.DisplayName).To(Equal("mine"))

	invented := &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{
		Namespace: "finance", Name: inventory.ObjectName(secret), Labels: map[string]string{v1alpha1.LabelVirtualMachineID: "e1"},
	}}
	w.Create(t, invented)
	g.Eventually(w.reason(t, invented, v1alpha1.ConditionPresent)).Should(Equal(v1alpha1.ReasonMovedAway))
	g.Expect(invented.Status.Facts).To(BeNil())
}
