package backuprepository

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// act does what was decided. Each part may be repeated, and the failure of one keeps no other from being done.
func (r *Reconciler) act(ctx context.Context, repository *v1alpha1.BackupRepository, seen observed, next *decision) error {
	var errs []error
	if next.mark != "" {
		errs = append(errs, r.distribute(ctx, repository, seen, next.mark))
	}
	for _, task := range next.remove {
		if err := r.Delete(ctx, task); client.IgnoreNotFound(err) != nil {
			errs = append(errs, fmt.Errorf("remove task %s: %w", task.Name, err))
		}
	}
	for _, task := range r.dueTasks(repository, next) {
		if err := r.Create(ctx, task); err != nil && !apierrors.IsAlreadyExists(err) {
			errs = append(errs, fmt.Errorf("create task %s: %w", task.Name, err))
		}
	}
	return errors.Join(append(errs, r.importPage(ctx, repository, next))...)
}

// dueTasks are what the keeper is asked to do now.
func (r *Reconciler) dueTasks(repository *v1alpha1.BackupRepository, next *decision) (tasks []*v1alpha1.AgentTask) {
	now := r.Clock.Now()
	if next.probe != "" {
		tasks = append(tasks, r.newProbe(repository, next.probe))
	}
	if next.change != "" {
		tasks = append(tasks, r.newTask(repository, next.change, v1alpha1.TaskChangePassword, now.Add(changeDeadline)))
	}
	if due := next.upkeep; due.name != "" {
		task := r.newTask(repository, due.name, v1alpha1.TaskMaintain, due.deadline)
		task.Spec.Maintain = &v1alpha1.MaintainTask{Mode: due.mode}
		tasks = append(tasks, task)
	}
	if due := next.share; due.name != "" {
		task := r.newTask(repository, due.name, v1alpha1.TaskScrub, now.Add(shareDeadline))
		task.Spec.Scrub = &due.task
		tasks = append(tasks, task)
	}
	return tasks
}

func (r *Reconciler) newProbe(repository *v1alpha1.BackupRepository, name string) *v1alpha1.AgentTask {
	now := r.Clock.Now()
	task := r.newTask(repository, name, v1alpha1.TaskProbe, now.Add(probeDeadline))
	task.Spec.Probe = &v1alpha1.ProbeTask{TestStorage: testDue(repository, now), Immutability: repository.Spec.Immutability}
	return task
}

func (r *Reconciler) newTask(repository *v1alpha1.BackupRepository, name string, kind v1alpha1.TaskKind, deadline time.Time) *v1alpha1.AgentTask {
	return &v1alpha1.AgentTask{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: r.KeeperNamespace,
			Name:      name,
			Labels:    map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy, v1alpha1.LabelRepository: repository.Name},
		},
		Spec: v1alpha1.AgentTaskSpec{
			Kind:     kind,
			Owner:    v1alpha1.TaskOwner{Kind: ownerKind, Name: repository.Name, UID: string(repository.UID)},
			Deadline: report.Time(deadline),
			Repository: &v1alpha1.TaskRepository{
				Name: repository.Name, Location: repository.Spec.Location, RepositoryID: repository.Status.RepositoryID,
				SecretName: delegation.CredentialName(repository.Name),
			},
		},
	}
}
