// Package restorejob carries one restore through: it chooses the image and the host, places a task with the agent, and follows it. How runs are placed
// and judged is in package delegation.
package restorejob

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// Kind of the objects that this controller reconciles.
const Kind = "RestoreJob"

// concurrency is how many restores are looked at at once. Placing is one at a time all the same.
const concurrency = 2

// Options of the controller.
type Options struct {
	// Delegator is shared with the controllers of all runs.
	Delegator *delegation.Delegator
	Clock     clock.PassiveClock
}

// +kubebuilder:rbac:groups=hyperkeep.io,resources=restorejobs,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=restorejobs/status,verbs=patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=agenttasks,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=backupimages;virtualmachines;hypervhosts;backuprepositories,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconciler of RestoreJobs.
type Reconciler struct {
	client    client.Client
	delegator *delegation.Delegator
	reporter  report.Reporter
	clock     clock.PassiveClock
}

// SetupWithManager registers the controller. What a restore waits for is polled: see delegation.Decide.
func SetupWithManager(mgr ctrl.Manager, opts Options) error {
	r := &Reconciler{
		client:    mgr.GetClient(),
		delegator: opts.Delegator,
		reporter:  report.Reporter{Client: mgr.GetClient(), Recorder: mgr.GetEventRecorder("hyperkeep-restorejob")},
		clock:     opts.Clock,
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("restorejob").
		For(&v1alpha1.RestoreJob{}).
		Watches(&v1alpha1.AgentTask{}, delegation.EnqueueOwner(Kind)).
		Watches(&v1alpha1.HyperVHost{}, delegation.EnqueueRunsOn(r.client, Kind)).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency}).
		Complete(reconcile.AsReconciler(r.client, r))
}

// Reconcile moves a restore one observable step on. It may be repeated, and killed between any two lines.
func (r *Reconciler) Reconcile(ctx context.Context, job *v1alpha1.RestoreJob) (ctrl.Result, error) {
	run := runOf(job)
	if run.Settled() {
		return ctrl.Result{}, nil
	}
	before := job.DeepCopy()
	seen, err := r.observe(ctx, job, run)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("observe: %w", err)
	}
	next := decide(job, run, seen, r.clock.Now())
	err = r.delegator.Act(ctx, job, run, next.Next, func() *v1alpha1.AgentTask {
		return newTask(job, run, seen, next.Next)
	})
	var obstacle *delegation.Obstacle
	if errors.As(err, &obstacle) {
		next = refused(job, run, obstacle, r.clock.Now())
	} else if err != nil {
		return ctrl.Result{}, err
	}
	if next.Action == delegation.Hold || next.Action == delegation.LetGo {
		r.reporter.Send(job, next.Events...)
		return ctrl.Result{}, nil // the watch on restores sees the changed finalizer
	}
	job.Status = next.status
	return r.reporter.Finish(ctx, before, job, next.Wait, next.Events...)
}
