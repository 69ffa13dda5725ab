package virtualmachine

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/index"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
	"github.com/hyperkeep/hyperkeep/controllers/selection"
)

// observed is all that a decision rests on. What it refers to is the cache's own and must not be changed.
type observed struct {
	// id that the object stands for; empty when that cannot be told.
	id string
	// places that list the machine.
	places []inventory.Place
	// scanning says that the host that had it last is writing its inventory: what is missing there may come yet.
	scanning bool
	// policies that select it.
	policies []*v1alpha1.BackupPolicy
	// newest usable image; nil when there is none.
	newest *v1alpha1.BackupImage
	// images that are usable.
	images int32
}

func (r *Reconciler) observe(ctx context.Context, machine *v1alpha1.VirtualMachine) (observed, error) {
	seen := observed{id: inventory.ID(machine)}
	if seen.id == "" {
		return seen, nil
	}
	for _, look := range []func(context.Context, *v1alpha1.VirtualMachine, *observed) error{
		r.observePlaces, r.observePolicies, r.observeImages,
	} {
		if err := look(ctx, machine, &seen); err != nil {
			return observed{}, err
		}
	}
	return seen, nil
}

func (r *Reconciler) observePlaces(ctx context.Context, machine *v1alpha1.VirtualMachine, seen *observed) error {
	places, err := inventory.Places(ctx, r, seen.id)
	if err != nil {
		return err
	}
	seen.places = places
	if len(places) > 0 || machine.Status.HostName == "" {
		return nil
	}
	var parts v1alpha1.HostInventoryList
	if err := r.List(ctx, &parts, index.InventoriesOf(machine.Status.HostName), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list inventories of %s: %w", machine.Status.HostName, err)
	}
	_, whole := inventory.Whole(parts.Items)
	seen.scanning = len(parts.Items) > 0 && !whole
	return nil
}

func (r *Reconciler) observePolicies(ctx context.Context, machine *v1alpha1.VirtualMachine, seen *observed) error {
	var policies v1alpha1.BackupPolicyList
	if err := r.List(ctx, &policies, client.InNamespace(machine.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list policies: %w", err)
	}
	for i := range policies.Items {
		policy := &policies.Items[i]
		if policy.DeletionTimestamp.IsZero() && selection.Selects(policy, machine) {
			seen.policies = append(seen.policies, policy)
		}
	}
	return nil
}

func (r *Reconciler) observeImages(ctx context.Context, machine *v1alpha1.VirtualMachine, seen *observed) error {
	var images v1alpha1.BackupImageList
	if err := r.List(ctx, &images, client.InNamespace(machine.Namespace), index.ImagesOf(seen.id), client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for i := range images.Items {
		image := &images.Items[i]
		if !usable(image) {
			continue
		}
		seen.images++
		if seen.newest == nil || seen.newest.Spec.Summary.SnapshotTime.Before(&image.Spec.Summary.SnapshotTime) {
			seen.newest = image
		}
	}
	return nil
}

// usable says whether an image can be restored.
func usable(image *v1alpha1.BackupImage) bool {
	return image.DeletionTimestamp.IsZero() && meta.IsStatusConditionTrue(image.Status.Conditions, v1alpha1.ConditionReady)
}
