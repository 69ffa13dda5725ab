// Package virtualmachine is the only writer of VirtualMachine.status: what the hosts say of a virtual machine, and how well it is protected.
//
// Objects are made by package hypervhost and never deleted by the manager. An object whose machine is gone, or appears in another namespace now, stays
// with Present=False, for its images stay too.
package virtualmachine

import (
	"context"
	"fmt"
	"maps"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/report"
	"github.com/hyperkeep/hyperkeep/controllers/transition"
)

// Options of the controller.
type Options struct {
	// Clock judges the RPO.
	Clock clock.PassiveClock
}

// Reconciler of VirtualMachines.
type Reconciler struct {
	client.Client
	report.Reporter
	Options
}

// +kubebuilder:rbac:groups=hyperkeep.io,resources=virtualmachines,verbs=get;list;watch;patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=virtualmachines/status,verbs=patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=hostinventories;hypervhosts;backuppolicies;backupimages,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// SetupWithManager registers the controller. The indexes of package index must be registered too.
func SetupWithManager(mgr ctrl.Manager, opts Options) error {
	r := &Reconciler{
		Client:   mgr.GetClient(),
		Reporter: report.Reporter{Client: mgr.GetClient(), Recorder: mgr.GetEventRecorder("hyperkeep-virtualmachine")},
		Options:  opts,
	}
	machines := mapper{r.Client}
	// Labels matter too: policies select by them. Our own status does not.
	changed := builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, predicate.LabelChangedPredicate{}))
	return ctrl.NewControllerManagedBy(mgr).
		For(&v1alpha1.VirtualMachine{}, changed).
		Watches(&v1alpha1.HostInventory{}, machines.ofInventory()).
		Watches(&v1alpha1.HyperVHost{}, machines.ofHost()).
		Watches(&v1alpha1.BackupPolicy{}, machines.ofPolicy()).
		Watches(&v1alpha1.BackupImage{}, machines.ofImage()).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4}).
		Complete(reconcile.AsReconciler(mgr.GetClient(), r))
}

// Reconcile brings labels and status of a virtual machine up to date. It runs when something about the machine itself changed, and at the moment when its
// RPO will be missed.
func (r *Reconciler) Reconcile(ctx context.Context, machine *v1alpha1.VirtualMachine) (ctrl.Result, error) {
	if !machine.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	seen, err := r.observe(ctx, machine)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("observe: %w", err)
	}
	next := decide(machine, seen, r.Clock.Now())
	if err := r.label(ctx, machine, next.labels); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	before := machine.DeepCopy()
	machine.Status = next.status
	events := transition.Events(before.Status.Conditions, machine.Status.Conditions,
		v1alpha1.ConditionPresent, v1alpha1.ConditionProtected, v1alpha1.ConditionRPOMet)
	return r.Finish(ctx, before, machine, next.wait, events...)
}

// label corrects those labels that are ours and touches no other.
func (r *Reconciler) label(ctx context.Context, machine *v1alpha1.VirtualMachine, labels map[string]string) error {
	before := machine.DeepCopy()
	if machine.Labels == nil {
		machine.Labels = map[string]string{}
	}
	maps.Copy(machine.Labels, labels)
	if maps.Equal(before.Labels, machine.Labels) {
		return nil
	}
	if err := r.Patch(ctx, machine, client.MergeFrom(before)); err != nil {
		return fmt.Errorf("label: %w", err)
	}
	return nil
}
