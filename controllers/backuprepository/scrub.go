package backuprepository

import (
	"fmt"
	"strconv"
	"time"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

const (
	// places is how many shares a round can be cut into: image.Places.
	places = 1 << 16
	// shareInterval is how often a share is read, shareRetry how soon again after a failure.
	shareInterval = 24 * time.Hour
	shareRetry    = time.Hour
	// shareDeadline bounds a share. What was read until then counts.
	shareDeadline = 24 * time.Hour
	// defaultRound is how long a round takes where the spec says nothing, minRound the least.
	defaultRound = 30 * 24 * time.Hour
	minRound     = shareInterval
)

// share is the part of the repository that is due to be read.
type share struct {
	name string // empty when none is
	task v1alpha1.ScrubTask
}

// verify has the keeper read everything in the repository once in a round, a share each day. How far it should be follows from the time alone, so what
// was missed is caught up with the next share.
func (d *decision) verify(repository *v1alpha1.BackupRepository, seen observed, now time.Time) {
	basis := "scrub-" + repository.Name + "-" + digest(string(repository.UID)) + "-"
	pending, last := d.latest(seen.shares, basis)
	if last != nil {
		d.verified(repository, last, now)
	}
	settings := repository.Spec.Verification
	if settings != nil && settings.Suspend {
		if pending != nil {
			d.remove = append(d.remove, pending)
		}
		return
	}
	due := d.nextShare(repository, last)
	d.nextShareAt(due)
	if !d.begins(pending, due, now, "the next share is verified then") {
		return
	}
	if d.status.Verification == nil {
		d.status.Verification = &v1alpha1.VerificationStatus{StartTime: report.Time(now.Add(-shareInterval))}
		d.nextShareAt(due)
	}
	d.share = share{name: basis + strconv.FormatInt(due.Unix(), 10), task: shareOf(repository, *d.status.Verification, now)}
}

// nextShare is when the next share is due.
func (d *decision) nextShare(repository *v1alpha1.BackupRepository, last *v1alpha1.AgentTask) time.Time {
	switch before := d.status.Verification; {
	case last != nil && !delegation.Succeeded(last):
		return delegation.FinishTime(last).Add(shareRetry)
	case before != nil && before.LastShareTime != nil:
		return before.LastShareTime.Add(shareInterval)
	default:
		return repository.CreationTimestamp.Add(shareInterval)
	}
}

func (d *decision) nextShareAt(due time.Time) {
	if d.status.Verification != nil {
		at := report.Time(due)
		d.status.Verification.NextTime = &at
	}
}

// shareOf goes to where the round should be by now.
func shareOf(repository *v1alpha1.BackupRepository, status v1alpha1.VerificationStatus, now time.Time) v1alpha1.ScrubTask {
	due := float64(places) * float64(now.Sub(status.StartTime.Time)) / float64(roundOf(repository))
	task := v1alpha1.ScrubTask{
		From: status.Position, To: max(status.Position+1, int32(min(due+1, places))), Again: status.DamagedPacks,
	}
	if settings := repository.Spec.Verification; settings != nil {
		task.Bandwidth = settings.Bandwidth.DeepCopy()
	}
	return task
}

func roundOf(repository *v1alpha1.BackupRepository) time.Duration {
	settings := repository.Spec.Verification
	if settings == nil || settings.Every == "" {
		return defaultRound
	}
	every, err := settings.Every.Duration()
	if err != nil {
		return defaultRound
	}
	return max(every, minRound)
}

// verified takes over what a share found, once, also one that was not read to its end.
func (d *decision) verified(repository *v1alpha1.BackupRepository, task *v1alpha1.AgentTask, now time.Time) {
	status := &v1alpha1.VerificationStatus{StartTime: report.Time(task.CreationTimestamp.Add(-shareInterval))}
	if d.status.Verification != nil {
		status = d.status.Verification.DeepCopy()
	}
	d.status.Verification = status
	takeOver(status, task, roundOf(repository))
	conditions := report.ConditionsOf(&d.status.Conditions, repository.Generation, now)
	progress := fmt.Sprintf("%d %% of the present round is read", 100*int64(status.Position)/places)
	switch {
	case status.Damaged > 0:
		conditions.False(v1alpha1.ConditionVerified, v1alpha1.ReasonDamaged, fmt.Sprintf("%d stored pieces are damaged, and %d images need them: Verified of each says "+
			"which of its disks. The next backup of a virtual machine stores anew what it still has of them. %s", status.Damaged, status.DamagedImages, progress))
	case delegation.Succeeded(task):
		conditions.True(v1alpha1.ConditionVerified, v1alpha1.ReasonVerified, "what was read is sound; "+progress)
	default:
		conditions.Unknown(v1alpha1.ConditionVerified, v1alpha1.ReasonVerificationFailed, fmt.Sprintf(
			"the last share could not be read (%s; details: AgentTask %s): the keeper tries again within the hour", delegation.FailureOf(task).Reason, task.Name))
	}
}

// takeOver goes on in the round by what a share has read, and ends the round with its last one.
func takeOver(status *v1alpha1.VerificationStatus, task *v1alpha1.AgentTask, round time.Duration) {
	found, ended := task.Status.Scrubbed, report.Time(delegation.FinishTime(task))
	if found == nil || status.LastShareTime != nil && !status.LastShareTime.Before(&ended) {
		return
	}
	status.LastShareTime = &ended
	status.Position, status.Bytes = found.Position, status.Bytes+found.Bytes
	status.BytesPerSecond = found.Bytes / max(1, int64(ended.Sub(task.CreationTimestamp.Time)/time.Second))
	status.Damaged, status.DamagedPacks = found.Damaged, found.DamagedPacks
	if delegation.Succeeded(task) {
		status.DamagedImages = int32(len(found.Images)) + found.OtherImages
	}
	if status.Position < places {
		return
	}
	status.LastRoundTime, status.LastRoundBytes = &ended, status.Bytes
	status.Position, status.Bytes = 0, 0
	status.StartTime = report.Time(status.StartTime.Add(round))
	if latest := report.Time(ended.Add(-shareInterval)); status.StartTime.Before(&latest) {
		status.StartTime = latest
	}
}
