package backuprepository

import (
	"context"
	"fmt"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/index"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
	"github.com/hyperkeep/hyperkeep/controllers/liveness"
)

// observed is all that a decision rests on.
type observed struct {
	// credential as the administrator wrote it.
	credential credential
	// distributed is the mark of the last distribution that reached all agents.
	distributed string
	// allowed and refused are the namespaces of hosts' agents that may and may not have the credential, sorted.
	allowed, refused []string
	// probes, maintenance, shares that are verified, changes of the password and pages, of its catalog, are the tasks for this repository.
	probes, maintenance, shares, changes, pages []v1alpha1.AgentTask
	// deleting is set while the keeper may delete images from it. It is looked at only for an import.
	deleting bool
	// keeper says whether the keeper lives.
	keeper liveness.Pulse
}

func (r *Reconciler) observe(ctx context.Context, repository *v1alpha1.BackupRepository, now time.Time) (observed, error) {
	var seen observed
	source, err := r.secret(ctx, r.Namespace, repository.Spec.SecretName)
	if err != nil {
		return observed{}, err
	}
	seen.credential = credentialFrom(source, repository.Spec.Location)
	copied, err := r.secret(ctx, r.KeeperNamespace, delegation.CredentialName(repository.Name))
	if err != nil {
		return observed{}, err
	}
	if copied != nil {
		seen.distributed = copied.Annotations[annotationDistributed]
	}
	if err := r.observeHosts(ctx, repository, &seen); err != nil {
		return observed{}, err
	}
	var tasks v1alpha1.AgentTaskList
	if err := r.List(ctx, &tasks, client.InNamespace(r.KeeperNamespace), index.TasksOf(repository.UID)); err != nil {
		return observed{}, fmt.Errorf("list tasks: %w", err)
	}
	for _, task := range tasks.Items {
		switch task.Spec.Kind {
		case v1alpha1.TaskProbe:
			seen.probes = append(seen.probes, task)
		case v1alpha1.TaskMaintain:
			seen.maintenance = append(seen.maintenance, task)
		case v1alpha1.TaskScrub:
			seen.shares = append(seen.shares, task)
		case v1alpha1.TaskChangePassword:
			seen.changes = append(seen.changes, task)
		case v1alpha1.TaskSyncCatalog:
			seen.pages = append(seen.pages, task)
		}
	}
	if seen.deleting, err = r.observeDeletions(ctx, repository); err != nil {
		return observed{}, err
	}
	seen.keeper, err = r.observeKeeper(ctx, now)
	return seen, err
}

// observeDeletions looks whether the keeper may delete an image of a repository that is imported. No deletion begins during an import.
func (r *Reconciler) observeDeletions(ctx context.Context, repository *v1alpha1.BackupRepository) (bool, error) {
	if !delegation.Importing(repository) {
		return false, nil
	}
	var tasks v1alpha1.AgentTaskList
	if err := r.List(ctx, &tasks, client.InNamespace(r.KeeperNamespace), client.MatchingLabels{v1alpha1.LabelRepository: repository.Name}); err != nil {
		return false, fmt.Errorf("list deletions: %w", err)
	}
	return slices.ContainsFunc(tasks.Items, func(task v1alpha1.AgentTask) bool {
		return task.Spec.Kind == v1alpha1.TaskDeleteImage && !delegation.Finished(&task)
	}), nil
}

// observeHosts sorts the hosts whose agents have a namespace by whether their machines may use the repository.
func (r *Reconciler) observeHosts(ctx context.Context, repository *v1alpha1.BackupRepository, seen *observed) error {
	var hosts v1alpha1.HyperVHostList
	if err := r.List(ctx, &hosts, client.UnsafeDisableDeepCopy); err != nil {
		return fmt.Errorf("list hosts: %w", err)
	}
	for i := range hosts.Items {
		host := &hosts.Items[i]
		if host.Status.AgentNamespace == "" || !host.DeletionTimestamp.IsZero() {
			continue
		}
		allows := func(namespace string) bool { return delegation.Allows(repository, namespace) }
		if slices.ContainsFunc(inventory.Namespaces(host.Spec), allows) {
			seen.allowed = append(seen.allowed, host.Status.AgentNamespace)
		} else {
			seen.refused = append(seen.refused, host.Status.AgentNamespace)
		}
	}
	slices.Sort(seen.allowed)
	slices.Sort(seen.refused)
	return nil
}

func (r *Reconciler) observeKeeper(ctx context.Context, now time.Time) (liveness.Pulse, error) {
	key := types.NamespacedName{Namespace: r.KeeperNamespace, Name: v1alpha1.AgentName}
	lease := &coordinationv1.Lease{}
	if err := r.Get(ctx, key, lease); apierrors.IsNotFound(err) {
		lease = nil
	} else if err != nil {
		return liveness.Pulse{}, fmt.Errorf("get the keeper's lease: %w", err)
	}
	return r.leases.Observe(key, lease, now), nil
}

// secret reads one Secret by its name. It is nil when there is none.
func (r *Reconciler) secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := r.Get(ctx, types.NamespacedName{Namespace: namespace, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("get Secret %s/%s: %w", namespace, name, err)
	}
	return secret, nil
}
