package hypervhost_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/hypervhost"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
	"github.com/hyperkeep/hyperkeep/controllers/test/testcluster"
)

// world is a cluster with the controller under test.
type world struct {
	*testcluster.Cluster
	clock *clocktesting.FakePassiveClock
}

func TestController(t *testing.T) {
	w := &world{testcluster.New(t), clocktesting.NewFakePassiveClock(time.Now())}
	w.Manage(t, func(mgr ctrl.Manager) error {
		return hypervhost.SetupWithManager(mgr, hypervhost.Options{
			Manager: types.NamespacedName{Namespace: testcluster.ManagerNamespace, Name: testcluster.ManagerAccount}, Clock: w.clock,
		})
	})
	w.Namespace(t, "sales")
	t.Run("a host's life", w.life)
	t.Run("a namespace that is taken", w.taken)
	t.Run("a namespace for machines that is missing", w.missingNamespace)
	t.Run("names that become no namespace are refused", w.badNames)
	t.Run("limits of bandwidth that mean nothing are refused", w.badBandwidth)
}

func (w *world) host(t *testing.T, name string, namespace string) *v1alpha1.HyperVHost {
	host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.HyperVHostSpec{VirtualMachineNamespace: namespace}}
	w.Create(t, host)
	return host
}

// reason of a condition, read from the API server; empty while there is none.
func (w *world) reason(t *testing.T, host *v1alpha1.HyperVHost, kind string) func() string {
	return func() string {
		if err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(host), host); err != nil {
			return err.Error()
		}
		if condition := meta.FindStatusCondition(host.Status.Conditions, kind); condition != nil {
			return condition.Reason
		}
		return ""
	}
}

// publish writes one part of an inventory as the agent does.
func publish(t *testing.T, g Gomega, agent client.Client, namespace, scan string, part, parts int32, machines ...v1alpha1.VirtualMachineFacts) {
	object := &v1alpha1.HostInventory{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: inventory.PartName(part)}}
	if err := agent.Get(t.Context(), client.ObjectKeyFromObject(object), object); apierrors.IsNotFound(err) {
		g.Expect(agent.Create(t.Context(), object)).To(Succeed())
	}
	now := metav1.Now()
	object.Status = v1alpha1.HostInventoryStatus{
		ScanID: scan, ScanTime: &now, Part: part, Parts: parts, SessionID: "session", VirtualMachines: machines,
		Host: &v1alpha1.HostFacts{ComputerName: "HV01", OperatingSystem: "Windows Server 2022"},
	}
	g.Expect(agent.Status().Update(t.Context(), object)).To(Succeed())
}

func facts(id, name string) v1alpha1.VirtualMachineFacts {
	return v1alpha1.VirtualMachineFacts{ID: id, DisplayName: name, State: v1alpha1.StateRunning}
}

func (w *world) machines(t *testing.T, namespace string) func() []string {
	return func() []string {
		var list v1alpha1.VirtualMachineList
		if err := w.Admin.List(t.Context(), &list, client.InNamespace(namespace)); err != nil {
			return []string{err.Error()}
		}
		names := []string{}
		for _, machine := range list.Items {
			names = append(names, machine.Name+" on "+machine.Labels[v1alpha1.LabelHost])
		}
		return names
	}
}

