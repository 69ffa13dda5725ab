package hypervhost

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/liveness"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// action is what a decision does to the outside.
type action string

const (
	nothing action = "nothing"
	hold    action = "hold the host by a finalizer"
	grant   action = "give the agent its namespace and rights"
	enlist  action = "make objects of virtual machines"
	cancel  action = "cancel what runs on the host"
	revoke  action = "revoke the agent's rights"
	letGo   action = "let the host go"
)

// cancelCheck is how often a host that is being deleted is asked whether its tasks have ended.
const cancelCheck = 5 * time.Second

// decision is what to do about a host, and what to report.
type decision struct {
	action action
	// objects to create, cancel or delete, as the action says.
	objects []client.Object
	verdict verdict
	status  v1alpha1.HyperVHostStatus
	events  []report.Event
	wait    report.Wait
}

// verdict is the state of a host in words.
type verdict struct {
	ready           metav1.ConditionStatus
	reason, message string
	// reconciling says that it changes by itself.
	reconciling bool
	// stalled says that a person must act; it may be about something else than ready.
	stalled, stalledMessage string
}

func notReady(reason, message string) verdict {
	return verdict{ready: metav1.ConditionFalse, reason: reason, message: message}
}

func notReadyYet(reason, message string) verdict {
	return verdict{ready: metav1.ConditionFalse, reason: reason, message: message, reconciling: true}
}

func stalled(reason, message string) verdict {
	return verdict{ready: metav1.ConditionFalse, reason: reason, message: message, stalled: reason, stalledMessage: message}
}

// decide is pure: what it returns follows from its arguments alone.
func decide(host *v1alpha1.HyperVHost, seen observed, now time.Time) decision {
	next := decision{action: nothing, status: *host.Status.DeepCopy(), wait: waitFor(seen.pulse, now)}
	next.status.ObservedGeneration = host.Generation
	next.status.AgentNamespace = "" // until all that the agent needs is there
	conditions := report.ConditionsOf(&next.status.Conditions, host.Generation, now)
	switch {
	case !host.DeletionTimestamp.IsZero():
		next.end(host, seen)
	case seen.namespace != nil && !isOurs(seen.namespace, host.Name):
		next.verdict = stalled(v1alpha1.ReasonNamespaceTaken, fmt.Sprintf(
			"namespace %s exists and was not made for this host's agent: delete it, or give the host another name", seen.namespace.Name))
	case seen.namespace != nil && !seen.namespace.DeletionTimestamp.IsZero():
		next.verdict = notReadyYet(v1alpha1.ReasonNamespaceDeleting, fmt.Sprintf(
			"namespace %s is being deleted: it is made anew once it is gone", seen.namespace.Name))
	case next.prepare(host, seen):
		next.verdict = notReadyYet(v1alpha1.ReasonProgressing, "the namespace and the rights of the host's agent are being made")
	default:
		next.project(host, seen, conditions)
	}
	next.verdict.tell(conditions)
	return next
}

// tell sets each condition once: setting one twice would move its transition time.
func (v verdict) tell(conditions report.Conditions) {
	if v.ready == metav1.ConditionTrue {
		conditions.True(v1alpha1.ConditionReady, v.reason, v.message)
	} else {
		conditions.False(v1alpha1.ConditionReady, v.reason, v.message)
	}
	switch {
	case v.stalled != "":
		conditions.Stalled(v.stalled, v.stalledMessage)
	case v.reconciling:
		conditions.Reconciling(v.reason, v.message)
	default:
		conditions.Settled()
	}
}

// prepare makes, one after the other, what an agent needs. It says false when all is there.
func (d *decision) prepare(host *v1alpha1.HyperVHost, seen observed) bool {
	switch {
	case !controllerutil.ContainsFinalizer(host, Finalizer):
		d.action = hold
	case seen.namespace == nil:
		d.action, d.objects = grant, []client.Object{agentNamespace(host)}
	case len(seen.foreign) > 0:
		d.action, d.objects = revoke, seen.foreign
	case len(seen.missing) > 0:
		d.action, d.objects = grant, seen.missing
	default:
		return false
	}
	return true
}

// project turns what the agent says into the status, and lists virtual machines that are new.
func (d *decision) project(host *v1alpha1.HyperVHost, seen observed, conditions report.Conditions) {
	d.status.AgentNamespace = seen.namespace.Name
	if seen.whole {
		// Coarser than the scans, so that a scan that found nothing new does not write a status.
		d.status.InventoryTime = ptr.To(report.Time(seen.scan.Time.Truncate(time.Minute)))
		d.status.SessionID = seen.scan.SessionID
		d.status.Facts = seen.scan.Host.DeepCopy()
		d.status.VirtualMachines = ptr.To(int32(len(seen.scan.VirtualMachines)))
		tellSupport(seen.scan.Host, conditions)
	}
	d.verdict = judge(host, seen)
	if len(seen.absent) > 0 && d.verdict.stalled == "" {
		// Local: the host's other virtual machines are backed up all the same, so it stays ready.
		d.verdict.stalled = v1alpha1.ReasonNamespaceNotFound
		d.verdict.stalledMessage = fmt.Sprintf(
			"virtual machines of this host are to appear in namespaces that do not exist: %s; create them, or change virtualMachineNamespace or placement",
			strings.Join(seen.absent, ", "))
	}
	for _, machine := range seen.unlisted {
		if !slices.Contains(seen.absent, machine.Namespace) {
			d.action, d.objects = enlist, append(d.objects, machine)
		}
	}
}

