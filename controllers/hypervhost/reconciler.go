// Package hypervhost makes the namespace, account and rights of a host's agent, tells whether the agent lives, and turns what it sees of its host into the
// HyperVHost's status and into VirtualMachine objects.
//
// Deleting a HyperVHost cuts its agent off: work that runs there is canceled first and gets the time to clean the host up, then the account and its rights
// go, and with the account every token. A host whose agent is lost, or whose HyperVHost has the annotation hyperkeep.io/abandon, is cut off at once. The
// agent's namespace is owned by the HyperVHost and left to Kubernetes' garbage collector: the manager has no right to delete namespaces. VirtualMachine
// objects stay, with Present=False, and images stay.
package hypervhost

import (
	"context"
	"fmt"
	"slices"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
	"github.com/hyperkeep/hyperkeep/controllers/liveness"
	"github.com/hyperkeep/hyperkeep/controllers/report"
	"github.com/hyperkeep/hyperkeep/controllers/transition"
)

// Finalizer holds a HyperVHost until its agent is cut off.
const Finalizer = "hyperkeep.io/agent"

// Options of the controller.
type Options struct {
	// Manager is the manager's own ServiceAccount: it gets the right to put credentials into the agents' namespaces.
	Manager types.NamespacedName
	// NodesNamespace is where the pods run that are the agents of hosts which are nodes of this cluster; empty when there are none. Their account, named
	// as agents' are, may ask for tokens of the agent of the host that has their node's name.
	NodesNamespace string
	// Clock judges leases.
	Clock clock.PassiveClock
}

// Reconciler of HyperVHosts.
type Reconciler struct {
	client.Client
	report.Reporter
	Options
	leases liveness.Observer
}

// +kubebuilder:rbac:groups=hyperkeep.io,resources=hypervhosts,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=hypervhosts/status,verbs=patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=hypervhosts/finalizers,verbs=update
// +kubebuilder:rbac:groups=hyperkeep.io,resources=hostinventories,verbs=get;list;watch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=virtualmachines,verbs=get;list;watch;create
// +kubebuilder:rbac:groups=hyperkeep.io,resources=agenttasks,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=get;list;watch;create
// +kubebuilder:rbac:groups="",resources=serviceaccounts,verbs=create
// +kubebuilder:rbac:groups="",resources=serviceaccounts,resourceNames=agent,verbs=get;list;watch;delete
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=rolebindings,verbs=get;list;watch;create
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=rolebindings,resourceNames=agent;agent-token;enroller;hyperkeep-manager,verbs=delete
// +kubebuilder:rbac:groups=rbac.authorization.k8s.io,resources=clusterroles,resourceNames=hyperkeep-agent;hyperkeep-credentials;hyperkeep-token;hyperkeep-enroller,verbs=bind
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,resourceNames=agent,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// SetupWithManager registers the controller. The indexes of package index must be registered too.
func SetupWithManager(mgr ctrl.Manager, opts Options) error {
	r := &Reconciler{
		Client:   mgr.GetClient(),
		Reporter: report.Reporter{Client: mgr.GetClient(), Recorder: mgr.GetEventRecorder("hyperkeep-hypervhost")},
		Options:  opts,
	}
	ofAgent := handler.EnqueueRequestsFromMapFunc(hostOfNamespace)
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.HyperVHost{}).
		Watches(&corev1.Namespace{}, handler.EnqueueRequestsFromMapFunc(r.hostsOfNamespace)).
		Watches(&corev1.ServiceAccount{}, ofAgent).
		Watches(&rbacv1.RoleBinding{}, ofAgent).
		Watches(&coordinationv1.Lease{}, ofAgent).
		Watches(&v1alpha1.HostInventory{}, ofAgent).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(reconcile.AsReconciler(mgr.GetClient(), r))
}

// Reconcile takes a host one step further: it is safe to run twice, and to be killed between any two lines. It runs again whenever something changes in
// the agent's namespace, and so with every renewal of the lease.
func (r *Reconciler) Reconcile(ctx context.Context, host *v1alpha1.HyperVHost) (ctrl.Result, error) {
	now := r.Clock.Now()
	seen, err := r.observe(ctx, host, now)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("observe: %w", err)
	}
	next := decide(host, seen, now)
	if err := r.act(ctx, host, next); err != nil {
		return ctrl.Result{}, fmt.Errorf("%s: %w", next.action, err)
	}
	if next.action == letGo {
		return ctrl.Result{}, nil
	}
	before := host.DeepCopy()
	host.Status = next.status
	events := transition.Events(before.Status.Conditions, host.Status.Conditions,
		v1alpha1.ConditionReady, v1alpha1.ConditionSupported, v1alpha1.ConditionStalled)
	return r.Finish(ctx, before, host, next.wait, append(events, next.events...)...)
}

// hostOfNamespace leads from an object in an agent's namespace to the host.
func hostOfNamespace(_ context.Context, object client.Object) []reconcile.Request {
	host, ok := strings.CutPrefix(object.GetNamespace(), v1alpha1.AgentNamespacePrefix)
	if !ok {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: host}}}
}

// hostsOfNamespace leads from a namespace to the host whose agent works there, or to the hosts whose virtual machines appear there.
func (r *Reconciler) hostsOfNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	var hosts v1alpha1.HyperVHostList
	if err := r.List(ctx, &hosts); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Hosts not listed")
		return nil
	}
	var requests []reconcile.Request
	for _, host := range hosts.Items {
		if v1alpha1.AgentNamespace(host.Name) == namespace.GetName() || slices.Contains(inventory.Namespaces(host.Spec), namespace.GetName()) {
			requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: host.Name}})
		}
	}
	return requests
}
