package delegation

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// NewTask is a task in an agent's namespace, still without its payload. It has labels of its own only: whoever prunes what carries the owner's
// labels must not find it, and an owner in another namespace cannot be referred to.
func NewTask(owner v1alpha1.TaskOwner, kind v1alpha1.TaskKind, attempt int32, namespace string, deadline time.Time) *v1alpha1.AgentTask {
	return &v1alpha1.AgentTask{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      TaskName(kind, owner.UID, attempt),
			Labels: map[string]string{
				v1alpha1.LabelManagedBy: v1alpha1.ManagedBy,
				v1alpha1.LabelJobUID:    owner.UID,
			},
		},
		Spec: v1alpha1.AgentTaskSpec{Kind: kind, Owner: owner, Deadline: report.Time(deadline)},
	}
}

// NewHostTask is the task that a decision asked for, on the host that it chose. machineID is the virtual machine that nobody else may work on
// meanwhile, or empty.
func NewHostTask(run Run, next Next, machineID string) *v1alpha1.AgentTask {
	host := next.Status.HostName
	task := NewTask(run.Owner, run.Work, next.Attempt, v1alpha1.AgentNamespace(host), next.Deadline)
	task.Labels[v1alpha1.LabelHost] = host
	if machineID != "" {
		task.Labels[v1alpha1.LabelVirtualMachineID] = machineID
	}
	return task
}

// SetRepository names the repository that a task works with.
func SetRepository(task *v1alpha1.AgentTask, repository *v1alpha1.BackupRepository) {
	task.Labels[v1alpha1.LabelRepository] = repository.Name
	task.Spec.Repository = &v1alpha1.TaskRepository{
		Name:         repository.Name,
		Location:     repository.Spec.Location,
		RepositoryID: repository.Status.RepositoryID,
		SecretName:   CredentialName(repository.Name),
	}
}

// SetSite names the repository of a site for a task of its host, and how fast the host may send to it.
func SetSite(task *v1alpha1.AgentTask, site Site) {
	SetRepository(task, site.Repository)
	if site.Host != nil {
		task.Spec.Repository.Bandwidth = site.Host.Spec.Bandwidth.DeepCopy()
	}
}

// newRelease is the task that cleans up after an attempt. It goes to the same host, and is named after the attempt's task and the try.
func newRelease(run Run, next Next) *v1alpha1.AgentTask {
	attempt := next.Task
	task := NewTask(run.Owner, v1alpha1.TaskRelease, next.Attempt, attempt.Namespace, next.Deadline)
	task.Name = TaskName(v1alpha1.TaskRelease, string(attempt.UID), next.Attempt)
	task.Labels[v1alpha1.LabelHost] = attempt.Labels[v1alpha1.LabelHost]
	machineID := machineOf(attempt)
	task.Labels[v1alpha1.LabelVirtualMachineID] = machineID
	task.Spec.Release = &v1alpha1.ReleaseTask{VirtualMachineID: machineID, Tag: string(attempt.UID)}
	return task
}

// machineOf is the virtual machine that an attempt worked on: the existing one, else the one that it made. An attempt that got to neither has nothing
// to its name; its owner's uid stands for a virtual machine that no host has.
func machineOf(attempt *v1alpha1.AgentTask) string {
	if id := attempt.Labels[v1alpha1.LabelVirtualMachineID]; id != "" {
		return id
	}
	if restored := attempt.Status.Restored; restored != nil {
		return restored.ID
	}
	return attempt.Spec.Owner.UID
}