func (w *world) life(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(10 * time.Second)
	host, namespace := w.host(t, "hv01", "sales"), "hyperkeep-host-hv01"
	ready := w.reason(t, host, v1alpha1.ConditionReady)

	// Applying it makes what the agent needs, and tells how to start it.
	g.Eventually(ready).Should(Equal(v1alpha1.ReasonAgentNeverSeen))
	g.Expect(host.Status.AgentNamespace).To(Equal(namespace))
	var made corev1.Namespace
	g.Expect(w.Admin.Get(t.Context(), client.ObjectKey{Name: namespace}, &made)).To(Succeed())
	g.Expect(metav1.IsControlledBy(&made, host)).To(BeTrue(), "the garbage collector removes it after the host")

	// The agent has the rights to report, and to nothing of others.
	agent := w.Account(t, namespace, v1alpha1.AgentName)
	g.Expect(testcluster.Renew(t.Context(), agent, namespace, time.Second)).To(Succeed())
	g.Eventually(ready).Should(Equal(v1alpha1.ReasonAgentAlive))

	// A scan counts once all its parts are there.
	publish(t, g, agent, namespace, "scan-1", 0, 2, facts("a1", "CRM DB"))
	g.Consistently(w.machines(t, "sales"), time.Second).Should(BeEmpty())
	publish(t, g, agent, namespace, "scan-1", 1, 2, facts("b2", "web"))
	crm, web := inventory.ObjectName(facts("a1", "CRM DB")), inventory.ObjectName(facts("b2", "web"))
	g.Eventually(w.machines(t, "sales")).Should(ConsistOf(crm+" on hv01", web+" on hv01"))
	g.Eventually(w.reason(t, host, v1alpha1.ConditionSupported)).Should(Equal(v1alpha1.ReasonSupported))
	g.Expect(*host.Status.VirtualMachines).To(Equal(int32(2)))

	// A machine that was renamed in Hyper-V keeps its object.
	publish(t, g, agent, namespace, "scan-2", 0, 1, facts("a1", "CRM DB 2"), facts("b2", "web"))
	g.Consistently(w.machines(t, "sales"), time.Second).Should(HaveLen(2))

	// A lease expires by the manager's clock, not by its own time.
	w.clock.SetTime(w.clock.Now().Add(time.Minute))
	g.Eventually(ready).Should(Equal(v1alpha1.ReasonAgentLost))
	g.Expect(meta.FindStatusCondition(host.Status.Conditions, v1alpha1.ConditionStalled)).To(BeNil(), "it comes back by itself")
	g.Expect(testcluster.Renew(t.Context(), agent, namespace, time.Minute)).To(Succeed())
	g.Eventually(ready).Should(Equal(v1alpha1.ReasonAgentAlive))

	// What somebody takes from the agent comes back.
	w.removeBinding(t, g, namespace)

	w.deletion(t, g, host, agent, namespace)
}

func (w *world) removeBinding(t *testing.T, g Gomega, namespace string) {
	_, err := w.Kubectl().Run(t.Context(), "delete", "rolebinding", "agent", "--namespace", namespace)
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() error {
		_, err := w.Kubectl().Run(t.Context(), "get", "rolebinding", "agent", "--namespace", namespace)
		return err
	}).Should(Succeed())
}

// deletion cancels what runs, waits until it has ended, and revokes every token.
func (w *world) deletion(t *testing.T, g Gomega, host *v1alpha1.HyperVHost, agent client.Client, namespace string) {
	task := &v1alpha1.AgentTask{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "release-1"},
		Spec: v1alpha1.AgentTaskSpec{
			Kind: v1alpha1.TaskRelease, Deadline: metav1.NewTime(time.Now().Add(time.Hour)),
			Owner:   v1alpha1.TaskOwner{Kind: "BackupJob", Namespace: "sales", Name: "j", UID: "1"},
			Release: &v1alpha1.ReleaseTask{VirtualMachineID: "a1", Tag: "t"},
		},
	}
	w.Create(t, task)
	g.Expect(w.Admin.Delete(t.Context(), host)).To(Succeed())
	g.Eventually(func() bool {
		g.Expect(agent.Get(t.Context(), client.ObjectKeyFromObject(task), task)).To(Succeed())
		return task.Spec.Cancel
	}).Should(BeTrue(), "the agent is asked to clean up, and can still report that it did")

	task.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ConditionSucceeded, Status: metav1.ConditionFalse, Reason: v1alpha1.ReasonCanceled, LastTransitionTime: metav1.Now(),
	}}
	g.Expect(agent.Status().Update(t.Context(), task)).To(Succeed())
	g.Eventually(func() error {
		return w.Admin.Get(t.Context(), client.ObjectKeyFromObject(host), host)
	}).Should(MatchError(apierrors.IsNotFound, "IsNotFound"))
	g.Eventually(func() error {
		return agent.Get(t.Context(), client.ObjectKeyFromObject(task), task)
	}).Should(MatchError(apierrors.IsUnauthorized, "IsUnauthorized"), "deleting the account revoked the token")
	g.Expect(w.machines(t, "sales")()).To(HaveLen(2), "machines stay")
}

