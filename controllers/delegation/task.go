package delegation

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// CredentialName is the name of the Secret with the credential of a repository in the namespace of each agent that works with it.
func CredentialName(repository string) string { return "repository-" + repository }

// TaskName is the name of a task: the same for the same kind of work, owner and attempt, however often it is created.
func TaskName(kind v1alpha1.TaskKind, owner string, attempt int32) string {
	return strings.ToLower(string(kind)) + "-" + owner + "-" + strconv.Itoa(int(attempt))
}

// Attempt is the number at the end of a task's name, or 0.
func Attempt(task *v1alpha1.AgentTask) int32 {
	n, err := strconv.ParseInt(task.Name[strings.LastIndexByte(task.Name, '-')+1:], 10, 32)
	if err != nil {
		return 0
	}
	return int32(n)
}

// Finished says whether the agent has given its verdict on a task.
func Finished(task *v1alpha1.AgentTask) bool {
	verdict := meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionSucceeded)
	return verdict != nil && verdict.Status != metav1.ConditionUnknown
}

// Succeeded says whether the verdict on a task is good.
func Succeeded(task *v1alpha1.AgentTask) bool {
	return meta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionSucceeded)
}

// HoldsHost says whether a task occupies a host: it is live, and not for a keeper.
func HoldsHost(task *v1alpha1.AgentTask) bool {
	switch task.Spec.Kind {
	case v1alpha1.TaskBackup, v1alpha1.TaskRestore, v1alpha1.TaskRelease:
		return !Finished(task)
	default:
		return false
	}
}

// Tasks are those that were made for one run.
type Tasks struct {
	// Work is the attempts, the first one first.
	Work []v1alpha1.AgentTask
	// Releases clean up what attempts have left on a host.
	Releases []v1alpha1.AgentTask
}

// sortTasks tells the tasks of a run apart.
func sortTasks(items []v1alpha1.AgentTask) (tasks Tasks) {
	for i := range items {
		if items[i].Spec.Kind == v1alpha1.TaskRelease {
			tasks.Releases = append(tasks.Releases, items[i])
		} else {
			tasks.Work = append(tasks.Work, items[i])
		}
	}
	byAttempt := func(a, b v1alpha1.AgentTask) int { return cmp.Compare(Attempt(&a), Attempt(&b)) }
	slices.SortFunc(tasks.Work, byAttempt)
	slices.SortFunc(tasks.Releases, byAttempt)
	return tasks
}

// Current is the task of the newest attempt, or nil.
func (t Tasks) Current() *v1alpha1.AgentTask {
	if len(t.Work) == 0 {
		return nil
	}
	return &t.Work[len(t.Work)-1]
}

// Live is the first task that an agent may still work on, or nil.
func (t Tasks) Live() *v1alpha1.AgentTask {
	for _, tasks := range [][]v1alpha1.AgentTask{t.Work, t.Releases} {
		for i := range tasks {
			if !Finished(&tasks[i]) {
				return &tasks[i]
			}
		}
	}
	return nil
}

// Unreleased is the first attempt that has ended without leaving the host clean, with the newest task that was made to clean up after it, if
// any. It is nil when the host is clean.
func (t Tasks) Unreleased() (attempt, release *v1alpha1.AgentTask) {
	for i := range t.Work {
		task := &t.Work[i]
		if !Finished(task) || !meta.IsStatusConditionFalse(task.Status.Conditions, v1alpha1.ConditionReleased) {
			continue
		}
		if release := t.releaseOf(task); release == nil || !Succeeded(release) {
			return task, release
		}
	}
	return nil, nil
}

func (t Tasks) releaseOf(task *v1alpha1.AgentTask) (newest *v1alpha1.AgentTask) {
	for i := range t.Releases {
		if t.Releases[i].Spec.Release.Tag == string(task.UID) {
			newest = &t.Releases[i]
		}
	}
	return newest
}
