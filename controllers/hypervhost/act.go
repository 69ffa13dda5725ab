package hypervhost

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// act does what was decided. Each action may be repeated.
func (r *Reconciler) act(ctx context.Context, host *v1alpha1.HyperVHost, next decision) error {
	switch next.action {
	case hold:
		return r.patch(ctx, host, func() { controllerutil.AddFinalizer(host, Finalizer) })
	case grant, enlist:
		return r.create(ctx, next.objects)
	case cancel:
		return r.cancel(ctx, next.objects)
	case revoke:
		return r.delete(ctx, next.objects)
	case letGo:
		r.leases.Forget(types.NamespacedName{Namespace: v1alpha1.AgentNamespace(host.Name), Name: v1alpha1.AgentName})
		return client.IgnoreNotFound(r.patch(ctx, host, func() { controllerutil.RemoveFinalizer(host, Finalizer) }))
	default:
		return nil
	}
}

// create takes an object that exists for its own: the cache may be behind.
func (r *Reconciler) create(ctx context.Context, objects []client.Object) error {
	for _, object := range objects {
		if err := r.Create(ctx, object); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("create %T %s: %w", object, client.ObjectKeyFromObject(object), err)
		}
	}
	return nil
}

func (r *Reconciler) delete(ctx context.Context, objects []client.Object) error {
	for _, object := range objects {
		// The uid keeps an object that was made anew meanwhile.
		uid := object.GetUID()
		if err := r.Delete(ctx, object, client.Preconditions{UID: &uid}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("delete %T %s: %w", object, client.ObjectKeyFromObject(object), err)
		}
	}
	return nil
}

func (r *Reconciler) cancel(ctx context.Context, tasks []client.Object) error {
	for _, object := range tasks {
		task := object.(*v1alpha1.AgentTask)
		if err := r.patch(ctx, task, func() { task.Spec.Cancel = true }); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("cancel task %s: %w", task.Name, err)
		}
	}
	return nil
}

// patch sends what change changes, unless the object is another one by now.
func (r *Reconciler) patch(ctx context.Context, object client.Object, change func()) error {
	before := object.DeepCopyObject().(client.Object)
	change()
	return r.Patch(ctx, object, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
}
