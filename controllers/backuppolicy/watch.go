package backuppolicy

import (
	"context"
	"maps"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/index"
)

// policiesOfNamespace wakes the policies that may select a virtual machine, or may just have ceased to.
func (r *Reconciler) policiesOfNamespace() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, machine client.Object) []reconcile.Request {
		return r.requests(ctx, client.InNamespace(machine.GetNamespace()))
	})
}

// policiesInto wakes the policies whose images go to a repository.
func (r *Reconciler) policiesInto() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, repository client.Object) []reconcile.Request {
		return r.requests(ctx, index.PoliciesInto(repository.GetName()))
	})
}

func (r *Reconciler) requests(ctx context.Context, option client.ListOption) (requests []reconcile.Request) {
	policies := &v1alpha1.BackupPolicyList{}
	if err := r.client.List(ctx, policies, option); err != nil {
		return nil // the cache always answers once it has synced
	}
	for i := range policies.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&policies.Items[i])})
	}
	return requests
}

// machineChanges lets only those changes of virtual machines through that matter to a policy: an inventory changes facts all the time.
func machineChanges() builder.WatchesOption {
	return builder.WithPredicates(predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*v1alpha1.VirtualMachine), e.ObjectNew.(*v1alpha1.VirtualMachine)
		return before.Generation != after.Generation ||
			!maps.Equal(before.Labels, after.Labels) ||
			isPresent(before) != isPresent(after) ||
			!equality.Semantic.DeepEqual(before.Status.LastRestorePoint, after.Status.LastRestorePoint)
	}})
}

// isPresent says whether a host has the virtual machine.
func isPresent(machine *v1alpha1.VirtualMachine) bool {
	return meta.IsStatusConditionTrue(machine.Status.Conditions, v1alpha1.ConditionPresent)
}
