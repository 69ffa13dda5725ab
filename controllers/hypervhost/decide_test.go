package hypervhost

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
	"github.com/hyperkeep/hyperkeep/controllers/liveness"
)

var (
	now     = time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	options = Options{Manager: types.NamespacedName{Namespace: "hyperkeep-system", Name: "hyperkeep-manager"}}
)

// complete is a host that lacks nothing: its agent lives and has looked at it.
func complete() (*v1alpha1.HyperVHost, observed) {
	host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: "hv01", UID: "1", Generation: 3, Finalizers: []string{Finalizer}}}
	host.Spec.VirtualMachineNamespace = "vms"
	seen := observed{
		namespace: agentNamespace(host),
		access:    []client.Object{bindings("hv01", options)[0], agentAccount("hv01")},
		pulse:     liveness.Pulse{State: liveness.Alive, Until: now.Add(40 * time.Second)},
		claimed:   now.Add(-24 * time.Hour), renewed: now,
		scan: inventory.Scan{
			Time: metav1.NewTime(now.Add(-90 * time.Second)), SessionID: "s1", Host: &v1alpha1.HostFacts{ComputerName: "HV01"},
			VirtualMachines: []v1alpha1.VirtualMachineFacts{{ID: "a", DisplayName: "crm"}},
		},
		whole: true,
	}
	return host, seen
}

