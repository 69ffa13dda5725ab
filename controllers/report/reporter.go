package report

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

// maxEventNote is what the API server accepts as the note of an events.k8s.io/v1 Event.
const maxEventNote = 1024

// Event is something that a person may want to know of.
type Event struct {
	kind    string
	reason  string
	message string
}

// Normal is an event that needs nobody.
func Normal(reason, format string, args ...any) Event {
	return Event{kind: corev1.EventTypeNormal, reason: reason, message: fmt.Sprintf(format, args...)}
}

// Warning is an event that somebody should look at.
func Warning(reason, format string, args ...any) Event {
	return Event{kind: corev1.EventTypeWarning, reason: reason, message: fmt.Sprintf(format, args...)}
}

// String is the event in one line, as tests and logs show it.
func (e Event) String() string { return e.kind + " " + e.reason + ": " + e.message }

// Reason is the CamelCase word of the event.
func (e Event) Reason() string { return e.reason }

// Wait is when to look at an object again although nothing changed, and why. The zero value waits for a watch.
type Wait struct {
	For     time.Duration
	Because string
}

// Sooner is the shorter of two waits. A wait that is due already is due at once.
func (w Wait) Sooner(other Wait) Wait {
	if w == (Wait{}) || other != (Wait{}) && other.For < w.For {
		return other
	}
	return w
}

// Until waits for a moment.
func Until(now, moment time.Time, because string) Wait {
	return Wait{For: moment.Sub(now), Because: because}
}

// Reporter is the only one who writes the status of a kind.
type Reporter struct {
	Client   client.Client
	Recorder events.EventRecorder
}

// Finish ends a reconcile: it writes the status where after differs from before, then sends the events, then says when to look again. Nothing
// is sent when the write failed: the next reconcile decides anew. A write onto an object that has changed meanwhile is refused by the API
// server and no error: what changed is looked at instead.
func (r Reporter) Finish(ctx context.Context, before, after client.Object, wait Wait, events ...Event) (ctrl.Result, error) {
	if err := r.write(ctx, before, after); err != nil {
		if apierrors.IsConflict(err) {
			return Wait{For: time.Second, Because: "the object changed meanwhile"}.result(ctx), nil
		}
		if apierrors.IsNotFound(err) {
			return ctrl.Result{}, nil
		}
		return ctrl.Result{}, fmt.Errorf("write status: %w", err)
	}
	r.Send(after, events...)
	return wait.result(ctx), nil
}

// Send sends events about an object, for the cases in which there is no status to write, such as the last word about a deleted object.
func (r Reporter) Send(about client.Object, events ...Event) {
	for _, event := range events {
		r.Recorder.Eventf(about, nil, event.kind, event.reason, event.reason, "%s", truncate(event.message, maxEventNote))
	}
}

func (r Reporter) write(ctx context.Context, before, after client.Object) error {
	if equality.Semantic.DeepEqual(before, after) {
		return nil
	}
	// The lock keeps a status that was decided on an old state of the cache from replacing a newer one.
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	return r.Client.Status().Patch(ctx, after, patch)
}

func (w Wait) result(ctx context.Context) ctrl.Result {
	if w == (Wait{}) {
		return ctrl.Result{}
	}
	// Zero would mean not to look again at all.
	after := max(w.For, time.Millisecond)
	log.FromContext(ctx).V(1).Info("Will look again", "after", after, "because", w.Because)
	return ctrl.Result{RequeueAfter: after}
}
