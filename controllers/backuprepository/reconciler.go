// Package backuprepository has the keeper probe each repository, and puts the credential of a repository where the agents that may use it read it.
//
// Credentials go from the manager's namespace to the keeper's, and to the agents' of hosts whose virtual machines appear in a namespace that the repository
// allows; they are removed when the right goes. Deleting a BackupRepository removes the copies and not one byte of the repository. Images that are in it
// are not ready from then on; they are again when it is declared anew.
//
// When it is asked to, it makes the BackupImages that are missing for the images in a repository, as after the loss of the cluster. That goes one way: the
// repository is never changed, and what is there in the cluster neither.
//
// No value of a Secret ever leaves this package but for another Secret.
package backuprepository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/liveness"
	"github.com/hyperkeep/hyperkeep/controllers/report"
	"github.com/hyperkeep/hyperkeep/controllers/transition"
)

// Finalizer holds a BackupRepository until the copies of its credential are gone.
const Finalizer = "hyperkeep.io/credentials"

// DefaultSecretPoll is often enough for a person who corrects a password, and costs one small read.
const DefaultSecretPoll = 15 * time.Second

// Options of the controller.
type Options struct {
	// Namespace of the manager, where administrators put the Secrets of repositories.
	Namespace string
	// KeeperNamespace is where the keeper works.
	KeeperNamespace string
	// SecretPoll is how soon a change of a Secret is seen. To watch Secrets, the manager would need the right to list them.
	SecretPoll time.Duration
	// Clock times probes.
	Clock clock.PassiveClock
}

// Reconciler of BackupRepositories.
type Reconciler struct {
	client.Client
	report.Reporter
	Options
	leases liveness.Observer
}

// +kubebuilder:rbac:groups=hyperkeep.io,resources=backuprepositories,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=backuprepositories/status,verbs=patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=hypervhosts,verbs=get;list;watch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=backupimages,verbs=get;create
// +kubebuilder:rbac:groups=hyperkeep.io,resources=agenttasks,verbs=get;list;watch;create;delete
// +kubebuilder:rbac:groups=coordination.k8s.io,resources=leases,resourceNames=agent,verbs=get;list;watch
// +kubebuilder:rbac:groups="",namespace=hyperkeep-system,resources=secrets,verbs=get
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// SetupWithManager registers the controller. The indexes of package index must be registered too.
func SetupWithManager(mgr ctrl.Manager, opts Options) error {
	r := &Reconciler{
		Client:   mgr.GetClient(),
		Reporter: report.Reporter{Client: mgr.GetClient(), Recorder: mgr.GetEventRecorder("hyperkeep-backuprepository")},
		Options:  opts,
	}
	all := handler.EnqueueRequestsFromMapFunc(r.all)
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.BackupRepository{}).
		Watches(&v1alpha1.AgentTask{}, handler.EnqueueRequestsFromMapFunc(owner)).
		Watches(&v1alpha1.HyperVHost{}, all, builder.WithPredicates(rightsChange())).
		Watches(&coordinationv1.Lease{}, all, builder.WithPredicates(r.keeperChange())).
		Complete(reconcile.AsReconciler(mgr.GetClient(), r))
}

// Reconcile takes a repository one step further. It runs again on the result of a probe, when the rights of hosts change, and after SecretPoll.
func (r *Reconciler) Reconcile(ctx context.Context, repository *v1alpha1.BackupRepository) (ctrl.Result, error) {
	if !repository.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.end(ctx, repository)
	}
	if !controllerutil.ContainsFinalizer(repository, Finalizer) {
		return ctrl.Result{}, r.finalizer(ctx, repository, controllerutil.AddFinalizer)
	}
	now := r.Clock.Now()
	seen, err := r.observe(ctx, repository, now)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("observe: %w", err)
	}
	next := decide(repository, seen, now)
	next.wait = next.wait.Sooner(report.Wait{For: r.SecretPoll, Because: "the Secret may have changed"})
	actErr := r.act(ctx, repository, seen, &next)
	before := repository.DeepCopy()
	repository.Status = next.status
	events := transition.Events(before.Status.Conditions, repository.Status.Conditions, v1alpha1.ConditionReady, v1alpha1.ConditionStalled,
		v1alpha1.ConditionMaintained, v1alpha1.ConditionVerified, v1alpha1.ConditionPasswordChanged, v1alpha1.ConditionImported)
	// An agent that cannot be given its credential is no reason to be silent about the repository.
	result, err := r.Finish(ctx, before, repository, next.wait, events...)
	return result, errors.Join(actErr, err)
}

// end removes the copies of the credential and the tasks, then lets the repository go.
func (r *Reconciler) end(ctx context.Context, repository *v1alpha1.BackupRepository) error {
	if !controllerutil.ContainsFinalizer(repository, Finalizer) {
		return nil
	}
	seen, err := r.observe(ctx, repository, r.Clock.Now())
	if err != nil {
		return fmt.Errorf("observe: %w", err)
	}
	for _, task := range slices.Concat(seen.probes, seen.maintenance, seen.shares, seen.changes, seen.pages) {
		if err := r.Delete(ctx, &task); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("remove task %s: %w", task.Name, err)
		}
	}
	for _, namespace := range append(append(seen.allowed, seen.refused...), r.KeeperNamespace) {
		if err := r.withdraw(ctx, repository.Name, namespace); err != nil {
			return err
		}
	}
	return client.IgnoreNotFound(r.finalizer(ctx, repository, controllerutil.RemoveFinalizer))
}

func (r *Reconciler) finalizer(ctx context.Context, repository *v1alpha1.BackupRepository, change func(client.Object, string) bool) error {
	before := repository.DeepCopy()
	change(repository, Finalizer)
	return r.Patch(ctx, repository, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}

func (r *Reconciler) all(ctx context.Context, _ client.Object) []reconcile.Request {
	var repositories v1alpha1.BackupRepositoryList
	if err := r.List(ctx, &repositories); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Repositories not listed")
		return nil
	}
	var requests []reconcile.Request
	for _, repository := range repositories.Items {
		requests = append(requests, reconcile.Request{NamespacedName: types.NamespacedName{Name: repository.Name}})
	}
	return requests
}

// owner leads from a probe to its repository.
func owner(_ context.Context, object client.Object) []reconcile.Request {
	task := object.(*v1alpha1.AgentTask)
	if task.Spec.Owner.Kind != ownerKind {
		return nil
	}
	return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: task.Spec.Owner.Name}}}
}

// rightsChange passes changes of hosts that may give or take the right to a credential.
func rightsChange() predicate.Predicate {
	return predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*v1alpha1.HyperVHost), e.ObjectNew.(*v1alpha1.HyperVHost)
		return before.Generation != after.Generation || before.Status.AgentNamespace != after.Status.AgentNamespace
	}}
}

// keeperChange passes the keeper's arrival. Its renewals are seen with each SecretPoll.
func (r *Reconciler) keeperChange() predicate.Predicate {
	keeper := predicate.NewPredicateFuncs(func(lease client.Object) bool { return lease.GetNamespace() == r.KeeperNamespace })
	return predicate.And(keeper, predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*coordinationv1.Lease), e.ObjectNew.(*coordinationv1.Lease)
		return ptr.Deref(before.Spec.HolderIdentity, "") != ptr.Deref(after.Spec.HolderIdentity, "")
	}})
}