func (w *world) taken(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(10 * time.Second)
	w.Namespace(t, "hyperkeep-host-taken")
	w.Create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "hyperkeep-host-taken", Name: v1alpha1.AgentName}})
	host := w.host(t, "taken", "sales")
	g.Eventually(w.reason(t, host, v1alpha1.ConditionStalled)).Should(Equal(v1alpha1.ReasonNamespaceTaken))
	g.Expect(w.Admin.Delete(t.Context(), host)).To(Succeed())
	g.Eventually(func() error {
		return w.Admin.Get(t.Context(), client.ObjectKeyFromObject(host), host)
	}).Should(MatchError(apierrors.IsNotFound, "IsNotFound"))
	account := &corev1.ServiceAccount{}
	g.Expect(w.Admin.Get(t.Context(), client.ObjectKey{Namespace: "hyperkeep-host-taken", Name: v1alpha1.AgentName}, account)).
		To(Succeed(), "an account that is not ours stays")
}

func (w *world) missingNamespace(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(10 * time.Second)
	host := w.host(t, "hv02", "later")
	g.Eventually(w.reason(t, host, v1alpha1.ConditionStalled)).Should(Equal(v1alpha1.ReasonNamespaceNotFound))
	agent := w.Account(t, "hyperkeep-host-hv02", v1alpha1.AgentName)
	publish(t, g, agent, "hyperkeep-host-hv02", "scan-1", 0, 1, facts("c3", "erp"))
	g.Eventually(func() *int32 { w.reason(t, host, "")(); return host.Status.VirtualMachines }).ShouldNot(BeNil())
	g.Expect(w.machines(t, "later")()).To(BeEmpty())
	g.Expect(w.Admin.Get(t.Context(), client.ObjectKey{Name: "later"}, &corev1.Namespace{})).NotTo(Succeed(), "namespaces of users are theirs to make")

	w.Namespace(t, "later")
	g.Eventually(w.machines(t, "later")).Should(HaveLen(1))
	g.Eventually(w.reason(t, host, v1alpha1.ConditionStalled)).Should(BeEmpty())
}

func (w *world) badNames(t *testing.T) {
	host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: "hv01.example.com"}, Spec: v1alpha1.HyperVHostSpec{VirtualMachineNamespace: "sales"}}
	NewWithT(t).Expect(w.Admin.Create(t.Context(), host)).To(MatchError(ContainSubstring("use hv01, not hv01.example.com")))
}

func (w *world) badBandwidth(t *testing.T) {
	g := NewWithT(t)
	window := func(start, end string, days ...v1alpha1.Weekday) *v1alpha1.BandwidthLimits {
		return &v1alpha1.BandwidthLimits{Windows: []v1alpha1.BandwidthWindow{{Days: days, Start: start, End: end}}}
	}
	try := func(limits *v1alpha1.BandwidthLimits) (*v1alpha1.HyperVHost, error) {
		host := &v1alpha1.HyperVHost{
			ObjectMeta: metav1.ObjectMeta{Name: "narrow"},
			Spec:       v1alpha1.HyperVHostSpec{VirtualMachineNamespace: "sales", Bandwidth: limits},
		}
		return host, w.Admin.Create(t.Context(), host, client.DryRunAll)
	}
	for why, limits := range map[string]*v1alpha1.BandwidthLimits{
		"an unknown time zone": {TimeZone: "Mars/Olympus"},
		"no bandwidth at all":  {BytesPerSecond: new(int64)},
		"no time of the day":   window("8:00", "18:00"),
		"the 25th hour":        window("08:00", "25:00"),
		"never open":           window("08:00", "08:00"),
		"no day of the week":   window("08:00", "18:00", "Caturday"),
		"a day twice":          window("08:00", "18:00", "Monday", "Monday"),
	} {
		_, err := try(limits)
		g.Expect(apierrors.IsInvalid(err)).To(BeTrue(), "%s: %v", why, err)
	}
	good := window("22:00", "06:00", "Saturday", "Sunday")
	good.TimeZone = "Europe/Berlin"
	_, err := try(good)
	g.Expect(err).NotTo(HaveOccurred())
	whole, err := try(window("00:00", "24:00"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(whole.Spec.Bandwidth.TimeZone).To(Equal("UTC"), "the default")
}
