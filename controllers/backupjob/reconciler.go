// Package backupjob carries one backup of one virtual machine through: it places a task with the agent of the host, follows it, and records the image
// that it published. How runs are placed and judged is in package delegation.
package backupjob

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/index"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// Kind of the objects that this controller reconciles.
const Kind = "BackupJob"

// concurrency is how many jobs are looked at at once. Placing is one at a time all the same.
const concurrency = 4

// Options of the controller.
type Options struct {
	// Delegator is shared with the controllers of all runs.
	Delegator *delegation.Delegator
	Clock     clock.PassiveClock
}

// +kubebuilder:rbac:groups=hyperkeep.io,resources=backupjobs,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=backupjobs/status,verbs=patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=agenttasks,verbs=get;list;watch;create;patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=backupimages,verbs=get;list;watch;create
// +kubebuilder:rbac:groups=hyperkeep.io,resources=virtualmachines;hypervhosts;backuprepositories,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconciler of BackupJobs.
type Reconciler struct {
	client    client.Client
	delegator *delegation.Delegator
	reporter  report.Reporter
	clock     clock.PassiveClock
}

// SetupWithManager registers the controller.
func SetupWithManager(mgr ctrl.Manager, opts Options) error {
	r := &Reconciler{
		client:    mgr.GetClient(),
		delegator: opts.Delegator,
		reporter:  report.Reporter{Client: mgr.GetClient(), Recorder: mgr.GetEventRecorder("hyperkeep-backupjob")},
		clock:     opts.Clock,
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("backupjob").
		For(&v1alpha1.BackupJob{}).
		Watches(&v1alpha1.AgentTask{}, delegation.EnqueueOwner(Kind)).
		Watches(&v1alpha1.HyperVHost{}, delegation.EnqueueRunsOn(r.client, Kind)).
		Watches(&v1alpha1.VirtualMachine{}, handler.EnqueueRequestsFromMapFunc(r.jobsOf)).
		WithOptions(controller.Options{MaxConcurrentReconciles: concurrency}).
		Complete(reconcile.AsReconciler(r.client, r))
}

// jobsOf are the jobs that may wait for a virtual machine.
func (r *Reconciler) jobsOf(ctx context.Context, machine client.Object) (requests []reconcile.Request) {
	jobs := &v1alpha1.BackupJobList{}
	if err := r.client.List(ctx, jobs, client.InNamespace(machine.GetNamespace()), index.JobsOf(machine.GetName())); err != nil {
		return nil // the cache always answers once it has synced
	}
	for i := range jobs.Items {
		if !delegation.Terminal(jobs.Items[i].Status.RunStatus) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&jobs.Items[i])})
		}
	}
	return requests
}

// Reconcile moves a job one observable step on. It may be repeated, and killed between any two lines.
func (r *Reconciler) Reconcile(ctx context.Context, job *v1alpha1.BackupJob) (ctrl.Result, error) {
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
	err = r.act(ctx, job, run, seen, next)
	var obstacle *delegation.Obstacle
	if errors.As(err, &obstacle) {
		next = refused(job, run, obstacle, r.clock.Now())
	} else if err != nil {
		return ctrl.Result{}, err
	}
	if next.Action == delegation.Hold || next.Action == delegation.LetGo {
		r.reporter.Send(job, next.Events...)
		return ctrl.Result{}, nil // the watch on jobs sees the changed finalizer
	}
	job.Status = next.status
	return r.reporter.Finish(ctx, before, job, next.Wait, next.Events...)
}

// act has the one effect outside that was decided on.
func (r *Reconciler) act(ctx context.Context, job *v1alpha1.BackupJob, run delegation.Run, seen observation, next next) error {
	if next.record != nil {
		return r.record(ctx, next.record)
	}
	return r.delegator.Act(ctx, job, run, next.Next, func() *v1alpha1.AgentTask {
		return newTask(job, run, seen, next.Next)
	})
}
