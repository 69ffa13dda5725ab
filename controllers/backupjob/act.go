package backupjob

import (
	"context"
	"fmt"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/catalog"
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
		Repair:           seen.repair,
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

// newImage is the record of what a task published.
func newImage(task *v1alpha1.AgentTask) *v1alpha1.BackupImage {
	payload := task.Spec.Backup
	return catalog.ImageOf(v1alpha1.CatalogEntry{
		ImageID: payload.ImageID, Namespace: payload.Namespace, VirtualMachine: payload.VirtualMachine,
		PolicyName: payload.PolicyName, Retention: payload.Retention, Summary: *task.Status.Image,
	}, task.Spec.Repository.Name)
}

// record makes the image's object, or finds that it was made before. In a namespace that is being deleted none can be made: the image stays in the
// repository, and an event says so.
func (r *Reconciler) record(ctx context.Context, image *v1alpha1.BackupImage) error {
	outcome, err := catalog.Record(ctx, r.client, image)
	switch {
	case err != nil:
		return err
	case outcome == catalog.NameTaken:
		return fmt.Errorf("record image %s: the name is taken by another image", image.Name)
	case outcome == catalog.NoNamespace:
		return fmt.Errorf("record image %s: there is no namespace %s", image.Name, image.Namespace)
	case outcome == catalog.NamespaceEnding:
		r.reporter.Send(image, report.Warning(v1alpha1.ReasonRetained, "image %s stays in repository %s without an object: its namespace is being deleted", image.Spec.ImageID, image.Spec.RepositoryRef.Name))
	}
	return nil
}
