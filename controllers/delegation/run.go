package delegation

import (
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Run is a BackupJob or a RestoreJob, as far as they are alike.
type Run struct {
	Owner v1alpha1.TaskOwner
	// Work is the kind of its tasks.
	Work       v1alpha1.TaskKind
	Generation int64
	Created    time.Time
	// Cancel is set when the run is to stop: it was canceled, or is being deleted.
	Cancel bool
	// Deleting is set when the object goes as soon as the host is clean.
	Deleting bool
	// Abandon is why a person gives up on the host, or empty.
	Abandon string
	// Held is set while the finalizer is on the object.
	Held bool
	// Attempts is how many tasks the run may have.
	Attempts int32
	// StartDeadline is how long the run may wait for its host, RunDeadline how long an attempt may take there.
	StartDeadline, RunDeadline time.Duration
	Status                     v1alpha1.RunStatus
}

// Terms are the rules of a run that its spec states.
type Terms struct {
	Cancel                                   bool
	Attempts                                 int32
	StartDeadlineSeconds, RunDeadlineSeconds int32
}

// NewRun looks at an object of a kind as a run whose work is done by tasks of another.
func NewRun(kind string, work v1alpha1.TaskKind, object client.Object, terms Terms, status v1alpha1.RunStatus) Run {
	deleting := !object.GetDeletionTimestamp().IsZero()
	return Run{
		Owner:         OwnerOf(kind, object),
		Work:          work,
		Generation:    object.GetGeneration(),
		Created:       object.GetCreationTimestamp().Time,
		Cancel:        terms.Cancel || deleting,
		Deleting:      deleting,
		Abandon:       object.GetAnnotations()[v1alpha1.AnnotationAbandon],
		Held:          controllerutil.ContainsFinalizer(object, v1alpha1.FinalizerHostClean),
		Attempts:      terms.Attempts,
		StartDeadline: time.Duration(terms.StartDeadlineSeconds) * time.Second,
		RunDeadline:   time.Duration(terms.RunDeadlineSeconds) * time.Second,
		Status:        status,
	}
}

// OwnerOf is how a task names the object that it was made for.
func OwnerOf(kind string, object client.Object) v1alpha1.TaskOwner {
	return v1alpha1.TaskOwner{Kind: kind, Namespace: object.GetNamespace(), Name: object.GetName(), UID: string(object.GetUID())}
}

// Terminal says whether the verdict fell. It is never changed.
func Terminal(status v1alpha1.RunStatus) bool {
	verdict := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionSucceeded)
	return verdict != nil && verdict.Status != metav1.ConditionUnknown
}

// Settled says that nothing is left to do for a run: the verdict fell, and the host is clean.
func (r Run) Settled() bool { return Terminal(r.Status) && !r.Held }

// Abandoned says that a person gave up on the host of a run that is being deleted: it goes at once.
func (r Run) Abandoned() bool { return r.Deleting && r.Abandon != "" }

// NeedsPlace says whether the next thing to do may be to make a task, so that it is worth while to look for a place.
func (r Run) NeedsPlace(tasks Tasks) bool {
	current := tasks.Current()
	return !Terminal(r.Status) && (current == nil || Finished(current) && !Succeeded(current))
}

// Phase is the state of a run in one word, for people; nothing branches on it.
func Phase(conditions []metav1.Condition) string {
	verdict := meta.FindStatusCondition(conditions, v1alpha1.ConditionSucceeded)
	switch {
	case verdict == nil:
		return "Pending"
	case verdict.Status == metav1.ConditionTrue:
		return "Succeeded"
	case verdict.Status == metav1.ConditionFalse && verdict.Reason == v1alpha1.ReasonCanceled:
		return "Canceled"
	case verdict.Status == metav1.ConditionFalse:
		return "Failed"
	case meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionStalled):
		return "Stalled"
	default:
		return verdict.Reason
	}
}
