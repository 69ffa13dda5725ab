package delegation

import (
	"context"
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/index"
)

// Delegator reads what decisions about runs need, and carries them out. One is shared by all controllers of a manager.
type Delegator struct {
	client  client.Client
	live    client.Reader
	placing sync.Mutex
}

// New returns a Delegator that reads from the cache of c, and from the API server itself where a stale cache would do harm: before a task is
// made, and before one is taken for deleted.
func New(c client.Client, live client.Reader) *Delegator {
	return &Delegator{client: c, live: live}
}

// Tasks are those that exist for a run.
func (d *Delegator) Tasks(ctx context.Context, run Run) (Tasks, error) {
	list := &v1alpha1.AgentTaskList{}
	if err := d.client.List(ctx, list, index.TasksOf(types.UID(run.Owner.UID))); err != nil {
		return Tasks{}, fmt.Errorf("list tasks: %w", err)
	}
	tasks := sortTasks(list.Items)
	if !lacksTask(run, tasks) {
		return tasks, nil
	}
	// The cache may not have the task yet.
	if err := d.live.List(ctx, list, client.MatchingLabels{v1alpha1.LabelJobUID: run.Owner.UID}); err != nil {
		return Tasks{}, fmt.Errorf("list tasks: %w", err)
	}
	return sortTasks(list.Items), nil
}

// lacksTask says whether a task was made, or may have been, that is not among these.
func lacksTask(run Run, tasks Tasks) bool {
	current := tasks.Current()
	if current == nil {
		return run.Held || run.Status.Attempt > 0
	}
	return Attempt(current) < run.Status.Attempt
}

// Host is the host of this name, or nil.
func (d *Delegator) Host(ctx context.Context, name string) (*v1alpha1.HyperVHost, error) {
	host := &v1alpha1.HyperVHost{}
	if err := d.client.Get(ctx, types.NamespacedName{Name: name}, host); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return host, nil
}

// Repository is the repository of this name, or nil.
func (d *Delegator) Repository(ctx context.Context, name string) (*v1alpha1.BackupRepository, error) {
	repository := &v1alpha1.BackupRepository{}
	if err := d.client.Get(ctx, types.NamespacedName{Name: name}, repository); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return repository, nil
}

// Site observes a place for a run of a namespace.
func (d *Delegator) Site(ctx context.Context, namespace, repository, host string) (Site, error) {
	site := Site{Namespace: namespace, RepositoryName: repository, HostName: host}
	var err error
	if site.Repository, err = d.Repository(ctx, repository); err != nil {
		return site, fmt.Errorf("get repository: %w", err)
	}
	if site.Host, err = d.Host(ctx, host); err != nil || site.Host == nil {
		return site, err
	}
	list := &v1alpha1.AgentTaskList{}
	if err := d.client.List(ctx, list, client.InNamespace(v1alpha1.AgentNamespace(host))); err != nil {
		return site, fmt.Errorf("list tasks of host: %w", err)
	}
	site.Tasks = list.Items
	if cluster := ClusterLabel(site.Host); cluster != "" {
		if err := d.client.List(ctx, list, index.TasksIn(cluster)); err != nil {
			return site, fmt.Errorf("list tasks of cluster: %w", err)
		}
		if site.Tasks, err = d.join(ctx, site.Tasks, list.Items); err != nil {
			return site, err
		}
	}
	site.Credential, err = d.hasCredential(ctx, v1alpha1.AgentNamespace(host), repository)
	return site, err
}

// hasCredential asks for the metadata only: the manager need not see the secret itself here. It has no right to ask before the agent's namespace is set up.
func (d *Delegator) hasCredential(ctx context.Context, namespace, repository string) (bool, error) {
	secret := newSecretMetadata()
	err := d.live.Get(ctx, types.NamespacedName{Namespace: namespace, Name: CredentialName(repository)}, secret)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) {
		return false, fmt.Errorf("look for credential: %w", err)
	}
	return err == nil, nil
}

// Act carries a decision out: it has one effect outside, and may be repeated. work makes the task of a new
// attempt. An obstacle that turns up at the last moment is returned as an *Obstacle.
func (d *Delegator) Act(ctx context.Context, object client.Object, run Run, next Next, work func() *v1alpha1.AgentTask) error {
	switch next.Action {
	case Hold, LetGo:
		return d.hold(ctx, object, next.Action == Hold)
	case Place:
		return d.place(ctx, work())
	case Cancel:
		return d.Cancel(ctx, next.Task)
	case Release:
		return d.Create(ctx, newRelease(run, next))
	default:
		return nil
	}
}

func (d *Delegator) hold(ctx context.Context, object client.Object, on bool) error {
	changed := object.DeepCopyObject().(client.Object)
	if on {
		controllerutil.AddFinalizer(changed, v1alpha1.FinalizerHostClean)
	} else {
		controllerutil.RemoveFinalizer(changed, v1alpha1.FinalizerHostClean)
	}
	patch := client.MergeFromWithOptions(object, client.MergeFromWithOptimisticLock{})
	if err := d.client.Patch(ctx, changed, patch); err != nil {
		return client.IgnoreNotFound(fmt.Errorf("change finalizer: %w", err))
	}
	return nil
}

