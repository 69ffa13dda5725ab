// Package backuppolicy starts the runs of policies: one BackupJob for each virtual machine and run. It prunes the jobs of old runs, and says how well a
// policy keeps its promise.
package backuppolicy

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/index"
	"github.com/hyperkeep/hyperkeep/controllers/report"
	"github.com/hyperkeep/hyperkeep/controllers/selection"
	"github.com/hyperkeep/hyperkeep/controllers/transition"
)

// Options of the controller.
type Options struct {
	Clock clock.PassiveClock
}

// +kubebuilder:rbac:groups=hyperkeep.io,resources=backuppolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=backuppolicies/status,verbs=patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=backupjobs,verbs=get;list;watch;create;delete
// +kubebuilder:rbac:groups=hyperkeep.io,resources=virtualmachines;backuprepositories,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconciler of BackupPolicies.
type Reconciler struct {
	client client.Client
	// live reads from the API server itself: before jobs are made, a stale cache would do harm.
	live     client.Reader
	reporter report.Reporter
	clock    clock.PassiveClock
}

// SetupWithManager registers the controller.
func SetupWithManager(mgr ctrl.Manager, opts Options) error {
	r := &Reconciler{
		client:   mgr.GetClient(),
		live:     mgr.GetAPIReader(),
		reporter: report.Reporter{Client: mgr.GetClient(), Recorder: mgr.GetEventRecorder("hyperkeep-backuppolicy")},
		clock:    opts.Clock,
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("backuppolicy").
		For(&v1alpha1.BackupPolicy{}).
		Owns(&v1alpha1.BackupJob{}).
		Watches(&v1alpha1.VirtualMachine{}, r.policiesOfNamespace(), machineChanges()).
		Watches(&v1alpha1.BackupRepository{}, r.policiesInto()).
		Complete(reconcile.AsReconciler(r.client, r))
}

// observation is all that a decision about a policy depends on.
type observation struct {
	// repository is nil when it does not exist.
	repository *v1alpha1.BackupRepository
	// machines that are selected and present.
	machines []v1alpha1.VirtualMachine
	// unknown are names in the selection that no present virtual machine has.
	unknown []string
	// jobs that the policy made.
	jobs []v1alpha1.BackupJob
}

// Reconcile moves a policy one observable step on. It may be repeated, and killed between any two lines.
func (r *Reconciler) Reconcile(ctx context.Context, policy *v1alpha1.BackupPolicy) (ctrl.Result, error) {
	if !policy.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil // the garbage collector deletes the jobs; images have no owner (I8)
	}
	before := policy.DeepCopy()
	seen, err := r.observe(ctx, policy)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("observe: %w", err)
	}
	next := decide(policy, seen, r.clock.Now())
	events, err := r.act(ctx, policy, next)
	if err != nil {
		return ctrl.Result{}, err
	}
	policy.Status = next.status
	events = append(append(next.events, events...), transition.Events(before.Status.Conditions, policy.Status.Conditions,
		v1alpha1.ConditionReady, v1alpha1.ConditionRPOMet)...)
	return r.reporter.Finish(ctx, before, policy, next.wait, events...)
}

func (r *Reconciler) observe(ctx context.Context, policy *v1alpha1.BackupPolicy) (seen observation, err error) {
	repository := &v1alpha1.BackupRepository{}
	err = r.client.Get(ctx, types.NamespacedName{Name: policy.Spec.RepositoryRef.Name}, repository)
	if client.IgnoreNotFound(err) != nil {
		return seen, fmt.Errorf("get repository: %w", err)
	}
	if err == nil {
		seen.repository = repository
	}
	machines := &v1alpha1.VirtualMachineList{}
	if err := r.client.List(ctx, machines, client.InNamespace(policy.Namespace)); err != nil {
		return seen, fmt.Errorf("list virtual machines: %w", err)
	}
	seen.machines = selected(policy, machines.Items)
	seen.unknown = unknownNames(policy, seen.machines)
	seen.jobs, err = jobsOf(ctx, r.client, policy, index.JobsOfPolicy(policy.UID))
	return seen, err
}

// jobsOf are the jobs that the policy owns. A label alone, which anyone can put on a job, does not make it the policy's.
func jobsOf(ctx context.Context, reader client.Reader, policy *v1alpha1.BackupPolicy, option client.ListOption) ([]v1alpha1.BackupJob, error) {
	jobs := &v1alpha1.BackupJobList{}
	if err := reader.List(ctx, jobs, client.InNamespace(policy.Namespace), option); err != nil {
		return nil, fmt.Errorf("list jobs: %w", err)
	}
	var owned []v1alpha1.BackupJob
	for i := range jobs.Items {
		if ownedBy(&jobs.Items[i], policy) {
			owned = append(owned, jobs.Items[i])
		}
	}
	return owned, nil
}

// selected are those that the policy protects and that a host has.
func selected(policy *v1alpha1.BackupPolicy, machines []v1alpha1.VirtualMachine) (chosen []v1alpha1.VirtualMachine) {
	for i := range machines {
		if machine := &machines[i]; isPresent(machine) && selection.Selects(policy, machine) {
			chosen = append(chosen, *machine)
		}
	}
	return chosen
}

func unknownNames(policy *v1alpha1.BackupPolicy, chosen []v1alpha1.VirtualMachine) (unknown []string) {
	found := map[string]bool{}
	for i := range chosen {
		found[chosen[i].Name] = true
	}
	for _, name := range policy.Spec.Selection.Names {
		if !found[name] {
			unknown = append(unknown, name)
		}
	}
	return unknown
}
