package restorejob

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// next is what to do for a restore.
type next struct {
	delegation.Next
	status v1alpha1.RestoreJobStatus
}

// runOf looks at a restore as a run.
func runOf(job *v1alpha1.RestoreJob) delegation.Run {
	return delegation.NewRun(Kind, v1alpha1.TaskRestore, job, delegation.Terms{
		Cancel:               job.Spec.Cancel,
		Attempts:             job.Spec.Attempts,
		StartDeadlineSeconds: job.Spec.StartDeadlineSeconds,
		RunDeadlineSeconds:   job.Spec.RunDeadlineSeconds,
	}, job.Status.RunStatus)
}

// decide says what a restore does next. The image is chosen, and the choice on record, before anything is done with it: retention spares it from then
// on, and every attempt uses the same.
func decide(job *v1alpha1.RestoreJob, run delegation.Run, seen observation, now time.Time) next {
	image := choose(job, seen.candidates)
	step := delegation.Decide(run, delegation.Seen{
		Tasks:     seen.tasks,
		HostReady: seen.hostReady,
		Obstacle:  obstacle(job, image, seen),
		HostName:  seen.site.HostName,
		Success:   success(seen.tasks.Current()),
	}, now)
	n := next{Next: step, status: *job.Status.DeepCopy()}
	if image != nil && image.Name != "" && job.Status.ImageRef == nil && (step.Action == delegation.Hold || step.Action == delegation.Place) {
		n.Next = delegation.Next{Status: job.Status.RunStatus}
		n.status.ImageRef = &v1alpha1.ImageReference{Name: image.Name}
		return n
	}
	n.status.RunStatus = step.Status
	if current := seen.tasks.Current(); current != nil && delegation.Succeeded(current) {
		n.status.Restored = current.Status.Restored
		reportComplete(&n, job, image, now)
	}
	return n
}

func refused(job *v1alpha1.RestoreJob, run delegation.Run, o *delegation.Obstacle, now time.Time) next {
	n := next{Next: delegation.Refused(run, o, now), status: *job.Status.DeepCopy()}
	n.status.RunStatus = n.Next.Status
	return n
}

// reportComplete says whether the restore brought all disks back that were asked for. It cannot bring back what the image lacks.
func reportComplete(n *next, job *v1alpha1.RestoreJob, image *v1alpha1.BackupImage, now time.Time) {
	if image == nil || image.Name == "" || meta.FindStatusCondition(n.status.Conditions, v1alpha1.ConditionComplete) != nil {
		return
	}
	conditions := report.ConditionsOf(&n.status.Conditions, job.Generation, now)
	if len(job.Spec.Disks) > 0 {
		conditions.True(v1alpha1.ConditionComplete, v1alpha1.ReasonAllDisksIncluded, "the disks that were asked for were restored: "+strings.Join(job.Spec.Disks, ", "))
		return
	}
	var lacking []string
	for _, disk := range image.Spec.Summary.Disks {
		if disk.Included == v1alpha1.DiskExcluded {
			lacking = append(lacking, disk.Key)
		}
	}
	if len(lacking) == 0 {
		conditions.True(v1alpha1.ConditionComplete, v1alpha1.ReasonAllDisksIncluded, "all disks of the virtual machine were restored")
		return
	}
	message := "the image lacks these disks of the virtual machine: " + strings.Join(lacking, ", ")
	conditions.False(v1alpha1.ConditionComplete, v1alpha1.ReasonDisksExcluded, message)
	n.Events = append(n.Events, report.Warning(v1alpha1.ReasonDisksExcluded, "%s", message))
}

func success(task *v1alpha1.AgentTask) delegation.Verdict {
	verdict := delegation.Verdict{Reason: v1alpha1.ReasonRestored, Message: "restored"}
	switch {
	case task == nil || task.Status.Restored == nil:
	case task.Status.Restored.Method == v1alpha1.RestoreFiles:
		verdict.Message = fmt.Sprintf("restored %d disks to files on host %s", len(task.Status.Restored.Paths), task.Labels[v1alpha1.LabelHost])
	default:
		verdict.Message = fmt.Sprintf("restored as virtual machine %s on host %s", task.Status.Restored.Name, task.Labels[v1alpha1.LabelHost])
		if c := task.Status.Restored.Checkpoints; c != nil && c.Restored < c.InImage {
			verdict.Message += fmt.Sprintf("; checkpoints: restored %d of %d, %s", c.Restored, c.InImage, c.Reason)
		}
	}
	return verdict
}