// Cancel asks an agent to stop a task. Repeating it, or a task that is gone, is fine.
func (d *Delegator) Cancel(ctx context.Context, task *v1alpha1.AgentTask) error {
	changed := task.DeepCopy()
	changed.Spec.Cancel = true
	if err := d.client.Patch(ctx, changed, client.MergeFrom(task)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("cancel task %s: %w", task.Name, err)
	}
	return nil
}

// place makes a task, if the host still has room and nobody else works on the virtual machine. Controllers run side by side and their caches lag, so
// this is looked at once more, at the API server, by one at a time. Two managers do not overlap, thanks to leader election.
func (d *Delegator) place(ctx context.Context, task *v1alpha1.AgentTask) error {
	d.placing.Lock()
	defer d.placing.Unlock()
	host, err := d.Host(ctx, task.Labels[v1alpha1.LabelHost])
	if err != nil {
		return fmt.Errorf("get host: %w", err)
	}
	if host == nil {
		return Waits(v1alpha1.ReasonHostNotFound, "there is no HyperVHost %s", task.Labels[v1alpha1.LabelHost])
	}
	rivals, err := d.rivals(ctx, task)
	if err != nil {
		return fmt.Errorf("list tasks: %w", err)
	}
	if o := busy(host, rivals, needsOf(task)); o != nil {
		return o
	}
	return d.Create(ctx, task)
}

// rivals are the tasks of the host, and on whatever host those for the virtual machine and those with shared volumes of the cluster. The task itself is none.
func (d *Delegator) rivals(ctx context.Context, task *v1alpha1.AgentTask) ([]v1alpha1.AgentTask, error) {
	list := &v1alpha1.AgentTaskList{}
	if err := d.live.List(ctx, list, client.InNamespace(task.Namespace)); err != nil {
		return nil, err
	}
	rivals := slices.DeleteFunc(list.Items, func(other v1alpha1.AgentTask) bool { return other.Name == task.Name })
	for _, label := range []string{v1alpha1.LabelVirtualMachineID, v1alpha1.LabelCluster} {
		value := task.Labels[label]
		if value == "" {
			continue
		}
		elsewhere := &v1alpha1.AgentTaskList{}
		if err := d.live.List(ctx, elsewhere, client.MatchingLabels{label: value}); err != nil {
			return nil, err
		}
		others := slices.DeleteFunc(elsewhere.Items, func(other v1alpha1.AgentTask) bool { return other.Namespace == task.Namespace })
		var err error
		if rivals, err = d.join(ctx, rivals, others); err != nil {
			return nil, err
		}
	}
	return rivals, nil
}

// join adds to some tasks those of others whose agents are not lost.
func (d *Delegator) join(ctx context.Context, tasks, others []v1alpha1.AgentTask) ([]v1alpha1.AgentTask, error) {
	for _, other := range others {
		if slices.ContainsFunc(tasks, func(t v1alpha1.AgentTask) bool { return t.UID == other.UID }) {
			continue
		}
		left, err := d.leftBehind(ctx, &other)
		if err != nil {
			return nil, err
		}
		if !left {
			tasks = append(tasks, other)
		}
	}
	return tasks, nil
}

// leftBehind says whether a task belongs to an agent that is lost, while its virtual machine is at another host by now: a host died, and the cluster
// brought its virtual machines up elsewhere. They are not left unprotected until that host is back. If the old agent lives on, cut off, it
// still has the frozen files that it reads, and what it publishes is an image of its own.
func (d *Delegator) leftBehind(ctx context.Context, task *v1alpha1.AgentTask) (bool, error) {
	host, err := d.Host(ctx, task.Labels[v1alpha1.LabelHost])
	if err != nil || host == nil {
		return false, err
	}
	ready := meta.FindStatusCondition(host.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Reason == v1alpha1.ReasonAgentLost, nil
}

// Create makes a task, or finds that it was made before for the same owner.
func (d *Delegator) Create(ctx context.Context, task *v1alpha1.AgentTask) error {
	err := d.client.Create(ctx, task)
	switch {
	case apierrors.IsAlreadyExists(err):
		return d.adopt(ctx, task)
	case apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return Waits(v1alpha1.ReasonHostNotFound, "namespace %s does not exist, or is being deleted", task.Namespace)
	case err != nil:
		return fmt.Errorf("create task %s: %w", task.Name, err)
	default:
		return nil
	}
}

func (d *Delegator) adopt(ctx context.Context, task *v1alpha1.AgentTask) error {
	found := &v1alpha1.AgentTask{}
	if err := d.live.Get(ctx, client.ObjectKeyFromObject(task), found); err != nil {
		return fmt.Errorf("get task %s: %w", task.Name, err)
	}
	if found.Spec.Owner.UID != task.Spec.Owner.UID {
		return fmt.Errorf("create task %s: the name is taken by a task of %s %s", task.Name, found.Spec.Owner.Kind, found.Spec.Owner.Name)
	}
	return nil
}

func newSecretMetadata() *metav1.PartialObjectMetadata {
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	return secret
}
