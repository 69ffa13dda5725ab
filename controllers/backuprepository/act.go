package backuprepository

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// act does what was decided. Each part may be repeated, and the failure of one keeps no other from being done.
func (r *Reconciler) act(ctx context.Context, repository *v1alpha1.BackupRepository, seen observed, next decision) error {
	var errs []error
	if next.mark != "" {
		errs = append(errs, r.distribute(ctx, repository, seen, next.mark))
	}
	for _, task := range next.remove {
		if err := r.Delete(ctx, task); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("remove probe %s: %w", task.Name, err))
		}
	}
	if next.probe != "" {
		if err := r.Create(ctx, r.newProbe(repository, next.probe)); err != nil && !apierrors.IsAlreadyExists(err) {
			errs = append(errs, fmt.Errorf("create probe %s: %w", next.probe, err))
		}
	}
	return errors.Join(errs...)
}

func (r *Reconciler) newProbe(repository *v1alpha1.BackupRepository, name string) *v1alpha1.AgentTask {
	return &v1alpha1.AgentTask{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: r.KeeperNamespace,
			Name:      name,
			Labels:    map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy, v1alpha1.LabelRepository: repository.Name},
		},
		Spec: v1alpha1.AgentTaskSpec{
			Kind:     v1alpha1.TaskProbe,
			Owner:    v1alpha1.TaskOwner{Kind: ownerKind, Name: repository.Name, UID: string(repository.UID)},
			Deadline: report.Time(r.Clock.Now().Add(probeDeadline)),
			Probe:    &v1alpha1.ProbeTask{TestStorage: testDue(repository, r.Clock.Now()), Immutability: repository.Spec.Immutability},
			Repository: &v1alpha1.TaskRepository{
				Name: repository.Name, Location: repository.Spec.Location, RepositoryID: repository.Status.RepositoryID,
				SecretName: delegation.CredentialName(repository.Name),
			},
		},
	}
}
