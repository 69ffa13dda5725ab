package restorejob

import (
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
)

const (
	// restoredSuffix makes the name of a new virtual machine out of the original's.
	restoredSuffix = "-restored"
	// maxMachineName is what Hyper-V accepts as the name of a virtual machine, in characters, less than the longest file name of its disks.
	maxMachineName = 100
)

// newTask is the task of the next attempt, fully resolved. The restore's uid marks what it makes, so that an attempt finds what an earlier one left.
func newTask(job *v1alpha1.RestoreJob, run delegation.Run, seen observation, next delegation.Next) *v1alpha1.AgentTask {
	image := choose(job, seen.candidates)
	payload := &v1alpha1.RestoreTask{
		ImageID:   image.Spec.ImageID,
		Digest:    image.Spec.Summary.Digest,
		Overwrite: job.Spec.Overwrite,
		Switches:  job.Spec.Switches,
		State:     job.Spec.State,
		PowerOn:   job.Spec.PowerOn,
		Disks:     job.Spec.Disks,
		Blocks:    job.Spec.Blocks,
		RestoreID: string(job.UID),

		VirtualMachineID: image.Spec.VirtualMachine.ID,
	}
	if image.Name == "" {
		payload.Namespace = job.Namespace
	}
	machineID := ""
	if job.Spec.Overwrite == v1alpha1.OverwriteReplace {
		machineID = image.Spec.VirtualMachine.ID
	} else {
		payload.Name = newName(job, image)
		if job.Spec.Target != nil {
			payload.Folder = job.Spec.Target.Folder
		}
	}
	task := delegation.NewHostTask(run, next, machineID)
	delegation.SetSite(task, seen.site)
	task.Spec.Restore = payload
	return task
}

// newName is the name of the new virtual machine in Hyper-V.
func newName(job *v1alpha1.RestoreJob, image *v1alpha1.BackupImage) string {
	if job.Spec.Target != nil && job.Spec.Target.Name != "" {
		return job.Spec.Target.Name
	}
	name := []rune(image.Spec.VirtualMachine.Name)
	if longest := maxMachineName - len(restoredSuffix); len(name) > longest {
		name = name[:longest]
	}
	return string(name) + restoredSuffix
}
