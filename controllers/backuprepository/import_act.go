package backuprepository

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/catalog"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
)

// importPage does what was decided about an import. It may be repeated: what was made before is found.
func (r *Reconciler) importPage(ctx context.Context, repository *v1alpha1.BackupRepository, next *decision) error {
	switch {
	case next.ask != "":
		task := delegation.NewTask(delegation.OwnerOf(ownerKind, repository), v1alpha1.TaskSyncCatalog, 1, r.KeeperNamespace, r.Clock.Now().Add(pageDeadline))
		task.Name = next.ask
		delegation.SetRepository(task, repository)
		task.Spec.Catalog = &v1alpha1.CatalogTask{After: repository.Status.CatalogImport.After}
		if err := r.Create(ctx, task); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("ask for the catalog: %w", err)
		}
	case next.place != nil:
		result, err := r.placeImages(ctx, repository, next.place.Images)
		if err != nil {
			return err
		}
		next.placed(repository, result, r.Clock.Now())
	}
	return nil
}

// placeImages makes the objects of images whose namespace the repository still allows.
func (r *Reconciler) placeImages(ctx context.Context, repository *v1alpha1.BackupRepository, images []v1alpha1.CatalogEntry) (placement, error) {
	result := placement{unplaced: map[unplaced]int32{}}
	for _, entry := range images {
		if !delegation.Allows(repository, entry.Namespace) {
			result.unplaced[unplaced{entry.Namespace, v1alpha1.ReasonNamespaceNotAllowed}]++
			continue
		}
		image := catalog.ImageOf(entry, repository.Name)
		image.Annotations = map[string]string{v1alpha1.AnnotationImported: repository.Spec.ImportRequest}
		outcome, err := catalog.Record(ctx, r.Client, image)
		switch {
		case err != nil:
			return result, err
		case outcome == catalog.Made:
			result.made++
		case outcome == catalog.Present:
			result.present++
		default:
			result.unplaced[unplaced{entry.Namespace, unplacedReasons[outcome]}]++
		}
	}
	return result, nil
}
