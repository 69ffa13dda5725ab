package delegation

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Remedy says what an obstacle needs to go away.
type Remedy int

// What an obstacle needs.
const (
	// Patience: it goes away by itself.
	Patience Remedy = iota
	// Person: somebody must act, and the run goes on then.
	Person
	// None: it never goes away, the run fails.
	None
)

// Obstacle is what keeps a run from being placed.
type Obstacle struct {
	Reason  string
	Message string
	Remedy  Remedy
}

// Error lets an obstacle that turned up at the last moment be returned as an error.
func (o *Obstacle) Error() string { return o.Reason + ": " + o.Message }

// Waits is an obstacle that goes away by itself.
func Waits(reason, format string, args ...any) *Obstacle {
	return &Obstacle{Reason: reason, Message: fmt.Sprintf(format, args...), Remedy: Patience}
}

// Stalls is an obstacle that a person must remove.
func Stalls(reason, format string, args ...any) *Obstacle {
	return &Obstacle{Reason: reason, Message: fmt.Sprintf(format, args...), Remedy: Person}
}

// Fails is an obstacle that stays.
func Fails(reason, format string, args ...any) *Obstacle {
	return &Obstacle{Reason: reason, Message: fmt.Sprintf(format, args...), Remedy: None}
}

// Site is what matters for placing a run: the repository and the host that it needs.
type Site struct {
	// Namespace of the run.
	Namespace string
	// RepositoryName and HostName are what is wanted.
	RepositoryName, HostName string
	// Repository and Host are nil when they do not exist.
	Repository *v1alpha1.BackupRepository
	Host       *v1alpha1.HyperVHost
	// Tasks that occupy the host, or shared volumes of its cluster.
	Tasks []v1alpha1.AgentTask
	// Credential is set when the host's agent has the credential of the repository.
	Credential bool
}

// Needs is what a task has for itself, besides a place on its host.
type Needs struct {
	// MachineID is the virtual machine; empty for a task that touches none that exists.
	MachineID string
	// Cluster is the label of the cluster that has SharedVolumes.
	Cluster       string
	SharedVolumes []string
}

// needsOf is what a task has for itself.
func needsOf(task *v1alpha1.AgentTask) Needs {
	needs := Needs{MachineID: task.Labels[v1alpha1.LabelVirtualMachineID], Cluster: task.Labels[v1alpha1.LabelCluster]}
	if task.Spec.Backup != nil {
		needs.SharedVolumes = task.Spec.Backup.SharedVolumes
	}
	return needs
}

// Obstacle is the first thing that keeps a task with these needs from the host, or nil.
func (s Site) Obstacle(needs Needs) *Obstacle {
	if o := RepositoryObstacle(s.Repository, s.RepositoryName, s.Namespace); o != nil {
		return o
	}
	if o := s.hostObstacle(); o != nil {
		return o
	}
	if o := busy(s.Host, s.Tasks, needs); o != nil {
		return o
	}
	if !s.Credential {
		return Waits(v1alpha1.ReasonRepositoryNotReady, "the agent of host %s has not got the credential of repository %s yet", s.HostName, s.RepositoryName)
	}
	return nil
}

func (s Site) hostObstacle() *Obstacle {
	switch {
	case s.Host == nil || !s.Host.DeletionTimestamp.IsZero():
		return Waits(v1alpha1.ReasonHostNotFound, "there is no HyperVHost %s", s.HostName)
	case !HostReady(s.Host):
		return Waits(v1alpha1.ReasonHostUnreachable, "host %s is not ready%s", s.HostName, because(s.Host))
	case s.Host.Spec.Unschedulable:
		return Waits(v1alpha1.ReasonHostUnschedulable, "host %s takes no new work: spec.unschedulable is set", s.HostName)
	default:
		return nil
	}
}

