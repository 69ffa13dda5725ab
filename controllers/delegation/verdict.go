package delegation

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// ReasonTaskGone says that somebody deleted the task of an attempt.
const ReasonTaskGone = "TaskGone"

// vanished is the failure of an attempt whose task somebody deleted.
var vanished = v1alpha1.Failure{
	Reason:  ReasonTaskGone,
	Message: "the task was deleted before its agent gave a verdict",
	Action:  v1alpha1.FailureRetry,
}

// Backoff is the pause after the nth failure: 30 seconds, doubling up to 10 minutes.
func Backoff(n int32) time.Duration {
	const first, longest = 30 * time.Second, 10 * time.Minute
	pause := first
	for i := int32(1); i < n && pause < longest; i++ {
		pause *= 2
	}
	return min(pause, longest)
}

func (d *decider) succeed() {
	now := report.Time(d.now)
	d.next.Status.CompletionTime, d.next.Status.RetryTime, d.next.Status.Failure = &now, nil, nil
	d.conditions.True(v1alpha1.ConditionSucceeded, d.seen.Success.Reason, d.seen.Success.Message)
	d.conditions.Settled()
}

// fail gives the bad verdict. A run that was canceled has stalled too: nothing more happens until a person makes another one.
func (d *decider) fail(failure v1alpha1.Failure) {
	now := report.Time(d.now)
	d.next.Status.CompletionTime, d.next.Status.RetryTime, d.next.Status.Failure = &now, nil, &failure
	d.conditions.False(v1alpha1.ConditionSucceeded, failure.Reason, failure.Message)
	d.conditions.Stalled(failure.Reason, failure.Message)
}

func (d *decider) goesOn(reason, message string) {
	d.conditions.Unknown(v1alpha1.ConditionSucceeded, reason, message)
	d.conditions.Reconciling(reason, message)
}

// queue says what a run waits for.
func (d *decider) queue(obstacle *Obstacle) {
	if obstacle.Remedy == Person {
		d.conditions.Unknown(v1alpha1.ConditionSucceeded, obstacle.Reason, obstacle.Message)
		d.conditions.Stalled(obstacle.Reason, obstacle.Message)
	} else {
		d.conditions.Unknown(v1alpha1.ConditionSucceeded, v1alpha1.ReasonQueued, "waits: "+obstacle.Message)
		d.conditions.Reconciling(obstacle.Reason, obstacle.Message)
	}
	d.next.Wait = report.Wait{For: pollInterval, Because: obstacle.Reason}
}

// Refused is what becomes of a run when an action met an obstacle at the last moment: it waits, as if the obstacle had been seen before.
func Refused(run Run, obstacle *Obstacle, now time.Time) Next {
	d := decider{run: run, now: now, next: Next{Status: *run.Status.DeepCopy()}}
	d.next.Status.ObservedGeneration = run.Generation
	d.conditions = report.ConditionsOf(&d.next.Status.Conditions, run.Generation, now)
	d.queue(obstacle)
	d.next.Status.Phase = Phase(d.next.Status.Conditions)
	return d.next
}

// mirror copies what the agent says of the newest attempt.
func (d *decider) mirror(task *v1alpha1.AgentTask) {
	if task == nil || !d.isNewest(task) {
		return
	}
	status := &d.next.Status
	status.Attempt = Attempt(task)
	status.TaskRef = &v1alpha1.TaskReference{Namespace: task.Namespace, Name: task.Name}
	status.HostName = task.Labels[v1alpha1.LabelHost]
	status.Progress, status.Steps, status.Warnings = task.Status.Progress, task.Status.Steps, task.Status.Warnings
	if status.StartTime == nil {
		status.StartTime = task.CreationTimestamp.DeepCopy()
	}
	for i := range task.Status.Warnings {
		if warning := task.Status.Warnings[i]; !slices.Contains(d.run.Status.Warnings, warning) {
			d.next.Events = append(d.next.Events, report.Warning(warning.Reason, "%s", warning.Message))
		}
	}
}

// reportRelease says whether the host is clean, as far as the agents have told.
func (d *decider) reportRelease() {
	if attempt, release := d.seen.Tasks.Unreleased(); attempt != nil {
		told := meta.FindStatusCondition(attempt.Status.Conditions, v1alpha1.ConditionReleased)
		reason, message := told.Reason, told.Message
		if release != nil && Finished(release) {
			reason, message = v1alpha1.ReasonReleaseFailed, fmt.Sprintf("try %d to clean up failed: %s", Attempt(release), FailureOf(release).Message)
		}
		d.conditions.False(v1alpha1.ConditionCheckpointReleased, reason, message)
		return
	}
	for i := range d.seen.Tasks.Work {
		task := &d.seen.Tasks.Work[i]
		if Finished(task) && meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionReleased) != nil {
			d.conditions.True(v1alpha1.ConditionCheckpointReleased, v1alpha1.ReasonReleased, "nothing of the run is left on the host")
		}
	}
}

// FailureOf is why a task failed, also when its agent did not say.
func FailureOf(task *v1alpha1.AgentTask) v1alpha1.Failure {
	if task.Status.Failure != nil {
		return *task.Status.Failure
	}
	failure := v1alpha1.Failure{Reason: v1alpha1.ReasonFailed, Message: "the agent gave no reason", Action: v1alpha1.FailureRetry}
	if verdict := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionSucceeded); verdict != nil && verdict.Message != "" {
		failure.Message = verdict.Message
	}
	return failure
}

// FinishTime is when the verdict on a task fell.
func FinishTime(task *v1alpha1.AgentTask) time.Time {
	if verdict := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionSucceeded); verdict != nil {
		return verdict.LastTransitionTime.Time
	}
	return task.CreationTimestamp.Time
}

func runningReason(task *v1alpha1.AgentTask) string {
	switch {
	case task.Spec.Cancel:
		return v1alpha1.ReasonReleasing
	case meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionClaimed):
		return v1alpha1.ReasonRunning
	default:
		return v1alpha1.ReasonPlaced
	}
}

func runningMessage(task *v1alpha1.AgentTask) string {
	host := task.Labels[v1alpha1.LabelHost]
	switch runningReason(task) {
	case v1alpha1.ReasonReleasing:
		return "canceled: the agent is asked to stop and to release the host"
	case v1alpha1.ReasonPlaced:
		return "the task is with host " + host
	}
	if n := len(task.Status.Steps); n > 0 {
		return fmt.Sprintf("host %s is at step %s", host, task.Status.Steps[n-1].Name)
	}
	return "host " + host + " works on it"
}