func tellSupport(facts *v1alpha1.HostFacts, conditions report.Conditions) {
	switch why := obstacles(facts); {
	case facts == nil:
	case why == "":
		conditions.True(v1alpha1.ConditionSupported, v1alpha1.ReasonSupported, "this host can be backed up")
	default:
		conditions.False(v1alpha1.ConditionSupported, v1alpha1.ReasonUnsupported, why)
	}
}

// obstacles says why a host cannot be backed up; nothing when it can.
func obstacles(facts *v1alpha1.HostFacts) string {
	if facts == nil || len(facts.UnsupportedReasons) == 0 {
		return ""
	}
	var why []string
	for _, reason := range facts.UnsupportedReasons {
		why = append(why, reason.Message)
	}
	return "this host cannot be backed up: " + strings.Join(why, "; ")
}

func judge(host *v1alpha1.HyperVHost, seen observed) verdict {
	namespace := seen.namespace.Name
	switch {
	case seen.pulse.State == liveness.NeverSeen:
		return notReady(v1alpha1.ReasonAgentNeverSeen, fmt.Sprintf(
			"no agent has reported yet: make a one-time token with kubectl create serviceaccount %[2]s --namespace %[3]s and "+
				"kubectl create token %[2]s --namespace %[3]s --duration 15m, then run agent.exe enroll --host %[1]s and agent.exe install on the host",
			host.Name, v1alpha1.EnrollerName, namespace))
	case lost(host, seen.pulse):
		return notReady(v1alpha1.ReasonAgentLost, fmt.Sprintf(
			"the agent does not report any more: check that it runs on the host, reaches the API server and has a valid token (Lease %s in namespace %s)",
			v1alpha1.AgentName, namespace))
	case seen.whole && seen.scan.Error != "":
		return notReady(v1alpha1.ReasonInventoryOutOfDate, seen.scan.Error)
	case outdated(host, seen):
		return notReady(v1alpha1.ReasonInventoryOutOfDate, fmt.Sprintf(
			"the agent lives and has not finished a look at the host since %s: restart the service Hyperkeep on the host, and look whether its services vmms and Winmgmt hang",
			looked(host, seen).UTC().Format(time.RFC3339)))
	case obstacles(seen.scan.Host) != "":
		return stalled(v1alpha1.ReasonUnsupported, obstacles(seen.scan.Host))
	default:
		return verdict{ready: metav1.ConditionTrue, reason: v1alpha1.ReasonAgentAlive, message: "the agent reports"}
	}
}

// outdated says whether the agent goes on living without looking at its host. Its lease tells its own time, by which it stamps its looks, so no two clocks
// are compared. While it lives it renews the lease, so this is decided anew all the time.
func outdated(host *v1alpha1.HyperVHost, seen observed) bool {
	since := looked(host, seen)
	return !since.IsZero() && seen.renewed.Sub(since) > v1alpha1.InventoryMaxAge
}

// looked is when the agent last had a look at the host behind it, by its own clock: what another agent saw before this one claimed the host is not held
// against it. While it writes the parts of a scan, the scan before counts.
func looked(host *v1alpha1.HyperVHost, seen observed) time.Time {
	since := seen.claimed
	for _, at := range []time.Time{seen.scan.Time.Time, ptr.Deref(host.Status.InventoryTime, metav1.Time{}).Time} {
		if at.After(since) {
			since = at
		}
	}
	return since
}

// lost keeps to what was believed while it cannot be told: a manager that was started anew takes no agent for dead, and none for risen.
func lost(host *v1alpha1.HyperVHost, pulse liveness.Pulse) bool {
	if pulse.State != liveness.Undecided {
		return pulse.State == liveness.Lost
	}
	ready := meta.FindStatusCondition(host.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Reason == v1alpha1.ReasonAgentLost
}

// end cuts the agent of a deleted host off, after it had the chance to clean up.
func (d *decision) end(host *v1alpha1.HyperVHost, seen observed) {
	d.verdict = notReadyYet(v1alpha1.ReasonDeleting, "the host is being deleted: its agent's rights are revoked")
	_, abandoned := host.Annotations[v1alpha1.AnnotationAbandon]
	reachable := len(seen.access) > 1 && seen.pulse.State != liveness.NeverSeen && !lost(host, seen.pulse)
	switch {
	case !controllerutil.ContainsFinalizer(host, Finalizer):
		// Somebody else holds it.
	case seen.namespace == nil || !isOurs(seen.namespace, host.Name):
		d.action = letGo
	case len(seen.live) > 0 && reachable && !abandoned:
		d.verdict.message = fmt.Sprintf(
			"%d tasks are being canceled so that the host is left clean; annotate it with %s=<why> to cut its agent off at once",
			len(seen.live), v1alpha1.AnnotationAbandon)
		d.wait = d.wait.Sooner(report.Wait{For: cancelCheck, Because: "tasks are being canceled"})
		for i := range seen.live {
			if !seen.live[i].Spec.Cancel {
				d.action, d.objects = cancel, append(d.objects, &seen.live[i])
			}
		}
	case len(seen.access) > 0:
		d.action, d.objects = revoke, seen.access
		if len(seen.live) > 0 {
			d.events = append(d.events, report.Warning(v1alpha1.ReasonAbandoned,
				"the agent is cut off while %d tasks have not ended: look on the host for checkpoints that they left", len(seen.live)))
		}
	default:
		d.action = letGo
	}
}

func waitFor(pulse liveness.Pulse, now time.Time) report.Wait {
	if pulse.Until.IsZero() {
		return report.Wait{}
	}
	return report.Until(now, pulse.Until, "the agent's lease expires then")
}
