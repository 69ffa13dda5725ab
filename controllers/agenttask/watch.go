package agenttask

import (
	"context"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/index"
)

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// tasksOfSettled wakes the tasks of an owner that is gone, or that needs its finished tasks no more.
func (r *Reconciler) tasksOfSettled() handler.EventHandler {
	wake := func(ctx context.Context, owner client.Object, q queue) {
		tasks := &v1alpha1.AgentTaskList{}
		if err := r.client.List(ctx, tasks, index.TasksOf(owner.GetUID())); err != nil {
			return // the cache always answers once it has synced
		}
		for i := range tasks.Items {
			q.Add(reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&tasks.Items[i])})
		}
	}
	return handler.Funcs{
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) { wake(ctx, e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			if settled(e.ObjectNew) && !settled(e.ObjectOld) {
				wake(ctx, e.ObjectNew, q)
			}
		},
	}
}