func TestDecide(t *testing.T) {
	task := func(name string, canceled bool) v1alpha1.AgentTask {
		return v1alpha1.AgentTask{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.AgentTaskSpec{Cancel: canceled}}
	}
	delete := func(host *v1alpha1.HyperVHost) { host.DeletionTimestamp = &metav1.Time{Time: now} }
	was := func(reason string) []metav1.Condition {
		return []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: reason}}
	}
	cases := map[string]struct {
		given   func(*v1alpha1.HyperVHost, *observed)
		action  action
		objects string // names
		ready   string // status/reason
		summary string // Reconciling or Stalled, with its reason
		waits   time.Duration
	}{
		"all is well": {given: func(*v1alpha1.HyperVHost, *observed) {}, action: nothing, ready: "True/AgentAlive", waits: 40 * time.Second},
		"nothing exists before the finalizer": {
			given:  func(h *v1alpha1.HyperVHost, s *observed) { h.Finalizers, *s = nil, observed{} },
			action: hold, ready: "False/Progressing", summary: "Reconciling/Progressing",
		},
		"the namespace comes first": {
			given: func(_ *v1alpha1.HyperVHost, s *observed) {
				*s = observed{missing: []client.Object{agentAccount("hv01")}}
			},
			action: grant, objects: "hyperkeep-host-hv01", ready: "False/Progressing", summary: "Reconciling/Progressing",
		},
		"then the rights and the account": {
			given: func(_ *v1alpha1.HyperVHost, s *observed) {
				s.access, s.pulse = nil, liveness.Pulse{}
				s.missing = []client.Object{bindings("hv01", options)[0], agentAccount("hv01")}
			},
			action: grant, objects: "agent agent", ready: "False/Progressing", summary: "Reconciling/Progressing",
		},
		"a binding that gives other rights goes": {
			given: func(_ *v1alpha1.HyperVHost, s *observed) {
				s.foreign = []client.Object{&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "agent"}}}
			},
			action: revoke, objects: "agent", ready: "False/Progressing", summary: "Reconciling/Progressing", waits: 40 * time.Second,
		},
		"somebody else's namespace is left alone": {
			given: func(_ *v1alpha1.HyperVHost, s *observed) {
				*s = observed{namespace: &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "hyperkeep-host-hv01"}}, missing: []client.Object{agentAccount("hv01")}}
			},
			action: nothing, ready: "False/NamespaceTaken", summary: "Stalled/NamespaceTaken",
		},
		"another host's namespace is somebody else's": {
			given:  func(_ *v1alpha1.HyperVHost, s *observed) { s.namespace.Labels[v1alpha1.LabelHost] = "hv02" },
			action: nothing, ready: "False/NamespaceTaken", summary: "Stalled/NamespaceTaken", waits: 40 * time.Second,
		},
		"a namespace that is going is awaited": {
			given: func(_ *v1alpha1.HyperVHost, s *observed) {
				s.namespace.DeletionTimestamp, s.pulse = &metav1.Time{Time: now}, liveness.Pulse{}
			},
			action: nothing, ready: "False/NamespaceTerminating", summary: "Reconciling/NamespaceTerminating",
		},
		"no agent was ever seen": {
			given:  func(_ *v1alpha1.HyperVHost, s *observed) { s.pulse = liveness.Pulse{State: liveness.NeverSeen} },
			action: nothing, ready: "False/AgentNeverSeen",
		},
		"the agent is lost": {
			given:  func(_ *v1alpha1.HyperVHost, s *observed) { s.pulse = liveness.Pulse{State: liveness.Lost} },
			action: nothing, ready: "False/AgentLost",
		},
		"after a restart a host that was ready stays so": {
			given:  func(_ *v1alpha1.HyperVHost, s *observed) { s.pulse.State = liveness.Undecided },
			action: nothing, ready: "True/AgentAlive", waits: 40 * time.Second,
		},
		"after a restart a host that was lost stays so": {
			given: func(h *v1alpha1.HyperVHost, s *observed) {
				s.pulse.State, h.Status.Conditions = liveness.Undecided, was(v1alpha1.ReasonAgentLost)
			},
			action: nothing, ready: "False/AgentLost", waits: 40 * time.Second,
		},
		"the host could not be looked at": {
			given:  func(_ *v1alpha1.HyperVHost, s *observed) { s.scan.Error = "WMI does not answer" },
			action: nothing, ready: "False/InventoryOutOfDate", waits: 40 * time.Second,
		},
		"the agent lives, and its looks at the host do not end": {
			given: func(_ *v1alpha1.HyperVHost, s *observed) {
				s.scan.Time = metav1.NewTime(now.Add(-v1alpha1.InventoryMaxAge - time.Second))
			},
			action: nothing, ready: "False/InventoryOutOfDate", waits: 40 * time.Second,
		},
		"the agent lives, and its first look at the host does not end": {
			given:  func(_ *v1alpha1.HyperVHost, s *observed) { s.scan, s.whole = inventory.Scan{}, false },
			action: nothing, ready: "False/InventoryOutOfDate", waits: 40 * time.Second,
		},
		"an agent that was started anew has yet to look": {
			given: func(_ *v1alpha1.HyperVHost, s *observed) {
				s.claimed, s.scan.Time = now.Add(-time.Minute), metav1.NewTime(now.Add(-48*time.Hour))
			},
			action: nothing, ready: "True/AgentAlive", waits: 40 * time.Second,
		},
		"a scan that is being written does not age the one before": {
			given: func(h *v1alpha1.HyperVHost, s *observed) {
				h.Status.InventoryTime, s.scan, s.whole = &metav1.Time{Time: now.Add(-time.Minute)}, inventory.Scan{}, false
			},
			action: nothing, ready: "True/AgentAlive", waits: 40 * time.Second,
		},
		"the agent's clock differs from the manager's": {
			given: func(_ *v1alpha1.HyperVHost, s *observed) {
				s.claimed, s.renewed, s.scan.Time = now.Add(-30*time.Hour), now.Add(-6*time.Hour), metav1.NewTime(now.Add(-6*time.Hour))
			},
			action: nothing, ready: "True/AgentAlive", waits: 40 * time.Second,
		},
		"a host that is not supported": {
			given: func(_ *v1alpha1.HyperVHost, s *observed) {
				s.scan.Host.UnsupportedReasons = []v1alpha1.Warning{{Reason: "HostTooOld", Message: "it runs Windows Server 2012"}}
			},
			action: nothing, ready: "False/Unsupported", summary: "Stalled/Unsupported", waits: 40 * time.Second,
		},
		"a namespace for machines is missing, the host works on": {
			given: func(_ *v1alpha1.HyperVHost, s *observed) {
				s.absent = []string{"vms"}
				s.unlisted = []*v1alpha1.VirtualMachine{
					{ObjectMeta: metav1.ObjectMeta{Namespace: "vms", Name: "crm-1"}}, {ObjectMeta: metav1.ObjectMeta{Namespace: "sales", Name: "crm-2"}},
				}
			},
			action: enlist, objects: "crm-2", ready: "True/AgentAlive", summary: "Stalled/VirtualMachineNamespaceNotFound", waits: 40 * time.Second,
		},
		"new machines get their objects": {
			given: func(_ *v1alpha1.HyperVHost, s *observed) {
				s.unlisted = []*v1alpha1.VirtualMachine{{ObjectMeta: metav1.ObjectMeta{Namespace: "vms", Name: "crm-1"}}}
			},
			action: enlist, objects: "crm-1", ready: "True/AgentAlive", waits: 40 * time.Second,
		},
		"a deleted host with work: the work is canceled first": {
			given: func(h *v1alpha1.HyperVHost, s *observed) {
				delete(h)
				s.live = []v1alpha1.AgentTask{task("running", false), task("ending", true)}
			},
			action: cancel, objects: "running", ready: "False/Deleting", summary: "Reconciling/Deleting", waits: cancelCheck,
		},
		"a deleted host whose work is canceled: it may clean up": {
			given: func(h *v1alpha1.HyperVHost, s *observed) {
				delete(h)
				s.live = []v1alpha1.AgentTask{task("ending", true)}
			},
			action: nothing, ready: "False/Deleting", summary: "Reconciling/Deleting", waits: cancelCheck,
		},
		"a deleted host without work is cut off": {
			given:  func(h *v1alpha1.HyperVHost, _ *observed) { delete(h) },
			action: revoke, objects: "agent agent", ready: "False/Deleting", summary: "Reconciling/Deleting", waits: 40 * time.Second,
		},
		"a deleted host whose agent is lost is cut off, with work": {
			given: func(h *v1alpha1.HyperVHost, s *observed) {
				delete(h)
				s.live, s.pulse = []v1alpha1.AgentTask{task("running", false)}, liveness.Pulse{State: liveness.Lost}
			},
			action: revoke, objects: "agent agent", ready: "False/Deleting", summary: "Reconciling/Deleting",
		},
		"a deleted host that was abandoned is cut off, with work": {
			given: func(h *v1alpha1.HyperVHost, s *observed) {
				delete(h)
				h.Annotations = map[string]string{v1alpha1.AnnotationAbandon: "stolen"}
				s.live = []v1alpha1.AgentTask{task("running", false)}
			},
			action: revoke, objects: "agent agent", ready: "False/Deleting", summary: "Reconciling/Deleting", waits: 40 * time.Second,
		},
		"a deleted host that was cut off goes": {
			given: func(h *v1alpha1.HyperVHost, s *observed) {
				delete(h)
				s.access = nil
			},
			action: letGo, ready: "False/Deleting", summary: "Reconciling/Deleting", waits: 40 * time.Second,
		},
		"deleting a host never touches somebody else's namespace": {
			given: func(h *v1alpha1.HyperVHost, s *observed) {
				delete(h)
				s.namespace.Labels = nil
			},
			action: letGo, ready: "False/Deleting", summary: "Reconciling/Deleting", waits: 40 * time.Second,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			host, seen := complete()
			c.given(host, &seen)
			next := decide(host, seen, now)
			g.Expect(next.action).To(Equal(c.action))
			g.Expect(names(next.objects)).To(Equal(c.objects))
			g.Expect(described(next.status.Conditions, v1alpha1.ConditionReady)).To(Equal("Ready " + c.ready))
			g.Expect(described(next.status.Conditions, v1alpha1.ConditionReconciling, v1alpha1.ConditionStalled)).
				To(Equal(strings.Replace(c.summary, "/", " True/", 1)))
			g.Expect(next.wait.For).To(Equal(c.waits))
			g.Expect(next.status.ObservedGeneration).To(Equal(int64(3)))

			// Deciding again about the same, later, changes no status: else it would be written for ever.
			host.Status = next.status
			if seen.pulse.State != liveness.Undecided {
				g.Expect(decide(host, seen, now.Add(time.Second)).status).To(Equal(next.status))
			}
		})
	}
}

