package backuprepository

import (
	"fmt"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

const (
	// changeDeadline bounds the task: it waits for a maintenance that is under way.
	changeDeadline = 24 * time.Hour
	// changeRetry is the pause after a failure.
	changeRetry = time.Minute
)

// password has the keeper make the repository open with the Secret's password when the Secret has a previous one too. It waits until all agents have both,
// so that each opens the repository before and after.
func (d *decision) password(repository *v1alpha1.BackupRepository, seen observed, now time.Time) {
	if !seen.credential.usable() || !seen.credential.changing() {
		d.remove = append(d.remove, tasksOf(seen.changes)...)
		if seen.credential.usable() {
			meta.RemoveStatusCondition(&d.status.Conditions, v1alpha1.ConditionPasswordChanged)
		}
		return
	}
	basis := "password-" + repository.Name + "-" + digest(string(repository.UID), seen.credential.version) + "-"
	pending, last := d.latest(seen.changes, basis)
	conditions := report.ConditionsOf(&d.status.Conditions, repository.Generation, now)
	switch {
	case last != nil && delegation.Succeeded(last):
		conditions.True(v1alpha1.ConditionPasswordChanged, v1alpha1.ReasonPasswordChanged, fmt.Sprintf(
			"the repository opens with password and no longer with previousPassword: remove %s from Secret %s", v1alpha1.SecretKeyPreviousPassword, repository.Spec.SecretName))
		return
	case last != nil && pending == nil:
		failure := delegation.FailureOf(last)
		words, known := failures[failure.Reason]
		if !known {
			words.message = "the keeper could not change the password"
		}
		conditions.False(v1alpha1.ConditionPasswordChanged, failure.Reason, fmt.Sprintf("%s (details: AgentTask %s); it tries again", words.message, last.Name))
	default:
		conditions.Unknown(v1alpha1.ConditionPasswordChanged, v1alpha1.ReasonChangingPassword, "the keeper changes the password: keep both in the Secret")
	}
	due, retry := 0, time.Time{}
	if last != nil {
		retry = delegation.FinishTime(last).Add(changeRetry)
		due = int(retry.Unix())
	}
	switch {
	case pending != nil && !overdue(pending, now), d.mark != "": // the watch on tasks wakes it, and the distribution
	case now.Before(retry):
		d.wait = d.wait.Sooner(report.Until(now, retry, "the keeper tries again"))
	default:
		if pending != nil {
			d.remove = append(d.remove, pending)
		}
		d.change = basis + strconv.Itoa(due)
	}
}
