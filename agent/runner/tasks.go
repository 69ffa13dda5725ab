package runner

import (
	"context"
	"errors"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Handler carries out the tasks of one kind.
type Handler interface {
	// Run does all of a task and returns its verdict. It is called again with the same task after the agent was killed at any point, and then
	// finishes what was begun. ctx ends with a cause when the task was canceled or deleted, its deadline passed, or the agent stops; the host is
	// cleaned up all the same unless the cause is ErrClaimLost or that the agent stops.
	Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error
}

// Tasks hands the tasks of a namespace to their handlers, each in a goroutine of its own. How many run at once is the manager's decision.
type Tasks struct {
	Client   client.Client
	Session  string
	Handlers map[v1alpha1.TaskKind]Handler
	Clock    clock.Clock

	mu      sync.Mutex
	running map[types.UID]work
	// judged are the tasks that got their verdict in this session: the cache may show them without it for a while.
	judged map[types.NamespacedName]types.UID
	done   sync.WaitGroup
	life   context.Context // ends when the agent stops
}

// work is what is done on one task.
type work struct {
	name types.NamespacedName
	stop context.CancelCauseFunc
}

// SetupWithManager registers the watch. Work ends when ctx does.
func (t *Tasks) SetupWithManager(ctx context.Context, mgr ctrl.Manager) error {
	t.running = map[types.UID]work{}
	t.judged = map[types.NamespacedName]types.UID{}
	t.life = ctx
	return ctrl.NewControllerManagedBy(mgr).For(&v1alpha1.AgentTask{}).Named("agenttask").
		WithOptions(controller.Options{SkipNameValidation: ptr.To(true)}). // a keeper and host agents may share a process
		Complete(reconcile.Func(t.reconcile))
}

// Wait returns when all work has ended.
func (t *Tasks) Wait() { t.done.Wait() }

// Running says whether this agent works on the task with the uid.
func (t *Tasks) Running(uid types.UID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, running := t.running[uid]
	return running
}

// reconcile starts, cancels or leaves alone the work on one task. What a task that vanished has left on the host is the sweeper's.
func (t *Tasks) reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	task := &v1alpha1.AgentTask{}
	err := t.Client.Get(ctx, request.NamespacedName, task)
	t.mu.Lock()
	defer t.mu.Unlock()
	if apierrors.IsNotFound(err) {
		t.vanished(request.NamespacedName)
		return ctrl.Result{}, nil
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	present, running := t.running[task.UID]
	switch {
	case finished(task), t.judged[request.NamespacedName] == task.UID:
	case running && (task.Spec.Cancel || !task.DeletionTimestamp.IsZero()):
		present.stop(errCanceled)
	case running:
	default:
		t.start(task) //nolint:contextcheck // the work outlives this call: it ends with the agent
	}
	return ctrl.Result{}, nil
}

// vanished stops the work on a task that was deleted.
func (t *Tasks) vanished(name types.NamespacedName) {
	delete(t.judged, name)
	for _, w := range t.running {
		if w.name == name {
			w.stop(errCanceled)
		}
	}
}

func finished(task *v1alpha1.AgentTask) bool {
	verdict := apimeta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionSucceeded)
	return verdict != nil && verdict.Status != "Unknown"
}

// start runs a task in the background. A task that is canceled already runs too: an earlier session may have left something on the host.
func (t *Tasks) start(task *v1alpha1.AgentTask) {
	life, name := t.life, client.ObjectKeyFromObject(task)
	ctx, stop := context.WithCancelCause(life)
	ctx, free := context.WithDeadlineCause(withLife(ctx, life), task.Spec.Deadline.Time, errDeadline)
	if task.Spec.Cancel {
		stop(errCanceled)
	}
	t.running[task.UID] = work{name, stop}
	t.done.Go(func() {
		defer free()
		judged := t.run(life, ctx, task)
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.running, task.UID)
		if judged {
			t.judged[name] = task.UID
		}
	})
}

// run does one task from claim to verdict, and says whether the verdict is recorded. ctx ends with the task, life with the agent. An agent that stops gives
// no verdict, for its next session takes the task up again; nor does one that lost its claim, for another agent has the task now.
func (t *Tasks) run(life, ctx context.Context, task *v1alpha1.AgentTask) bool {
	log := ctrl.LoggerFrom(life).WithValues("task", task.Name, "kind", task.Spec.Kind)
	report := newReport(t.Client, t.Clock, task)
	if err := report.Claim(life, t.Session); err != nil {
		log.Error(err, "Claim failed")
		return errors.Is(err, errTaskGone)
	}
	log.Info("Task started")
	err := causeOf(ctx, t.handle(ctx, task, report))
	switch {
	case life.Err() != nil:
		log.Info("Task interrupted", "cause", context.Cause(life).Error())
		return false
	case errors.Is(err, ErrClaimLost):
		log.Error(err, "Task left to another agent")
		return false
	case err != nil:
		log.Error(err, "Task failed")
	default:
		log.Info("Task succeeded")
	}
	if err := report.Finish(life, err); err != nil {
		log.Error(err, "Verdict not recorded")
		return errors.Is(err, errTaskGone)
	}
	return true
}

func (t *Tasks) handle(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	handler, known := t.Handlers[task.Spec.Kind]
	if !known {
		return stall("KindNotServed", errKindNotServed(task.Spec.Kind))
	}
	return handler.Run(ctx, task, report)
}

type errKindNotServed v1alpha1.TaskKind

func (e errKindNotServed) Error() string {
	return "this agent does no tasks of kind " + string(e) + ": it was placed with the wrong agent, or the agent is too old"
}
