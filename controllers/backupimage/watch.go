package backupimage

import (
	"context"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/index"
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// siblings wakes the images that an image pushes out, or ceases to.
func (r *Reconciler) siblings() handler.EventHandler {
	wake := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, object client.Object) []reconcile.Request {
		spec := object.(*v1alpha1.BackupImage).Spec
		return r.requests(ctx, nil, client.InNamespace(object.GetNamespace()),
			index.ImagesOfSeries(spec.VirtualMachine.ID, spec.PolicyName, spec.RepositoryRef.Name))
	})
	return handler.Funcs{
		CreateFunc: wake.Create,
		DeleteFunc: wake.Delete,
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			if usable(e.ObjectOld.(*v1alpha1.BackupImage)) != usable(e.ObjectNew.(*v1alpha1.BackupImage)) {
				wake.Update(ctx, e, q)
			}
		},
	}
}

// imagesOfShare wakes the images that a share which was verified says something of: those that it names, and those that an earlier one did.
func (r *Reconciler) imagesOfShare() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, object client.Object) []reconcile.Request {
		task := object.(*v1alpha1.AgentTask)
		if task.Spec.Kind != v1alpha1.TaskScrub || !delegation.Succeeded(task) || task.Status.Scrubbed == nil || task.Spec.Repository == nil {
			return nil
		}
		named := map[string]bool{}
		for _, image := range task.Status.Scrubbed.Images {
			named[image.ImageID] = true
		}
		concerns := func(image *v1alpha1.BackupImage) bool {
			verified := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ConditionVerified)
			return named[image.Spec.ImageID] || verified != nil && verified.Reason == v1alpha1.ReasonDamageFound
		}
		return r.requests(ctx, concerns, index.ImagesIn(task.Spec.Repository.Name))
	})
}

// imagesOfPolicy wakes the images of a policy. Its retention changes rarely enough to look through its namespace.
func (r *Reconciler) imagesOfPolicy() handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, policy client.Object) []reconcile.Request {
		ofPolicy := func(image *v1alpha1.BackupImage) bool { return image.Spec.PolicyName == policy.GetName() }
		return r.requests(ctx, ofPolicy, client.InNamespace(policy.GetNamespace()))
	})
}

func retentionChanges() builder.WatchesOption {
	return builder.WithPredicates(predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
		before, after := e.ObjectOld.(*v1alpha1.BackupPolicy), e.ObjectNew.(*v1alpha1.BackupPolicy)
		return !equality.Semantic.DeepEqual(before.Spec.Retention, after.Spec.Retention) ||
			before.DeletionTimestamp.IsZero() != after.DeletionTimestamp.IsZero()
	}})
}

func (r *Reconciler) requests(ctx context.Context, matches func(*v1alpha1.BackupImage) bool, options ...client.ListOption) (requests []reconcile.Request) {
	images := &v1alpha1.BackupImageList{}
	if err := r.client.List(ctx, images, options...); err != nil {
		return nil // the cache always answers once it has synced
	}
	for i := range images.Items {
		if matches == nil || matches(&images.Items[i]) {
			requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&images.Items[i])})
		}
	}
	return requests
}
