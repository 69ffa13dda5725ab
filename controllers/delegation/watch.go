package delegation

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// mirrorInterval bounds how often progress is copied from a task. The queue merges what falls into it.
const mirrorInterval = 2 * time.Second

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// EnqueueOwner wakes the owners, of one kind, of tasks that changed. Progress alone can wait.
func EnqueueOwner(kind string) handler.EventHandler {
	return handler.Funcs{
		CreateFunc: func(_ context.Context, e event.CreateEvent, q queue) { enqueue(kind, e.Object, q, 0) },
		DeleteFunc: func(_ context.Context, e event.DeleteEvent, q queue) { enqueue(kind, e.Object, q, 0) },
		UpdateFunc: func(_ context.Context, e event.UpdateEvent, q queue) {
			pause := time.Duration(0)
			if onlyProgress(e.ObjectOld.(*v1alpha1.AgentTask), e.ObjectNew.(*v1alpha1.AgentTask)) {
				pause = mirrorInterval
			}
			enqueue(kind, e.ObjectNew, q, pause)
		},
	}
}

func enqueue(kind string, object client.Object, q queue, pause time.Duration) {
	if owner := object.(*v1alpha1.AgentTask).Spec.Owner; owner.Kind == kind {
		q.AddAfter(requestFor(owner), pause)
	}
}

func requestFor(owner v1alpha1.TaskOwner) reconcile.Request {
	return reconcile.Request{NamespacedName: types.NamespacedName{Namespace: owner.Namespace, Name: owner.Name}}
}

func onlyProgress(before, after *v1alpha1.AgentTask) bool {
	return before.Generation == after.Generation && equality.Semantic.DeepEqual(before.Status.Conditions, after.Status.Conditions)
}

// EnqueueRunsOn wakes the owners, of one kind, of the tasks that a host works on when its agent is lost or comes back.
func EnqueueRunsOn(reader client.Reader, kind string) handler.EventHandler {
	wake := func(ctx context.Context, host string, q queue) {
		list := &v1alpha1.AgentTaskList{}
		if err := reader.List(ctx, list, client.InNamespace(v1alpha1.AgentNamespace(host))); err != nil {
			return // the cache always answers once it has synced
		}
		for i := range list.Items {
			if task := &list.Items[i]; HoldsHost(task) && task.Spec.Owner.Kind == kind {
				q.Add(requestFor(task.Spec.Owner))
			}
		}
	}
	return handler.Funcs{
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) { wake(ctx, e.Object.GetName(), q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			if HostReady(e.ObjectOld.(*v1alpha1.HyperVHost)) != HostReady(e.ObjectNew.(*v1alpha1.HyperVHost)) {
				wake(ctx, e.ObjectNew.GetName(), q)
			}
		},
	}
}
