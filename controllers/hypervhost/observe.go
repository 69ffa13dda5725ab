package hypervhost

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/index"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
	"github.com/hyperkeep/hyperkeep/controllers/liveness"
)

// observed is all that a decision rests on.
type observed struct {
	// namespace of the agent; nil when there is none.
	namespace *corev1.Namespace
	// access is there: the agent's account or one of the bindings.
	access []client.Object
	// missing of the access, and foreign bindings that stand in their place.
	missing, foreign []client.Object
	pulse            liveness.Pulse
	// claimed and renewed are when the agent that lives claimed the host and when it told so last, by its own clock. Zero while there is none.
	claimed, renewed time.Time
	// scan is the newest look at the host, if it is whole.
	scan  inventory.Scan
	whole bool
	// absent are namespaces that the placement names and that do not exist, or are about to go.
	absent []string
	// unlisted are the virtual machines on this host that have no object yet.
	unlisted []*v1alpha1.VirtualMachine
	// live are the tasks that the agent has not ended. Only looked for when the host is being deleted.
	live []v1alpha1.AgentTask
}

func (r *Reconciler) observe(ctx context.Context, host *v1alpha1.HyperVHost, now time.Time) (observed, error) {
	var seen observed
	for _, look := range []func(context.Context, *v1alpha1.HyperVHost, *observed) error{
		r.observeNamespaces, r.observeAccess, r.observeTasks, r.observeScan,
	} {
		if err := look(ctx, host, &seen); err != nil {
			return observed{}, err
		}
	}
	key := types.NamespacedName{Namespace: v1alpha1.AgentNamespace(host.Name), Name: v1alpha1.AgentName}
	lease := &coordinationv1.Lease{}
	found, err := r.find(ctx, key, lease)
	if err != nil {
		return observed{}, err
	}
	if !found {
		lease = nil
	} else {
		seen.claimed, seen.renewed = ptr.Deref(lease.Spec.AcquireTime, metav1.MicroTime{}).Time, ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{}).Time
	}
	seen.pulse = r.leases.Observe(key, lease, now)
	return seen, nil
}

func (r *Reconciler) observeNamespaces(ctx context.Context, host *v1alpha1.HyperVHost, seen *observed) error {
	namespace := &corev1.Namespace{}
	found, err := r.find(ctx, types.NamespacedName{Name: v1alpha1.AgentNamespace(host.Name)}, namespace)
	if err != nil {
		return err
	}
	if found {
		seen.namespace = namespace
	}
	for _, name := range inventory.Namespaces(host.Spec) {
		namespace := &corev1.Namespace{}
		found, err := r.find(ctx, types.NamespacedName{Name: name}, namespace)
		if err != nil {
			return err
		}
		if !found || !namespace.DeletionTimestamp.IsZero() {
			seen.absent = append(seen.absent, name)
		}
	}
	return nil
}

func (r *Reconciler) observeAccess(ctx context.Context, host *v1alpha1.HyperVHost, seen *observed) error {
	for _, wanted := range bindings(host.Name, r.Options) {
		binding := &rbacv1.RoleBinding{}
		found, err := r.find(ctx, client.ObjectKeyFromObject(wanted), binding)
		switch {
		case err != nil:
			return err
		case !found:
			seen.missing = append(seen.missing, wanted)
		case !sameRights(binding, wanted):
			seen.foreign = append(seen.foreign, binding)
		case binding.Name == v1alpha1.AgentName:
			seen.access = append(seen.access, binding)
		}
	}
	// The account comes last: once there are tokens, all that they need is there.
	account := agentAccount(host.Name)
	found, err := r.find(ctx, client.ObjectKeyFromObject(account), account)
	if err != nil {
		return err
	}
	if found {
		seen.access = append(seen.access, account)
	} else {
		seen.missing = append(seen.missing, agentAccount(host.Name))
	}
	return nil
}

func (r *Reconciler) observeTasks(ctx context.Context, host *v1alpha1.HyperVHost, seen *observed) error {
	if host.DeletionTimestamp.IsZero() {
		return nil
	}
	var tasks v1alpha1.AgentTaskList
	if err := r.List(ctx, &tasks, client.InNamespace(v1alpha1.AgentNamespace(host.Name))); err != nil {
		return fmt.Errorf("list tasks: %w", err)
	}
	for _, task := range tasks.Items {
		if !delegation.Finished(&task) {
			seen.live = append(seen.live, task)
		}
	}
	return nil
}

func (r *Reconciler) observeScan(ctx context.Context, host *v1alpha1.HyperVHost, seen *observed) error {
	var parts v1alpha1.HostInventoryList
	if err := r.List(ctx, &parts, index.InventoriesOf(host.Name), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list inventories: %w", err)
	}
	seen.scan, seen.whole = inventory.Whole(parts.Items)
	for _, facts := range seen.scan.VirtualMachines {
		machine, err := r.unlisted(ctx, host, facts)
		if err != nil {
			return err
		}
		if machine != nil {
			seen.unlisted = append(seen.unlisted, machine)
		}
	}
	return nil
}

// unlisted returns the object that a virtual machine lacks; nil when it has one, or when another host has to make it.
func (r *Reconciler) unlisted(ctx context.Context, host *v1alpha1.HyperVHost, facts v1alpha1.VirtualMachineFacts) (*v1alpha1.VirtualMachine, error) {
	namespace := inventory.Namespace(host.Spec, facts.DisplayName)
	var present v1alpha1.VirtualMachineList
	if err := r.List(ctx, &present, client.InNamespace(namespace), index.VirtualMachinesByID(facts.ID), client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list virtual machines with id %s: %w", facts.ID, err)
	}
	if len(present.Items) > 0 {
		return nil, nil
	}
	places, err := inventory.Places(ctx, r, facts.ID)
	if err != nil || len(places) == 0 {
		return nil, err
	}
	if lead, _ := inventory.Lead(places, ""); lead.Host.Name != host.Name {
		return nil, nil
	}
	labels := labelsOf(host.Name)
	labels[v1alpha1.LabelVirtualMachineID] = facts.ID
	return &v1alpha1.VirtualMachine{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: inventory.ObjectName(facts), Labels: labels},
	}, nil
}

// find says false when there is no such object.
func (r *Reconciler) find(ctx context.Context, key client.ObjectKey, into client.Object) (bool, error) {
	err := r.Get(ctx, key, into)
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("get %T %s: %w", into, key, err)
	}
	return true, nil
}
