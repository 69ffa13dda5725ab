package restorejob

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/index"
)

// observation is all that a decision about a restore depends on.
type observation struct {
	tasks delegation.Tasks
	// hostReady is the verdict on the agent that has the present task.
	hostReady bool
	// candidates are the images that the restore may use: the named one, or those of the virtual machine. They, the original and the site are looked
	// at only when the restore needs a place.
	candidates []v1alpha1.BackupImage
	// original is the virtual machine as it is now, or nil.
	original *v1alpha1.VirtualMachine
	site     delegation.Site
}

func (r *Reconciler) observe(ctx context.Context, job *v1alpha1.RestoreJob, run delegation.Run) (seen observation, err error) {
	if seen.tasks, err = r.delegator.Tasks(ctx, run); err != nil {
		return seen, err
	}
	if seen.candidates, err = r.candidates(ctx, job); err != nil {
		return seen, fmt.Errorf("look for images: %w", err)
	}
	if current := seen.tasks.Current(); current != nil && !delegation.Finished(current) {
		host, err := r.delegator.Host(ctx, current.Labels[v1alpha1.LabelHost])
		seen.hostReady = delegation.HostReady(host)
		return seen, err
	}
	image := choose(job, seen.candidates)
	if !run.NeedsPlace(seen.tasks) || image == nil {
		return seen, nil
	}
	original := &v1alpha1.VirtualMachine{}
	key := types.NamespacedName{Namespace: job.Namespace, Name: image.Spec.VirtualMachine.ObjectName}
	if err := r.client.Get(ctx, key, original); client.IgnoreNotFound(err) != nil {
		return seen, fmt.Errorf("get virtual machine: %w", err)
	} else if err == nil {
		seen.original = original
	}
	host := targetHost(job, image, seen.original)
	if seen.site, err = r.delegator.Site(ctx, job.Namespace, image.Spec.RepositoryRef.Name, host); err != nil {
		return seen, fmt.Errorf("look at the host: %w", err)
	}
	return seen, nil
}

// candidates are the images in question. Once one was chosen, it is the only one.
func (r *Reconciler) candidates(ctx context.Context, job *v1alpha1.RestoreJob) ([]v1alpha1.BackupImage, error) {
	if job.Spec.Source.RepositoryRef != nil {
		return []v1alpha1.BackupImage{stored(job)}, nil
	}
	ref := job.Status.ImageRef
	if ref == nil {
		ref = job.Spec.Source.ImageRef
	}
	if ref == nil {
		images := &v1alpha1.BackupImageList{}
		err := r.client.List(ctx, images, client.InNamespace(job.Namespace), index.ImagesOfObject(job.Spec.Source.VirtualMachine.Name))
		return images.Items, err
	}
	image := &v1alpha1.BackupImage{}
	if err := r.client.Get(ctx, types.NamespacedName{Namespace: job.Namespace, Name: ref.Name}, image); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return []v1alpha1.BackupImage{*image}, nil
}
