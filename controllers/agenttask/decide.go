package agenttask

import (
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
)

// action is what to do with a task: one of a closed set.
type action int

// What to do.
const (
	leave action = iota
	cancel
	sweep
	later
)

// String is the action's name, for tests.
func (a action) String() string { return [...]string{"leave", "cancel", "sweep", "later"}[a] }

// keepFor is how long a finished task is there for people to read.
const keepFor = 10 * time.Minute

type next struct {
	action action
	after  time.Duration
}

// decide says what happens to a task. It reads nothing but its arguments.
func decide(task *v1alpha1.AgentTask, seen observation, now time.Time) next {
	finished := delegation.Finished(task)
	switch {
	case seen.owner == nil && finished:
		return next{action: sweep}
	case seen.owner == nil && !task.Spec.Cancel:
		return next{action: cancel}
	case !finished, seen.owner == nil:
		return next{action: leave}
	case !settled(seen.owner) && !superseded(task, seen.siblings):
		return next{action: leave}
	}
	if rest := delegation.FinishTime(task).Add(keepFor).Sub(now); rest > 0 {
		return next{action: later, after: rest}
	}
	return next{action: sweep}
}

// settled says whether an owner needs its finished tasks no more: its verdict is on record, and its host is clean.
func settled(owner client.Object) bool {
	switch o := owner.(type) {
	case *v1alpha1.BackupJob:
		return delegation.Terminal(o.Status.RunStatus) && !held(o)
	case *v1alpha1.RestoreJob:
		return delegation.Terminal(o.Status.RunStatus) && !held(o)
	default:
		// Images and repositories go on for ever. The newest of each of their tasks tells when to try again.
		return false
	}
}

func held(object client.Object) bool {
	return controllerutil.ContainsFinalizer(object, v1alpha1.FinalizerHostClean)
}

// superseded says whether a newer task was made for the same. The attempts of a run are few, and each tells of a host that may have to be cleaned up;
// all others may be without number.
func superseded(task *v1alpha1.AgentTask, siblings []v1alpha1.AgentTask) bool {
	if task.Spec.Kind == v1alpha1.TaskBackup || task.Spec.Kind == v1alpha1.TaskRestore {
		return false
	}
	for i := range siblings {
		other := &siblings[i]
		if other.Spec.Kind == task.Spec.Kind && sameRelease(other, task) && newer(other, task) {
			return true
		}
	}
	return false
}

// sameRelease tells apart the attempts that are cleaned up after.
func sameRelease(a, b *v1alpha1.AgentTask) bool {
	return a.Spec.Release == nil || b.Spec.Release == nil || *a.Spec.Release == *b.Spec.Release
}

func newer(a, b *v1alpha1.AgentTask) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return a.CreationTimestamp.After(b.CreationTimestamp.Time)
	}
	return delegation.Attempt(a) > delegation.Attempt(b)
}
