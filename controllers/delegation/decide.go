package delegation

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// Action is what to do outside of the run's own status: one of a closed set.
type Action int

// What to do.
const (
	// Nothing but the status changes.
	Nothing Action = iota
	// Hold puts the finalizer on the run: it comes before anything exists outside.
	Hold
	// Place makes the task of the next attempt.
	Place
	// Cancel has an agent stop a task.
	Cancel
	// Release makes a task that cleans up after an attempt.
	Release
	// LetGo takes the finalizer off.
	LetGo
)

// String is the action's name, for logs and tests.
func (a Action) String() string {
	return [...]string{"Nothing", "Hold", "Place", "Cancel", "Release", "LetGo"}[a]
}

const (
	// pollInterval is how often a run looks whether its obstacle is gone. Obstacles are read from the cache.
	pollInterval = 5 * time.Second
	// releaseDeadline bounds one task that cleans up: merging a large checkpoint takes long.
	releaseDeadline = 2 * time.Hour
	// deadlineGrace is how long an agent that is alive may take to give up after the deadline: it releases the host first.
	deadlineGrace = 10 * time.Minute
)

// Seen is what was observed of a run.
type Seen struct {
	Tasks Tasks
	// HostReady is the verdict on the agent of the present task's host.
	HostReady bool
	// Obstacle keeps the next attempt from being placed. Only looked at when the run needs a place.
	Obstacle *Obstacle
	// HostName is where the next attempt would be placed.
	HostName string
	// Success is the reason and message of a good verdict.
	Success Verdict
}

// Verdict is a reason and a message.
type Verdict struct{ Reason, Message string }

// Next is what to do for a run, and what its status is once that was done.
type Next struct {
	Action Action
	// Task is the one to cancel, or to clean up after.
	Task *v1alpha1.AgentTask
	// Attempt numbers the task to make.
	Attempt int32
	// Deadline of the task to make.
	Deadline time.Time
	Status   v1alpha1.RunStatus
	Wait     report.Wait
	Events   []report.Event
}

// Decide says what a run does next. It reads nothing but its arguments.
func Decide(run Run, seen Seen, now time.Time) Next {
	d := decider{run: run, seen: seen, now: now, next: Next{Status: *run.Status.DeepCopy()}}
	d.next.Status.ObservedGeneration = run.Generation
	d.conditions = report.ConditionsOf(&d.next.Status.Conditions, run.Generation, now)
	d.decide()
	d.announce()
	d.next.Status.Phase = Phase(d.next.Status.Conditions)
	return d.next
}

type decider struct {
	run        Run
	seen       Seen
	now        time.Time
	next       Next
	conditions report.Conditions
}

func (d *decider) decide() {
	current := d.seen.Tasks.Current()
	d.mirror(current)
	d.reportRelease()
	switch {
	case d.run.Abandoned() && d.run.Held:
		d.abandon()
	case Terminal(d.run.Status):
		d.settle()
	case current != nil && !Finished(current):
		d.follow(current)
	case current != nil && Succeeded(current) && d.isNewest(current):
		d.succeed()
	case d.run.Cancel:
		d.fail(v1alpha1.Failure{Reason: v1alpha1.ReasonCanceled, Message: "canceled", Action: v1alpha1.FailureStall})
	case d.run.Status.Attempt > 0 || current != nil:
		d.retryAfter(current)
	default:
		d.place(1, d.run.Created)
	}
}

// isNewest is false when a newer task was made and has vanished.
func (d *decider) isNewest(task *v1alpha1.AgentTask) bool {
	return Attempt(task) >= d.run.Status.Attempt
}

// follow watches a task that its agent may work on.
func (d *decider) follow(task *v1alpha1.AgentTask) {
	deadline := task.Spec.Deadline.Time
	switch {
	case !d.seen.HostReady && d.now.After(deadline):
		d.giveUp(task, v1alpha1.ReasonHostUnreachable, fmt.Sprintf(
			"the agent of host %s has not been heard of, and the deadline has passed: what it left there is cleaned up when it comes back", d.next.Status.HostName))
	case d.now.After(deadline.Add(deadlineGrace)):
		d.giveUp(task, v1alpha1.ReasonDeadlineExceeded, fmt.Sprintf(
			"the agent of host %s did not stop at the deadline: see its log", d.next.Status.HostName))
	case d.run.Cancel && !task.Spec.Cancel:
		d.cancel(task)
		d.goesOn(v1alpha1.ReasonReleasing, "canceled: the agent is asked to stop and to release the host")
	case !d.seen.HostReady:
		d.goesOn(v1alpha1.ReasonHostUnreachable, fmt.Sprintf(
			"the agent of host %s is not heard of: it goes on by itself or when it comes back, until the deadline", d.next.Status.HostName))
		d.next.Wait = report.Until(d.now, deadline.Add(time.Second), "the deadline of the task")
	default:
		d.goesOn(runningReason(task), runningMessage(task))
		d.next.Wait = report.Until(d.now, deadline.Add(deadlineGrace+time.Second), "the deadline of the task")
	}
}

// giveUp fails a run whose agent gives no verdict. The agent is told to stop first, for when it comes back.
func (d *decider) giveUp(task *v1alpha1.AgentTask, reason, message string) {
	if !task.Spec.Cancel {
		d.cancel(task)
		d.goesOn(reason, message)
		return
	}
	d.fail(v1alpha1.Failure{Reason: reason, Message: message, Action: v1alpha1.FailureStall})
}

