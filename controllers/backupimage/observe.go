package backupimage

import (
	"context"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/index"
)

// observation is all that a decision about an image depends on.
type observation struct {
	// repository is nil when it does not exist.
	repository *v1alpha1.BackupRepository
	// policy that the image was taken for, as it is now; nil when it is gone.
	policy *v1alpha1.BackupPolicy
	// series has all images that retention counts together, the image itself too.
	series []v1alpha1.BackupImage
	// restore names one that reads the image, if any.
	restore string
	// backup names the owner of a backup of the same virtual machine that runs into the same repository, if any: it may stand on the image.
	backup string
	// tasks that were made for the image.
	tasks []v1alpha1.AgentTask
	// share is the newest one of the repository that was verified, if any.
	share *v1alpha1.AgentTask
}

// observe reads from the cache, or from the API server itself, which has no indexes: there, labels narrow down and the rest is left out afterwards.
func (r *Reconciler) observe(ctx context.Context, image *v1alpha1.BackupImage, reader client.Reader) (seen observation, err error) {
	if seen.repository, err = r.delegator.Repository(ctx, image.Spec.RepositoryRef.Name); err != nil {
		return seen, fmt.Errorf("get repository: %w", err)
	}
	if seen.policy, err = policyOf(ctx, image, reader); err != nil {
		return seen, fmt.Errorf("get policy: %w", err)
	}
	indexed := reader == client.Reader(r.client)
	if seen.series, err = seriesOf(ctx, image, reader, indexed); err != nil {
		return seen, fmt.Errorf("list images: %w", err)
	}
	if seen.restore, err = restoreOf(ctx, image, reader, indexed); err != nil {
		return seen, fmt.Errorf("list restores: %w", err)
	}
	if seen.backup, err = backupOf(ctx, image, reader, indexed); err != nil {
		return seen, fmt.Errorf("list backups: %w", err)
	}
	tasks := &v1alpha1.AgentTaskList{}
	options := []client.ListOption{client.InNamespace(r.keeper), client.MatchingLabels{v1alpha1.LabelJobUID: string(image.UID)}}
	if indexed {
		options = []client.ListOption{client.InNamespace(r.keeper), index.TasksOf(image.UID)}
	}
	if err := reader.List(ctx, tasks, options...); err != nil {
		return seen, fmt.Errorf("list tasks: %w", err)
	}
	seen.tasks = tasks.Items
	if seen.share, err = r.shareOf(ctx, seen.repository, reader, indexed); err != nil {
		return seen, fmt.Errorf("list shares that were verified: %w", err)
	}
	return seen, nil
}

// shareOf is the newest share of a repository that was verified to its end.
func (r *Reconciler) shareOf(ctx context.Context, repository *v1alpha1.BackupRepository, reader client.Reader, indexed bool) (newest *v1alpha1.AgentTask, err error) {
	if repository == nil {
		return nil, nil
	}
	options := []client.ListOption{client.InNamespace(r.keeper), client.MatchingLabels{v1alpha1.LabelRepository: repository.Name}}
	if indexed {
		options = []client.ListOption{client.InNamespace(r.keeper), index.TasksOf(repository.UID)}
	}
	tasks := &v1alpha1.AgentTaskList{}
	if err := reader.List(ctx, tasks, options...); err != nil {
		return nil, err
	}
	for i := range tasks.Items {
		task := &tasks.Items[i]
		of := task.Spec.Kind == v1alpha1.TaskScrub && delegation.Succeeded(task) && task.Status.Scrubbed != nil
		if of && (newest == nil || delegation.FinishTime(newest).Before(delegation.FinishTime(task))) {
			newest = task
		}
	}
	return newest, nil
}

func policyOf(ctx context.Context, image *v1alpha1.BackupImage, reader client.Reader) (*v1alpha1.BackupPolicy, error) {
	if image.Spec.PolicyName == "" {
		return nil, nil
	}
	policy := &v1alpha1.BackupPolicy{}
	if err := reader.Get(ctx, types.NamespacedName{Namespace: image.Namespace, Name: image.Spec.PolicyName}, policy); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	if !policy.DeletionTimestamp.IsZero() {
		return nil, nil
	}
	return policy, nil
}

func seriesOf(ctx context.Context, image *v1alpha1.BackupImage, reader client.Reader, indexed bool) ([]v1alpha1.BackupImage, error) {
	spec := image.Spec
	option := client.ListOption(client.MatchingLabels{
		v1alpha1.LabelVirtualMachineID: spec.VirtualMachine.ID, v1alpha1.LabelRepository: spec.RepositoryRef.Name,
	})
	if indexed {
		option = index.ImagesOfSeries(spec.VirtualMachine.ID, spec.PolicyName, spec.RepositoryRef.Name)
	}
	images := &v1alpha1.BackupImageList{}
	if err := reader.List(ctx, images, client.InNamespace(image.Namespace), option); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(images.Items, func(other v1alpha1.BackupImage) bool {
		return other.Spec.PolicyName != spec.PolicyName || other.Spec.RepositoryRef != spec.RepositoryRef || other.Spec.VirtualMachine.ID != spec.VirtualMachine.ID
	}), nil
}

func restoreOf(ctx context.Context, image *v1alpha1.BackupImage, reader client.Reader, indexed bool) (string, error) {
	for _, name := range []string{image.Name, image.Spec.ImageID} {
		options := []client.ListOption{client.InNamespace(image.Namespace)}
		if indexed {
			options = append(options, index.RestoresOf(name))
		}
		restores := &v1alpha1.RestoreJobList{}
		if err := reader.List(ctx, restores, options...); err != nil {
			return "", err
		}
		for i := range restores.Items {
			restore := &restores.Items[i]
			if !delegation.Terminal(restore.Status.RunStatus) && reads(restore, image) {
				return restore.Name, nil
			}
		}
	}
	return "", nil
}

// backupOf looks on all hosts: the machine may have moved.
func backupOf(ctx context.Context, image *v1alpha1.BackupImage, reader client.Reader, indexed bool) (string, error) {
	id := image.Spec.VirtualMachine.ID
	option := client.ListOption(client.MatchingLabels{v1alpha1.LabelVirtualMachineID: id})
	if indexed {
		option = index.TasksOn(id)
	}
	tasks := &v1alpha1.AgentTaskList{}
	if err := reader.List(ctx, tasks, option); err != nil {
		return "", err
	}
	for i := range tasks.Items {
		task := &tasks.Items[i]
		into := task.Spec.Repository
		if task.Spec.Kind == v1alpha1.TaskBackup && !delegation.Finished(task) && into != nil && into.Name == image.Spec.RepositoryRef.Name {
			return task.Spec.Owner.Name, nil
		}
	}
	return "", nil
}

func reads(restore *v1alpha1.RestoreJob, image *v1alpha1.BackupImage) bool {
	source := restore.Spec.Source
	switch {
	case restore.Status.ImageRef != nil:
		return restore.Status.ImageRef.Name == image.Name
	case source.RepositoryRef != nil:
		return *source.RepositoryRef == image.Spec.RepositoryRef && source.ImageID == image.Spec.ImageID
	default:
		return source.ImageRef != nil && source.ImageRef.Name == image.Name
	}
}
