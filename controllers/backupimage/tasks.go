package backupimage

import (
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// verifyAttempts is how often a verification is tried that could not be done.
const verifyAttempts = 3

// eraseName is the name of the task that deletes an image.
func eraseName(image *v1alpha1.BackupImage, attempt int32) string {
	return delegation.TaskName(v1alpha1.TaskDeleteImage, string(image.UID), attempt)
}

// verifyName is the name of the task that answers the present verifyRequest: each request has tasks of its own.
func verifyName(image *v1alpha1.BackupImage, attempt int32) string {
	return delegation.TaskName(v1alpha1.TaskVerify, delegation.ChildName(string(image.UID), image.Spec.VerifyRequest), attempt)
}

// newestTask is the newest task whose name follows the pattern, or nil.
func (d *decider) newestTask(name func(*v1alpha1.BackupImage, int32) string) (newest *v1alpha1.AgentTask) {
	for i := range d.seen.tasks {
		task := &d.seen.tasks[i]
		attempt := delegation.Attempt(task)
		if task.Name == name(d.image, attempt) && (newest == nil || attempt > delegation.Attempt(newest)) {
			newest = task
		}
	}
	return newest
}

// make has the keeper try, once more if it did before.
func (d *decider) make(action action, name func(*v1alpha1.BackupImage, int32) string, last *v1alpha1.AgentTask, deadline time.Duration) {
	d.next.action, d.next.attempt = action, 1
	if last != nil {
		d.next.attempt = delegation.Attempt(last) + 1
	}
	d.next.taskName = name(d.image, d.next.attempt)
	d.next.deadline = d.now.Add(deadline)
}

// verify answers the present request, if it was not answered yet.
func (d *decider) verify() {
	request := d.image.Spec.VerifyRequest
	if request == "" || request == d.next.status.LastVerifyRequest {
		return
	}
	task := d.newestTask(verifyName)
	switch {
	case task != nil && delegation.Succeeded(task):
		d.answer(task)
		d.next.status.DamagedDisks = nil
		d.conditions.True(v1alpha1.ConditionVerified, v1alpha1.ReasonVerified, "the whole image was read and found sound")
	case task != nil && !delegation.Finished(task):
		d.conditions.Reconciling(v1alpha1.ReasonProgressing, "the keeper verifies the image") // the watch on tasks wakes it
	case task != nil && isDamage(delegation.FailureOf(task)):
		d.answer(task)
		d.next.status.DamagedDisks = task.Status.DamagedDisks
		d.conditions.False(v1alpha1.ConditionVerified, v1alpha1.ReasonDamaged, delegation.FailureOf(task).Message)
	case task != nil && (delegation.Attempt(task) >= verifyAttempts || delegation.FailureOf(task).Action == v1alpha1.FailureStall):
		d.giveUp(task)
	case task != nil && !d.retryDue(task):
		d.conditions.Reconciling(v1alpha1.ReasonVerificationFailed, fmt.Sprintf("verification failed: %s; it is tried again", delegation.FailureOf(task).Message))
		d.next.wait = d.next.wait.Sooner(report.Until(d.now, retryTime(task), "the keeper tries again"))
	case d.obstacle() != nil:
		d.conditions.Reconciling(d.obstacle().Reason, d.obstacle().Message)
		d.next.wait = d.next.wait.Sooner(report.Wait{For: pollInterval, Because: d.obstacle().Message})
	default:
		d.conditions.Reconciling(v1alpha1.ReasonProgressing, "the keeper is asked to verify the image")
		d.make(verify, verifyName, task, verifyDeadline)
	}
}

// scrubbed takes over what the verification that goes over the repository in turn says of the image, unless the image was verified whole since. What it
// found damaged is sound again when a later share, which looks at that again, does not name the image any more.
func (d *decider) scrubbed() {
	share, status := d.seen.share, &d.next.status
	if share == nil || status.LastVerifyTime != nil && !status.LastVerifyTime.Time.Before(delegation.FinishTime(share)) {
		return
	}
	found := share.Status.Scrubbed
	mine := slices.IndexFunc(found.Images, func(i v1alpha1.DamagedImage) bool {
		return i.ImageID == d.image.Spec.ImageID && i.VirtualMachineID == d.image.Spec.VirtualMachine.ID
	})
	before := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionVerified)
	switch {
	case mine >= 0:
		status.DamagedDisks = found.Images[mine].Disks
		d.conditions.False(v1alpha1.ConditionVerified, v1alpha1.ReasonDamageFound, found.Images[mine].Message)
	case found.OtherImages == 0 && before != nil && before.Reason == v1alpha1.ReasonDamageFound:
		status.DamagedDisks = nil
		d.conditions.True(v1alpha1.ConditionVerified, v1alpha1.ReasonRepaired, "what was found damaged was stored anew by a later backup")
	}
}

// giveUp answers that nothing was found out. What was known of the image before stays.
func (d *decider) giveUp(task *v1alpha1.AgentTask) {
	d.answer(task)
	failure := delegation.FailureOf(task)
	message := fmt.Sprintf("the image could not be verified (%s: %s): change verifyRequest to try again", failure.Reason, failure.Message)
	if meta.FindStatusCondition(d.next.status.Conditions, v1alpha1.ConditionVerified) == nil {
		d.conditions.Unknown(v1alpha1.ConditionVerified, v1alpha1.ReasonVerificationFailed, message)
	}
	d.next.events = append(d.next.events, report.Warning(v1alpha1.ReasonVerificationFailed, "%s", message))
}

func (d *decider) answer(task *v1alpha1.AgentTask) {
	at := report.Time(delegation.FinishTime(task))
	d.next.status.LastVerifyRequest, d.next.status.LastVerifyTime = d.image.Spec.VerifyRequest, &at
}

// isDamage tells damage from a verification that could not be done.
func isDamage(failure v1alpha1.Failure) bool {
	return slices.Contains([]string{v1alpha1.ReasonDamaged, v1alpha1.ReasonImageNotFound, v1alpha1.ReasonImageMismatch}, failure.Reason)
}

func (d *decider) retryDue(task *v1alpha1.AgentTask) bool { return !d.now.Before(retryTime(task)) }

func retryTime(task *v1alpha1.AgentTask) time.Time {
	return delegation.FinishTime(task).Add(delegation.Backoff(delegation.Attempt(task)))
}