func TestDecideProjectsTheInventory(t *testing.T) {
	g := NewWithT(t)
	host, seen := complete()
	status := decide(host, seen, now).status
	g.Expect(status.AgentNamespace).To(Equal("hyperkeep-host-hv01"))
	g.Expect(status.Facts.ComputerName).To(Equal("HV01"))
	g.Expect(status.SessionID).To(Equal("s1"))
	g.Expect(*status.VirtualMachines).To(Equal(int32(1)))
	g.Expect(status.InventoryTime.Time).To(Equal(now.Add(-2 * time.Minute)))
	g.Expect(meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionSupported)).To(BeTrue())

	host.Status = status
	seen.scan, seen.whole = inventory.Scan{}, false
	g.Expect(decide(host, seen, now).status).To(Equal(status), "what a scan found stays while the next one is written")
}

func TestDecideTellsHowToStartTheAgent(t *testing.T) {
	host, seen := complete()
	seen.pulse = liveness.Pulse{State: liveness.NeverSeen}
	message := meta.FindStatusCondition(decide(host, seen, now).status.Conditions, v1alpha1.ConditionReady).Message
	NewWithT(t).Expect(message).To(And(
		ContainSubstring("kubectl create serviceaccount enroller --namespace hyperkeep-host-hv01"),
		ContainSubstring("kubectl create token enroller --namespace hyperkeep-host-hv01 --duration 15m"),
		ContainSubstring("agent.exe enroll --host hv01")))
}

func TestDecideWarnsOfWorkThatIsAbandoned(t *testing.T) {
	host, seen := complete()
	host.DeletionTimestamp = &metav1.Time{Time: now}
	seen.pulse, seen.live = liveness.Pulse{State: liveness.Lost}, make([]v1alpha1.AgentTask, 2)
	NewWithT(t).Expect(fmt.Sprint(decide(host, seen, now).events)).To(ContainSubstring("Warning Abandoned: the agent is cut off while 2 tasks"))
}

func names(objects []client.Object) string {
	var names []string
	for _, object := range objects {
		names = append(names, object.GetName())
	}
	return strings.Join(names, " ")
}

func described(conditions []metav1.Condition, kinds ...string) string {
	var found []string
	for _, kind := range kinds {
		if c := meta.FindStatusCondition(conditions, kind); c != nil {
			found = append(found, fmt.Sprintf("%s %s/%s", c.Type, c.Status, c.Reason))
		}
	}
	return strings.Join(found, " ")
}
