// Package catalog makes the record of an image, its BackupImage, out of what is known of it: when a backup published it, and when the repository is asked
// after the cluster was lost. Both come to the same object.
package catalog

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
)

// ImageOf is the record of an image in a repository. It has no owner: nothing that is deleted takes it along (I8).
func ImageOf(entry v1alpha1.CatalogEntry, repository string) *v1alpha1.BackupImage {
	return &v1alpha1.BackupImage{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: entry.Namespace,
			Name:      delegation.ChildName(entry.VirtualMachine.ObjectName, entry.ImageID),
			Labels: map[string]string{
				v1alpha1.LabelVirtualMachineID: entry.VirtualMachine.ID,
				v1alpha1.LabelRepository:       repository,
			},
		},
		Spec: v1alpha1.BackupImageSpec{
			ImageID:        entry.ImageID,
			VirtualMachine: entry.VirtualMachine,
			RepositoryRef:  v1alpha1.RepositoryReference{Name: repository},
			PolicyName:     entry.PolicyName,
			Retention:      entry.Retention,
			Summary:        entry.Summary,
			DeletionPolicy: v1alpha1.DeletionRetain,
		},
	}
}

// Outcome is what became of a record: one of a closed set.
type Outcome int

// What can become of a record.
const (
	// Made: it was missing, and is there now, by this call or by one before it for the same import.
	Made Outcome = iota
	// Present: it was there.
	Present
	// NameTaken: its name belongs to another image.
	NameTaken
	// NoNamespace: its namespace does not exist.
	NoNamespace
	// NamespaceEnding: its namespace is being deleted.
	NamespaceEnding
)

// Record makes the record of an image, or finds that it was made before. What is there is never changed.
func Record(ctx context.Context, c client.Client, image *v1alpha1.BackupImage) (Outcome, error) {
	err := c.Create(ctx, image.DeepCopy())
	switch {
	case err == nil:
		return Made, nil
	case apierrors.IsAlreadyExists(err):
		found := &v1alpha1.BackupImage{}
		if err := c.Get(ctx, client.ObjectKeyFromObject(image), found); err != nil {
			return 0, fmt.Errorf("get image %s: %w", image.Name, err)
		}
		if found.Spec.ImageID != image.Spec.ImageID || found.Spec.RepositoryRef != image.Spec.RepositoryRef || found.Spec.VirtualMachine.ID != image.Spec.VirtualMachine.ID {
			return NameTaken, nil
		}
		if request := image.Annotations[v1alpha1.AnnotationImported]; request != "" && found.Annotations[v1alpha1.AnnotationImported] == request {
			return Made, nil
		}
		return Present, nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return NamespaceEnding, nil
	case apierrors.IsNotFound(err):
		return NoNamespace, nil
	default:
		return 0, fmt.Errorf("record image %s: %w", image.Name, err)
	}
}