func (d *decider) cancel(task *v1alpha1.AgentTask) {
	d.next.Action, d.next.Task = Cancel, task
}

// retryAfter judges a failed attempt, and makes the next one when it is worth it and its time has come. The task is nil, or an older one, when
// that of the last attempt has vanished.
func (d *decider) retryAfter(task *v1alpha1.AgentTask) {
	failure := vanished
	attempt := d.run.Status.Attempt
	if task != nil && d.isNewest(task) {
		failure, attempt = FailureOf(task), Attempt(task)
	}
	d.next.Status.Failure = &failure
	if failure.Action == v1alpha1.FailureStall || attempt >= d.run.Attempts {
		d.fail(failure)
		return
	}
	if d.next.Status.RetryTime == nil {
		due := report.Time(d.now.Add(Backoff(attempt)))
		d.next.Status.RetryTime = &due
	}
	due := d.next.Status.RetryTime.Time
	if d.now.Before(due) {
		d.goesOn(v1alpha1.ReasonRetrying, fmt.Sprintf("attempt %d of %d failed (%s: %s); the next one starts after %s",
			attempt, d.run.Attempts, failure.Reason, failure.Message, due.UTC().Format(time.RFC3339)))
		d.next.Wait = report.Until(d.now, due, "the time of the next attempt")
		d.release()
		return
	}
	d.place(attempt+1, due)
}

// place makes the task of an attempt, as soon as nothing is in its way.
func (d *decider) place(attempt int32, since time.Time) {
	until := since.Add(d.run.StartDeadline)
	obstacle := d.seen.Obstacle
	switch {
	case obstacle != nil && obstacle.Remedy == None:
		d.fail(v1alpha1.Failure{Reason: obstacle.Reason, Message: obstacle.Message, Action: v1alpha1.FailureStall})
	case !d.now.Before(until):
		message := fmt.Sprintf("could not be placed within %s", d.run.StartDeadline)
		if obstacle != nil {
			message += ": " + obstacle.Message
		}
		d.fail(v1alpha1.Failure{Reason: v1alpha1.ReasonDeadlineExceeded, Message: message, Action: v1alpha1.FailureStall})
	case obstacle != nil:
		d.queue(obstacle)
		d.next.Wait = report.Until(d.now, until, "the start deadline").Sooner(d.next.Wait)
	case !d.run.Held:
		d.next.Action = Hold
	default:
		d.placed(attempt)
	}
}

func (d *decider) placed(attempt int32) {
	now := report.Time(d.now)
	d.next.Action, d.next.Attempt, d.next.Deadline = Place, attempt, d.now.Add(d.run.RunDeadline)
	status := &d.next.Status
	status.Attempt, status.HostName = attempt, d.seen.HostName
	status.TaskRef = &v1alpha1.TaskReference{
		Namespace: v1alpha1.AgentNamespace(d.seen.HostName), Name: TaskName(d.run.Work, d.run.Owner.UID, attempt),
	}
	status.RetryTime, status.Progress, status.Steps, status.Warnings = nil, nil, nil, nil
	if status.StartTime == nil {
		status.StartTime = &now
	}
	d.goesOn(v1alpha1.ReasonPlaced, "the task is with host "+d.seen.HostName)
}

// settle cleans up after the verdict, and then lets the object go. It begins once the status says what it is about to do.
func (d *decider) settle() {
	if !d.run.Held || !equality.Semantic.DeepEqual(d.run.Status, d.next.Status) {
		return
	}
	if live := d.seen.Tasks.Live(); live != nil {
		if live.Spec.Kind != v1alpha1.TaskRelease && !live.Spec.Cancel {
			d.cancel(live)
		}
		return // the watch on tasks wakes it
	}
	if attempt, _ := d.seen.Tasks.Unreleased(); attempt != nil {
		d.release()
		return
	}
	d.next.Action = LetGo
}

// release makes a task that cleans up, when there is something to clean up and none is at it.
func (d *decider) release() {
	attempt, last := d.seen.Tasks.Unreleased()
	switch {
	case attempt == nil, last != nil && !Finished(last):
		return
	case last == nil:
		d.next.Attempt = 1
	default:
		due := FinishTime(last).Add(Backoff(Attempt(last)))
		if d.now.Before(due) {
			d.next.Wait = d.next.Wait.Sooner(report.Until(d.now, due, "the time to try to clean up again"))
			return
		}
		d.next.Attempt = Attempt(last) + 1
	}
	d.next.Action, d.next.Task, d.next.Deadline = Release, attempt, d.now.Add(releaseDeadline)
}

func (d *decider) abandon() {
	d.next.Action = LetGo
	left := "Nothing should be left there."
	if task := d.seen.Tasks.Live(); task != nil {
		left = "The agent may still work on task " + task.Name + "; it stops when it comes back."
	} else if task, _ := d.seen.Tasks.Unreleased(); task != nil {
		left = "A checkpoint with the tag " + string(task.UID) + " may be left there; the agent removes it when it comes back."
	}
	d.next.Events = append(d.next.Events, report.Warning(v1alpha1.ReasonAbandoned, "host %s was given up (%s). %s", d.run.Status.HostName, d.run.Abandon, left))
}