// busy says whether the virtual machine is worked on already, the host has as much work as it may, or somebody has a volume that is needed.
func busy(host *v1alpha1.HyperVHost, tasks []v1alpha1.AgentTask, needs Needs) *Obstacle {
	var volume *Obstacle
	held := int32(0)
	for i := range tasks {
		task := &tasks[i]
		if !HoldsHost(task) {
			continue
		}
		if needs.MachineID != "" && task.Labels[v1alpha1.LabelVirtualMachineID] == needs.MachineID {
			return Waits(v1alpha1.ReasonVirtualMachineBusy, "%s %s/%s works on the virtual machine", task.Spec.Owner.Kind, task.Spec.Owner.Namespace, task.Spec.Owner.Name)
		}
		if task.Namespace == v1alpha1.AgentNamespace(host.Name) {
			held++
		}
		if volume == nil {
			volume = volumeBusy(task, needs)
		}
	}
	if held >= host.Spec.MaxParallelJobs {
		return Waits(v1alpha1.ReasonHostAtLimit, "host %s runs %d of %d jobs", host.Name, held, host.Spec.MaxParallelJobs)
	}
	return volume
}

// volumeBusy says whether a live task has one of the shared volumes that are needed.
func volumeBusy(task *v1alpha1.AgentTask, needs Needs) *Obstacle {
	has := needsOf(task)
	if has.Cluster != needs.Cluster {
		return nil
	}
	for _, volume := range needs.SharedVolumes {
		if slices.Contains(has.SharedVolumes, volume) {
			return Waits(v1alpha1.ReasonSharedVolumeBusy, "%s %s/%s on host %s backs up from the cluster shared volume %s, which allows one backup at a time by software shadow copies",
				task.Spec.Owner.Kind, task.Spec.Owner.Namespace, task.Spec.Owner.Name, task.Labels[v1alpha1.LabelHost], volume)
		}
	}
	return nil
}

// HostReady says whether the agent of a host is alive and can do backups. A host that does not exist is not ready.
func HostReady(host *v1alpha1.HyperVHost) bool {
	return host != nil && meta.IsStatusConditionTrue(host.Status.Conditions, v1alpha1.ConditionReady)
}

func because(host *v1alpha1.HyperVHost) string {
	ready := meta.FindStatusCondition(host.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil || ready.Message == "" {
		return ""
	}
	return ": " + ready.Message
}

// RepositoryObstacle says why a namespace cannot use a repository now, or nil. The repository is nil when it does not exist.
func RepositoryObstacle(repository *v1alpha1.BackupRepository, name, namespace string) *Obstacle {
	if repository != nil && !Allows(repository, namespace) {
		return Stalls(v1alpha1.ReasonRepositoryNotAllowed, "repository %s does not allow namespace %s: an administrator adds it to allowedNamespaces, or use another repository", name, namespace)
	}
	return ReadyObstacle(repository, name)
}

// ReadyObstacle says why nobody can use a repository now, or nil. The repository is nil when it does not exist.
func ReadyObstacle(repository *v1alpha1.BackupRepository, name string) *Obstacle {
	if repository == nil {
		return Waits(v1alpha1.ReasonRepositoryNotFound, "there is no BackupRepository %s", name)
	}
	ready := meta.FindStatusCondition(repository.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case ready == nil:
		return Waits(v1alpha1.ReasonRepositoryNotReady, "repository %s was not probed yet", name)
	case ready.Status != metav1.ConditionTrue:
		return Waits(v1alpha1.ReasonRepositoryNotReady, "repository %s is not ready: %s", name, ready.Message)
	default:
		return nil
	}
}

// Importing says whether the catalog of a repository is being imported. No image is deleted from it meanwhile: what the keeper has listed would come back as
// a record without an image.
func Importing(repository *v1alpha1.BackupRepository) bool {
	current := repository.Status.CatalogImport
	return current != nil && current.CompletionTime == nil
}

// Allows says whether a namespace may use a repository.
func Allows(repository *v1alpha1.BackupRepository, namespace string) bool {
	return slices.Contains(repository.Spec.AllowedNamespaces, "*") || slices.Contains(repository.Spec.AllowedNamespaces, namespace)
}
