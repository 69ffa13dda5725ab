package stage

import (
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
)

// Tasks are those of a kind that were made for an owner.
func (w World) Tasks(t *testing.T, owner types.UID, kind v1alpha1.TaskKind) (tasks []*v1alpha1.AgentTask) {
	t.Helper()
	list := &v1alpha1.AgentTaskList{}
	if err := w.Admin.List(t.Context(), list, client.MatchingLabels{v1alpha1.LabelJobUID: string(owner)}); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		if list.Items[i].Spec.Kind == kind {
			tasks = append(tasks, &list.Items[i])
		}
	}
	return tasks
}

// Task waits for the one task of a kind that was made for an owner.
func (w World) Task(t *testing.T, owner types.UID, kind v1alpha1.TaskKind) (task *v1alpha1.AgentTask) {
	t.Helper()
	w.Eventually(t, func() []*v1alpha1.AgentTask { return w.Tasks(t, owner, kind) }).Should(HaveLen(1), "tasks of kind "+string(kind))
	return w.Tasks(t, owner, kind)[0]
}

// Agent writes the status of a task, as its agent does.
func (w World) Agent(t *testing.T, task *v1alpha1.AgentTask, says ...func(*v1alpha1.AgentTask)) {
	t.Helper()
	w.Status(t, task, func() {
		task.Status.ObservedGeneration = task.Generation
		for _, say := range says {
			say(task)
		}
	})
}

func condition(kind string, status metav1.ConditionStatus, reason string) func(*v1alpha1.AgentTask) {
	return func(t *v1alpha1.AgentTask) {
		meta.SetStatusCondition(&t.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: reason, LastTransitionTime: metav1.Now()})
	}
}

// What an agent says of a task.
var (
	Claimed     = condition(v1alpha1.ConditionClaimed, metav1.ConditionTrue, v1alpha1.ReasonClaimed)
	Succeeded   = condition(v1alpha1.ConditionSucceeded, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	Released    = condition(v1alpha1.ConditionReleased, metav1.ConditionTrue, v1alpha1.ReasonReleased)
	NotReleased = condition(v1alpha1.ConditionReleased, metav1.ConditionFalse, v1alpha1.ReasonMergePending)
)

// Failed is a verdict with a reason.
func Failed(reason string, action v1alpha1.FailureAction) func(*v1alpha1.AgentTask) {
	return func(t *v1alpha1.AgentTask) {
		condition(v1alpha1.ConditionSucceeded, metav1.ConditionFalse, reason)(t)
		t.Status.Failure = &v1alpha1.Failure{Reason: reason, Message: "it went wrong", Action: action}
	}
}

// Published is an image of all disks.
func Published(t *v1alpha1.AgentTask) { t.Status.Image = Summary(clock.RealClock{}.Now()) }

// Transferring is in the middle of the work.
func Transferring(t *v1alpha1.AgentTask) {
	t.Status.Steps = []v1alpha1.Step{{Name: "Checkpoint", StartTime: metav1.Now()}, {Name: "Transfer", StartTime: metav1.Now()}}
	t.Status.Progress = &v1alpha1.Progress{BytesTotal: 100, BytesDone: 40, Summary: "40% of 100 B"}
}

// LiveTasks counts the live tasks that work on a virtual machine.
func (w World) LiveTasks(t *testing.T, machineID string) (n int) {
	t.Helper()
	list := &v1alpha1.AgentTaskList{}
	if err := w.Admin.List(t.Context(), list, client.MatchingLabels{v1alpha1.LabelVirtualMachineID: machineID}); err != nil {
		t.Fatal(err)
	}
	for i := range list.Items {
		if delegation.HoldsHost(&list.Items[i]) {
			n++
		}
	}
	return n
}
