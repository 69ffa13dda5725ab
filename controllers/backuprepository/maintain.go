package backuprepository

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

const (
	// quickInterval and fullInterval are how often a repository is maintained. The index grows by the hour; freeing costs a look at all of it. A new
	// repository has nothing to maintain: its first times are that long after its declaration.
	quickInterval = time.Hour
	fullInterval  = 24 * time.Hour
	// quickDeadline and fullDeadline bound the tasks.
	quickDeadline = time.Hour
	fullDeadline  = 24 * time.Hour
)

// upkeep is the maintenance that is due.
type upkeep struct {
	name     string // empty when none is
	mode     v1alpha1.MaintainMode
	deadline time.Time
}

// maintain has the keeper maintain the repository when it is due, one task at a time, and takes over what the last one found. After a failure it is
// tried again an hour later.
func (d *decision) maintain(repository *v1alpha1.BackupRepository, seen observed, now time.Time) {
	basis := "maintain-" + repository.Name + "-" + digest(string(repository.UID)) + "-"
	pending, last := d.latest(seen.maintenance, basis)
	conditions := report.ConditionsOf(&d.status.Conditions, repository.Generation, now)
	if last != nil {
		d.maintained(last, conditions)
	}
	next, full := d.dueTimes(repository, last)
	if d.status.Maintenance != nil {
		at := report.Time(next)
		d.status.Maintenance.NextTime = &at
	}
	if !d.begins(pending, next, now, "the repository is maintained then") {
		return
	}
	d.upkeep = upkeep{name: basis + strconv.FormatInt(next.Unix(), 10), mode: v1alpha1.MaintainQuick, deadline: now.Add(quickDeadline)}
	if !now.Before(full) {
		d.upkeep.mode, d.upkeep.deadline = v1alpha1.MaintainFull, now.Add(fullDeadline)
	}
}

// begins says whether a task of a kind that is due at a time is made now. why is what the repository is looked at again for. A pending one that is overdue
// is removed.
func (d *decision) begins(pending *v1alpha1.AgentTask, due, now time.Time, why string) bool {
	switch {
	case pending != nil && !overdue(pending, now):
		return false // the watch on tasks wakes it
	case now.Before(due):
		d.wait = d.wait.Sooner(report.Until(now, due, why))
		return false
	case !meta.IsStatusConditionTrue(d.status.Conditions, v1alpha1.ConditionReady):
		return false // the next probe wakes it
	case pending != nil:
		d.remove = append(d.remove, pending)
	}
	return true
}

// latest are the newest tasks without and with a verdict among those that are named after a basis. All others are removed.
func (d *decision) latest(tasks []v1alpha1.AgentTask, basis string) (pending, last *v1alpha1.AgentTask) {
	for i := range tasks {
		task := &tasks[i]
		switch {
		case !strings.HasPrefix(task.Name, basis):
			d.remove = append(d.remove, task)
		case delegation.Finished(task):
			last = d.newer(last, task)
		default:
			pending = d.newer(pending, task)
		}
	}
	return pending, last
}

// dueTimes are when the repository is to be maintained next, and fully.
func (d *decision) dueTimes(repository *v1alpha1.BackupRepository, last *v1alpha1.AgentTask) (next, full time.Time) {
	next, full = repository.CreationTimestamp.Add(quickInterval), repository.CreationTimestamp.Add(fullInterval)
	if before := d.status.Maintenance; before != nil {
		if before.LastQuickTime != nil {
			next = before.LastQuickTime.Add(quickInterval)
		}
		if before.LastFullTime != nil {
			full = before.LastFullTime.Add(fullInterval)
		}
	}
	if last != nil {
		next = delegation.FinishTime(last).Add(quickInterval)
	}
	return next, full
}

// maintained takes over what a maintenance did, or why it failed.
func (d *decision) maintained(task *v1alpha1.AgentTask, conditions report.Conditions) {
	status := &v1alpha1.MaintenanceStatus{}
	if d.status.Maintenance != nil {
		status = d.status.Maintenance.DeepCopy()
	}
	d.status.Maintenance = status
	result := task.Status.Maintained
	if !delegation.Succeeded(task) || result == nil {
		reason := delegation.FailureOf(task).Reason
		words, known := neglect[reason]
		if !known {
			words = "the keeper tries again within the hour"
		}
		conditions.False(v1alpha1.ConditionMaintained, reason, fmt.Sprintf("%s (details: AgentTask %s)", words, task.Name))
		return
	}
	at := report.Time(delegation.FinishTime(task))
	status.LastQuickTime, status.IndexBlobs = &at, result.IndexBlobs
	if task.Spec.Maintain != nil && task.Spec.Maintain.Mode == v1alpha1.MaintainFull {
		status.LastFullTime, status.FreedBytes, status.UnusedBytes = &at, result.FreedBytes, result.UnusedBytes
	}
	conditions.True(v1alpha1.ConditionMaintained, v1alpha1.ReasonSucceeded, "what deleted images leave is freed, and the index is kept short")
}

// neglect says what it means that a repository is not maintained. The words are ours, as with probes.
var neglect = map[string]string{
	v1alpha1.ReasonClockDistrusted: "NOTHING IS DELETED: the clocks of keeper and storage differ, or time has leapt since they were looked at last. " +
		"Check both clocks; after a leap nothing is deleted for three days",
	v1alpha1.ReasonDamaged: "NOTHING IS FREED: parts of an image cannot be read. Have the newest images verified; what is damaged is repaired by " +
		"the next full backup of its virtual machine, or goes when the image does",
	v1alpha1.ReasonRepositoryFull: "the repository is too full to be maintained: free some space there",
}
