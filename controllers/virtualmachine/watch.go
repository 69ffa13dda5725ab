package virtualmachine

import (
	"context"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/index"
	"github.com/hyperkeep/hyperkeep/controllers/selection"
)

// mapper leads from what changed to the virtual machines that it changed something for. A scan of a thousand machines that found nothing new leads to none.
type mapper struct{ client.Reader }

// changes calls affected with an object's state before and after: before is nil for a new object, after for one that is gone.
func changes[T client.Object](affected func(ctx context.Context, before, after T, enqueue func(...v1alpha1.VirtualMachine))) handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	run := func(ctx context.Context, q queue, before, after T) {
		affected(ctx, before, after, func(machines ...v1alpha1.VirtualMachine) {
			for i := range machines {
				q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&machines[i])})
			}
		})
	}
	var none T
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) { run(ctx, q, none, e.Object.(T)) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) { run(ctx, q, e.ObjectOld.(T), e.ObjectNew.(T)) },
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) { run(ctx, q, e.Object.(T), none) },
	}
}

// ofInventory leads to the machines whose facts differ.
func (m mapper) ofInventory() handler.EventHandler {
	return changes(func(ctx context.Context, before, after *v1alpha1.HostInventory, enqueue func(...v1alpha1.VirtualMachine)) {
		for id := range changed(before, after) {
			enqueue(m.list(ctx, index.VirtualMachinesByID(id))...)
		}
	})
}

// changed returns the ids of machines that came, went or differ.
func changed(before, after *v1alpha1.HostInventory) sets.Set[string] {
	old := factsByID(before)
	ids := sets.New[string]()
	for id, facts := range factsByID(after) {
		if was, known := old[id]; !known || !equality.Semantic.DeepEqual(was, facts) {
			ids.Insert(id)
		}
		delete(old, id)
	}
	return ids.Union(sets.KeySet(old))
}

func factsByID(part *v1alpha1.HostInventory) map[string]*v1alpha1.VirtualMachineFacts {
	facts := map[string]*v1alpha1.VirtualMachineFacts{}
	if part == nil {
		return facts
	}
	for i := range part.Status.VirtualMachines {
		facts[part.Status.VirtualMachines[i].ID] = &part.Status.VirtualMachines[i]
	}
	return facts
}

// ofHost leads to a host's machines when its placement changes, when it comes or goes, and when its agent is lost or found: then another host may lead.
func (m mapper) ofHost() handler.EventHandler {
	return changes(func(ctx context.Context, before, after *v1alpha1.HyperVHost, enqueue func(...v1alpha1.VirtualMachine)) {
		host := before
		if after != nil {
			host = after
		}
		if before != nil && after != nil && before.Generation == after.Generation && ready(before) == ready(after) {
			return
		}
		enqueue(m.list(ctx, index.VirtualMachinesOn(host.Name))...)
		var parts v1alpha1.HostInventoryList
		if err := m.List(ctx, &parts, index.InventoriesOf(host.Name), client.UnsafeDisableDeepCopy); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "Inventories not listed")
		}
		for i := range parts.Items {
			for id := range factsByID(&parts.Items[i]) {
				enqueue(m.list(ctx, index.VirtualMachinesByID(id))...)
			}
		}
	})
}

func ready(host *v1alpha1.HyperVHost) bool {
	return meta.IsStatusConditionTrue(host.Status.Conditions, v1alpha1.ConditionReady)
}

// ofPolicy leads to the machines that the policy selects, or did.
func (m mapper) ofPolicy() handler.EventHandler {
	return changes(func(ctx context.Context, before, after *v1alpha1.BackupPolicy, enqueue func(...v1alpha1.VirtualMachine)) {
		policy := before
		if after != nil {
			policy = after
		}
		if before != nil && after != nil && before.Generation == after.Generation {
			return
		}
		for _, machine := range m.list(ctx, client.InNamespace(policy.Namespace)) {
			if before != nil && selection.Selects(before, &machine) || after != nil && selection.Selects(after, &machine) {
				enqueue(machine)
			}
		}
	})
}

// ofImage leads to the image's machine when the image comes, goes, or becomes usable or useless.
func (m mapper) ofImage() handler.EventHandler {
	return changes(func(ctx context.Context, before, after *v1alpha1.BackupImage, enqueue func(...v1alpha1.VirtualMachine)) {
		image := before
		if after != nil {
			image = after
		}
		if before != nil && after != nil && usable(before) == usable(after) {
			return
		}
		enqueue(m.list(ctx, client.InNamespace(image.Namespace), index.VirtualMachinesByID(image.Spec.VirtualMachine.ID))...)
	})
}

// list reads from the cache, which fails only when the manager stops.
func (m mapper) list(ctx context.Context, opts ...client.ListOption) []v1alpha1.VirtualMachine {
	var machines v1alpha1.VirtualMachineList
	if err := m.List(ctx, &machines, append(opts, client.UnsafeDisableDeepCopy)...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "Virtual machines not listed")
	}
	return machines.Items
}