// obstacle is the first thing in the way of the next task.
func obstacle(job *v1alpha1.RestoreJob, image *v1alpha1.BackupImage, seen observation) *delegation.Obstacle {
	if image == nil {
		return noImage(job)
	}
	if o := notReady(image); image.Name != "" && o != nil {
		return o
	}
	if job.Spec.Overwrite != v1alpha1.OverwriteReplace {
		if seen.site.Host == nil && wantedHost(job) == "" {
			return delegation.Stalls(v1alpha1.ReasonHostNotFound, "host %s, which the image came from, does not exist any more: make another restore with target.hostName", image.Spec.VirtualMachine.HostName)
		}
		return seen.site.Obstacle(delegation.Needs{})
	}
	if seen.original == nil || !meta.IsStatusConditionTrue(seen.original.Status.Conditions, v1alpha1.ConditionPresent) || inventory.ID(seen.original) != image.Spec.VirtualMachine.ID {
		return delegation.Stalls(v1alpha1.ReasonVirtualMachineGone, "no host has virtual machine %s, so that there is nothing to replace: make another restore with overwrite Never", image.Spec.VirtualMachine.ObjectName)
	}
	return seen.site.Obstacle(delegation.Needs{MachineID: image.Spec.VirtualMachine.ID})
}

// notReady is the obstacle of an image that cannot be restored now. What is damaged does not mend by waiting: a repaired repository must be verified, or
// another image chosen.
func notReady(image *v1alpha1.BackupImage) *delegation.Obstacle {
	ready := meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case ready == nil:
		return delegation.Waits(v1alpha1.ReasonImageNotReady, "image %s is not ready: it was not looked at yet", image.Name)
	case ready.Status == metav1.ConditionTrue:
		return nil
	case ready.Reason == v1alpha1.ReasonDamaged:
		return delegation.Stalls(v1alpha1.ReasonDamaged,
			"image %s is damaged: %s; restore another image, or repair the repository and have the image verified again", image.Name, ready.Message)
	}
	return delegation.Waits(v1alpha1.ReasonImageNotReady, "image %s is not ready: %s", image.Name, ready.Message)
}

func noImage(job *v1alpha1.RestoreJob) *delegation.Obstacle {
	source := job.Spec.Source
	switch {
	case source.ImageRef != nil:
		return delegation.Stalls(v1alpha1.ReasonImageNotFound, "there is no BackupImage %s in this namespace: see kubectl get hvimg", source.ImageRef.Name)
	case job.Status.ImageRef != nil:
		return delegation.Stalls(v1alpha1.ReasonImageNotFound, "BackupImage %s was chosen, and is gone", job.Status.ImageRef.Name)
	case source.VirtualMachine.AsOf != nil:
		return delegation.Stalls(v1alpha1.ReasonNoImage, "there is no ready image of %s from %s or before", source.VirtualMachine.Name, source.VirtualMachine.AsOf.UTC().Format(time.RFC3339))
	default:
		return delegation.Stalls(v1alpha1.ReasonNoImage, "there is no ready image of %s", source.VirtualMachine.Name)
	}
}

// choose is the image to restore, or nil: the named one as it is, else the newest ready one that is old enough.
func choose(job *v1alpha1.RestoreJob, candidates []v1alpha1.BackupImage) (chosen *v1alpha1.BackupImage) {
	if job.Spec.Source.VirtualMachine == nil || job.Status.ImageRef != nil {
		if len(candidates) == 0 {
			return nil
		}
		return &candidates[0]
	}
	asOf := job.Spec.Source.VirtualMachine.AsOf
	for i := range candidates {
		image := &candidates[i]
		taken := image.Spec.Summary.SnapshotTime
		switch {
		case !meta.IsStatusConditionTrue(image.Status.Conditions, v1alpha1.ConditionReady):
		case asOf != nil && taken.After(asOf.Time):
		case chosen == nil || taken.After(chosen.Spec.Summary.SnapshotTime.Time):
			chosen = image
		}
	}
	return chosen
}

// stored is an image that is named by its repository, as far as it is known: it has no name, for no BackupImage may stand for it. What it says of itself
// the agent reads.
func stored(job *v1alpha1.RestoreJob) v1alpha1.BackupImage {
	return v1alpha1.BackupImage{Spec: v1alpha1.BackupImageSpec{ImageID: job.Spec.Source.ImageID, RepositoryRef: *job.Spec.Source.RepositoryRef}}
}

// targetHost is where the restore goes: in place of the original, else where it is told to, else where the image came from.
func targetHost(job *v1alpha1.RestoreJob, image *v1alpha1.BackupImage, original *v1alpha1.VirtualMachine) string {
	if job.Spec.Overwrite == v1alpha1.OverwriteReplace && original != nil {
		return original.Status.HostName
	}
	if wanted := wantedHost(job); wanted != "" {
		return wanted
	}
	return image.Spec.VirtualMachine.HostName
}

func wantedHost(job *v1alpha1.RestoreJob) string {
	if job.Spec.Target == nil {
		return ""
	}
	return job.Spec.Target.HostName
}
