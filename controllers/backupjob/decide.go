package backupjob

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// next is what to do for a job: what is to do for any run, or to record an image.
type next struct {
	delegation.Next
	record *v1alpha1.BackupImage
	status v1alpha1.BackupJobStatus
}

// runOf looks at a job as a run.
func runOf(job *v1alpha1.BackupJob) delegation.Run {
	return delegation.NewRun(Kind, v1alpha1.TaskBackup, job, delegation.Terms{
		Cancel:               job.Spec.Cancel,
		Attempts:             job.Spec.Attempts,
		StartDeadlineSeconds: job.Spec.StartDeadlineSeconds,
		RunDeadlineSeconds:   job.Spec.RunDeadlineSeconds,
	}, job.Status.RunStatus)
}

// decide says what a job does next. A published image is recorded before anything else, whatever becomes of the job: it exists.
func decide(job *v1alpha1.BackupJob, run delegation.Run, seen observation, now time.Time) next {
	if task := published(seen.tasks); task != nil && job.Status.ImageRef == nil && !run.Abandoned() {
		return recordImage(job, task, now)
	}
	step := delegation.Decide(run, delegation.Seen{
		Tasks:     seen.tasks,
		HostReady: seen.hostReady,
		Obstacle:  obstacle(job, seen, now),
		HostName:  seen.site.HostName,
		Success:   success(job),
	}, now)
	n := next{Next: step, status: *job.Status.DeepCopy()}
	n.status.RunStatus = step.Status
	return n
}

func refused(job *v1alpha1.BackupJob, run delegation.Run, o *delegation.Obstacle, now time.Time) next {
	n := next{Next: delegation.Refused(run, o, now), status: *job.Status.DeepCopy()}
	n.status.RunStatus = n.Next.Status
	return n
}

// published is the newest task that has published its image, or nil. All tasks of a job publish the same image.
func published(tasks delegation.Tasks) *v1alpha1.AgentTask {
	for i := len(tasks.Work) - 1; i >= 0; i-- {
		if tasks.Work[i].Status.Image != nil {
			return &tasks.Work[i]
		}
	}
	return nil
}

// recordImage puts the image on record, as an object and in the job. The job remembers that it did so: an image that somebody deletes afterwards does
// not come back.
func recordImage(job *v1alpha1.BackupJob, task *v1alpha1.AgentTask, now time.Time) next {
	n := next{record: newImage(task), status: *job.Status.DeepCopy()}
	n.status.Image = task.Status.Image.DeepCopy()
	n.status.ImageRef = &v1alpha1.ImageReference{Name: n.record.Name}
	conditions := report.ConditionsOf(&n.status.Conditions, job.Generation, now)
	excluded := excludedDisks(task.Status.Image)
	if len(excluded) == 0 {
		conditions.True(v1alpha1.ConditionComplete, v1alpha1.ReasonAllDisksIncluded, "the image has all disks")
		return n
	}
	message := "the image lacks: " + strings.Join(excluded, "; ")
	conditions.False(v1alpha1.ConditionComplete, v1alpha1.ReasonDisksExcluded, message)
	n.Events = []report.Event{report.Warning(v1alpha1.ReasonDisksExcluded, "%s", message)}
	return n
}

func excludedDisks(image *v1alpha1.ImageSummary) (disks []string) {
	for _, disk := range image.Disks {
		if disk.Included == v1alpha1.DiskExcluded {
			disks = append(disks, fmt.Sprintf("%s (%s: %s)", disk.Key, disk.Reason, disk.Message))
		}
	}
	return disks
}

func success(job *v1alpha1.BackupJob) delegation.Verdict {
	if job.Status.ImageRef == nil {
		// The schema of a task cannot demand it, so an agent could say so.
		return delegation.Verdict{Reason: v1alpha1.ReasonSucceeded, Message: "the agent published no image"}
	}
	return delegation.Verdict{Reason: v1alpha1.ReasonImagePublished, Message: "published image " + job.Status.ImageRef.Name}
}

// obstacle is the first thing in the way of the next task.
func obstacle(job *v1alpha1.BackupJob, seen observation, now time.Time) *delegation.Obstacle {
	if o := machineObstacle(job.Spec.VirtualMachineRef.Name, seen.machine, now); o != nil {
		return o
	}
	return seen.site.Obstacle(needs(job, seen.machine, seen.site.Host))
}

// absence is how long a virtual machine may be missing before it counts as gone: one that is restored in place or moves to another host is nowhere
// for a moment.
const absence = time.Minute

func machineObstacle(name string, machine *v1alpha1.VirtualMachine, now time.Time) *delegation.Obstacle {
	if machine == nil {
		return delegation.Stalls(v1alpha1.ReasonVirtualMachineNotFound, "there is no VirtualMachine %s in this namespace: see kubectl get hvvm", name)
	}
	present := meta.FindStatusCondition(machine.Status.Conditions, v1alpha1.ConditionPresent)
	switch {
	case machine.Status.Facts == nil || machine.Status.HostName == "" || present == nil:
		return delegation.Waits(v1alpha1.ReasonHostNotFound, "it is not known yet which host has virtual machine %s", name)
	case isDuplicate(machine):
		return delegation.Stalls(v1alpha1.ReasonDuplicateID, "several virtual machines have the id of %s: give all but one a new id", name)
	case inventory.ID(machine) == "":
		return delegation.Stalls(v1alpha1.ReasonVirtualMachineNotFound, "the id of virtual machine %s cannot be told: restore its label %s", name, v1alpha1.LabelVirtualMachineID)
	case present.Status == "False" && now.Sub(present.LastTransitionTime.Time) < absence:
		return delegation.Waits(v1alpha1.ReasonVirtualMachineGone, "virtual machine %s was there until now: %s", name, present.Message)
	case present.Status == "False":
		return delegation.Fails(v1alpha1.ReasonVirtualMachineGone, "virtual machine %s is gone: %s", name, present.Message)
	default:
		return nil
	}
}

func isDuplicate(machine *v1alpha1.VirtualMachine) bool {
	for _, concern := range machine.Status.Facts.Concerns {
		if concern.Reason == v1alpha1.ReasonDuplicateID {
			return true
		}
	}
	return false
}
