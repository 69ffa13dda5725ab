package backupjob

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// newTask is the task of the next attempt, fully resolved. The job's uid is the id of the image: an attempt finds what an earlier one published.
func newTask(job *v1alpha1.BackupJob, run delegation.Run, seen observation, next delegation.Next) *v1alpha1.AgentTask {
	id := inventory.ID(seen.machine)
	task := delegation.NewHostTask(run, next, id)
	delegation.SetSite(task, seen.site)
	task.Spec.Backup = &v1alpha1.BackupTask{
		VirtualMachine: v1alpha1.ImageVirtualMachine{
			ID:         id,
			Name:       seen.machine.Status.Facts.DisplayName,
			ObjectName: seen.machine.Name,
			HostName:   seen.machine.Status.HostName,
		},
		ImageID:          string(job.UID),
		Namespace:        job.Namespace,
		PolicyName:       policyName(job),
		Type:             job.Spec.Type,
		Method:           job.Spec.Method,
		Consistency:      job.Spec.Consistency,
		ChangeTracking:   job.Spec.ChangeTracking,
		UnsupportedDisks: job.Spec.UnsupportedDisks,
		Retention:        job.Spec.Retention,

		OnMethodIneligible: job.Spec.OnMethodIneligible,
	}
	task.Spec.Backup.LastMethod = lastMethod(seen.machine)
	if provider := seen.site.Host.Spec.VSSProvider; provider != nil {
		task.Spec.Backup.VSSProviderID = provider.ID
	}
	if needs := needs(job, seen.machine, seen.site.Host); needs.Cluster != "" {
		task.Labels[v1alpha1.LabelCluster], task.Spec.Backup.SharedVolumes = needs.Cluster, needs.SharedVolumes
	}
	return task
}

func policyName(job *v1alpha1.BackupJob) string {
	if job.Spec.Origin == nil {
		return ""
	}
	return job.Spec.Origin.PolicyRef.Name
}

// newImage is the record of what a task published. It has no owner: nothing that is deleted takes it along (I8).
func newImage(job *v1alpha1.BackupJob, task *v1alpha1.AgentTask) *v1alpha1.BackupImage {
	payload := task.Spec.Backup
	return &v1alpha1.BackupImage{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: job.Namespace,
			Name:      delegation.ChildName(payload.VirtualMachine.ObjectName, payload.ImageID),
			Labels: map[string]string{
				v1alpha1.LabelVirtualMachineID: payload.VirtualMachine.ID,
				v1alpha1.LabelRepository:       task.Spec.Repository.Name,
			},
		},
		Spec: v1alpha1.BackupImageSpec{
			ImageID:        payload.ImageID,
			VirtualMachine: payload.VirtualMachine,
			RepositoryRef:  v1alpha1.RepositoryReference{Name: task.Spec.Repository.Name},
			PolicyName:     payload.PolicyName,
			Retention:      payload.Retention,
			Summary:        *task.Status.Image,
			DeletionPolicy: v1alpha1.DeletionRetain,
		},
	}
}

// record makes the image's object, or finds that it was made before. In a namespace that is being deleted none can be made: the image stays in the
// repository, and an event says so.
func (r *Reconciler) record(ctx context.Context, image *v1alpha1.BackupImage) error {
	err := r.client.Create(ctx, image.DeepCopy())
	switch {
	case err == nil:
		return nil
	case apierrors.IsAlreadyExists(err):
		found := &v1alpha1.BackupImage{}
		if err := r.client.Get(ctx, client.ObjectKeyFromObject(image), found); err != nil {
			return fmt.Errorf("get image %s: %w", image.Name, err)
		}
		if found.Spec.ImageID != image.Spec.ImageID {
			return fmt.Errorf("record image %s: the name is taken by image %s", image.Name, found.Spec.ImageID)
		}
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		r.reporter.Send(image, report.Warning(v1alpha1.ReasonRetained, "image %s stays in repository %s without an object: its namespace is being deleted", image.Spec.ImageID, image.Spec.RepositoryRef.Name))
		return nil
	default:
		return fmt.Errorf("record image %s: %w", image.Name, err)
	}
}
