package backupjob

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/index"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
)

// observation is all that a decision about a job depends on.
type observation struct {
	tasks delegation.Tasks
	// hostReady is the verdict on the agent that has the present task.
	hostReady bool
	// machine is nil when it does not exist. It and site are looked at only when the job needs a place.
	machine *v1alpha1.VirtualMachine
	site    delegation.Site
	// repair is what the newest image of the machine in the repository lost.
	repair *v1alpha1.Repair
}

func (r *Reconciler) observe(ctx context.Context, job *v1alpha1.BackupJob, run delegation.Run) (seen observation, err error) {
	if seen.tasks, err = r.delegator.Tasks(ctx, run); err != nil {
		return seen, err
	}
	if current := seen.tasks.Current(); current != nil && !delegation.Finished(current) {
		host, err := r.delegator.Host(ctx, current.Labels[v1alpha1.LabelHost])
		seen.hostReady = delegation.HostReady(host)
		return seen, err
	}
	if !run.NeedsPlace(seen.tasks) {
		return seen, nil
	}
	machine := &v1alpha1.VirtualMachine{}
	key := types.NamespacedName{Namespace: job.Namespace, Name: job.Spec.VirtualMachineRef.Name}
	if err := r.client.Get(ctx, key, machine); err != nil {
		return seen, client.IgnoreNotFound(err)
	}
	seen.machine = machine
	seen.site, err = r.delegator.Site(ctx, job.Namespace, job.Spec.RepositoryRef.Name, machine.Status.HostName)
	if err != nil {
		return seen, fmt.Errorf("look at the host: %w", err)
	}
	images := &v1alpha1.BackupImageList{}
	if err := r.client.List(ctx, images, client.InNamespace(job.Namespace), index.ImagesOf(inventory.ID(machine))); err != nil {
		return seen, fmt.Errorf("list images: %w", err)
	}
	seen.repair = repairOf(images.Items, job.Spec.RepositoryRef.Name)
	return seen, nil
}

// repairOf is what a backup has to store anew, for the newest image in a repository is damaged. What only older ones lost is on the disks no more.
func repairOf(images []v1alpha1.BackupImage, repository string) *v1alpha1.Repair {
	var newest *v1alpha1.BackupImage
	for i := range images {
		image := &images[i]
		if image.Spec.RepositoryRef.Name == repository && (newest == nil || newest.Spec.Summary.SnapshotTime.Before(&image.Spec.Summary.SnapshotTime)) {
			newest = image
		}
	}
	if newest == nil || !meta.IsStatusConditionFalse(newest.Status.Conditions, v1alpha1.ConditionVerified) {
		return nil
	}
	return &v1alpha1.Repair{Disks: newest.Status.DamagedDisks}
}
