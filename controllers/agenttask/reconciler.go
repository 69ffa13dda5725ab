// Package agenttask sweeps up tasks: owners cannot own across namespaces, so that nobody else deletes what was made for them.
package agenttask

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/index"
)

// Options of the controller.
type Options struct {
	Delegator *delegation.Delegator
	Clock     clock.PassiveClock
}

// +kubebuilder:rbac:groups=hyperkeep.io,resources=agenttasks,verbs=get;list;watch;patch;delete
// +kubebuilder:rbac:groups=hyperkeep.io,resources=backupjobs;restorejobs;backupimages;backuprepositories,verbs=get;list;watch

// Reconciler of AgentTasks. It writes no status: that is the agents'.
type Reconciler struct {
	client    client.Client
	live      client.Reader
	delegator *delegation.Delegator
	clock     clock.PassiveClock
}

// SetupWithManager registers the controller.
func SetupWithManager(mgr ctrl.Manager, opts Options) error {
	r := &Reconciler{client: mgr.GetClient(), live: mgr.GetAPIReader(), delegator: opts.Delegator, clock: opts.Clock}
	return ctrl.NewControllerManagedBy(mgr).
		Named("agenttask").
		For(&v1alpha1.AgentTask{}).
		Watches(&v1alpha1.BackupJob{}, r.tasksOfSettled()).
		Watches(&v1alpha1.RestoreJob{}, r.tasksOfSettled()).
		Watches(&v1alpha1.BackupImage{}, r.tasksOfSettled()).
		Watches(&v1alpha1.BackupRepository{}, r.tasksOfSettled()).
		Complete(reconcile.AsReconciler(r.client, r))
}

// Reconcile cancels or deletes a task that nobody needs any more. It may be repeated, and killed between any two lines.
func (r *Reconciler) Reconcile(ctx context.Context, task *v1alpha1.AgentTask) (ctrl.Result, error) {
	if !task.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	seen, err := r.observe(ctx, task)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("observe: %w", err)
	}
	next := decide(task, seen, r.clock.Now())
	switch next.action {
	case cancel:
		return ctrl.Result{}, r.delegator.Cancel(ctx, task)
	case sweep:
		err := r.client.Delete(ctx, task, client.Preconditions{UID: &task.UID})
		return ctrl.Result{}, client.IgnoreNotFound(err)
	case later:
		log.FromContext(ctx).V(1).Info("Will look again", "after", next.after, "because", "the task is kept for people to read")
		return ctrl.Result{RequeueAfter: max(next.after, time.Millisecond)}, nil
	default:
		return ctrl.Result{}, nil // the watches on the task and its owner wake it
	}
}

// observation is all that a decision about a task depends on.
type observation struct {
	// owner is nil when it is gone, or when the name is now another object's.
	owner client.Object
	// siblings are all tasks of the owner.
	siblings []v1alpha1.AgentTask
}

func (r *Reconciler) observe(ctx context.Context, task *v1alpha1.AgentTask) (seen observation, err error) {
	if seen.owner, err = r.owner(ctx, task); err != nil {
		return seen, fmt.Errorf("get owner: %w", err)
	}
	tasks := &v1alpha1.AgentTaskList{}
	if err := r.client.List(ctx, tasks, index.TasksOf(types.UID(task.Spec.Owner.UID))); err != nil {
		return seen, fmt.Errorf("list tasks: %w", err)
	}
	seen.siblings = tasks.Items
	return seen, nil
}

// owner finds the owner in the cache, or else, before it is taken for gone, at the API server.
func (r *Reconciler) owner(ctx context.Context, task *v1alpha1.AgentTask) (client.Object, error) {
	key := types.NamespacedName{Namespace: task.Spec.Owner.Namespace, Name: task.Spec.Owner.Name}
	for _, reader := range []client.Reader{r.client, r.live} {
		owner := newOwner(task.Spec.Owner.Kind)
		if owner == nil {
			return nil, fmt.Errorf("kind %s owns no tasks", task.Spec.Owner.Kind)
		}
		err := reader.Get(ctx, key, owner)
		if err == nil && string(owner.GetUID()) == task.Spec.Owner.UID {
			return owner, nil
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return nil, nil
}

func newOwner(kind string) client.Object {
	switch kind {
	case "BackupJob":
		return &v1alpha1.BackupJob{}
	case "RestoreJob":
		return &v1alpha1.RestoreJob{}
	case "BackupImage":
		return &v1alpha1.BackupImage{}
	case "BackupRepository":
		return &v1alpha1.BackupRepository{}
	default:
		return nil
	}
}
