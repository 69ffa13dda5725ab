package agenttask_test

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/agenttask"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/delegation/test/stage"
)

// world has a clock that only the tests move. They share it, so they run one after the other.
type world struct {
	stage.World
	clock *clocktesting.FakePassiveClock
}

func TestController(t *testing.T) {
	w := world{stage.New(t), clocktesting.NewFakePassiveClock(time.Now())}
	w.Namespace(t, "sales")
	w.Host(t, "hv01", 2)
	w.Manage(t, func(mgr ctrl.Manager) error {
		return agenttask.SetupWithManager(mgr, agenttask.Options{Delegator: delegation.New(mgr.GetClient(), mgr.GetAPIReader()), Clock: w.clock})
	})
	t.Run("the owner is gone while the agent works", w.orphan)
	t.Run("a name that is another object's now", w.namesake)
	t.Run("a finished task of a settled run", w.settled)
}

func (w world) job(t *testing.T, name string, finalizers ...string) *v1alpha1.BackupJob {
	t.Helper()
	job := &v1alpha1.BackupJob{ObjectMeta: metav1.ObjectMeta{Namespace: "sales", Name: name, Finalizers: finalizers}}
	job.Spec.RepositoryRef.Name, job.Spec.VirtualMachineRef.Name = stage.Repository, "crm"
	w.Create(t, job)
	return job
}

func (w world) task(t *testing.T, job *v1alpha1.BackupJob) *v1alpha1.AgentTask {
	t.Helper()
	task := delegation.NewTask(delegation.OwnerOf("BackupJob", job), v1alpha1.TaskRelease, 1, "hyperkeep-host-hv01", time.Now().Add(time.Hour))
	task.Spec.Release = &v1alpha1.ReleaseTask{VirtualMachineID: "id-1", Tag: "t1"}
	w.Create(t, task)
	return task
}

func (w world) orphan(t *testing.T) {
	job := w.job(t, "orphan")
	task := w.task(t, job)
	w.Agent(t, task, stage.Claimed)
	w.Consistently(t, func() bool { w.Refresh(t, task); return task.Spec.Cancel }).Should(BeFalse())
	w.Delete(t, job)
	w.Eventually(t, func() bool { w.Refresh(t, task); return task.Spec.Cancel }).Should(BeTrue())
	w.Consistently(t, func() bool { return w.Refresh(t, task) }).Should(BeTrue(), "the agent may still be at it")
	w.Agent(t, task, stage.Failed(v1alpha1.ReasonCanceled, v1alpha1.FailureStall))
	w.Eventually(t, func() bool { return w.Refresh(t, task) }).Should(BeFalse())
}

func (w world) namesake(t *testing.T) {
	job := w.job(t, "namesake")
	earlier := job.DeepCopy()
	earlier.UID = types.UID("a-job-of-this-name-that-was-deleted")
	task := w.task(t, earlier)
	w.Eventually(t, func() bool { w.Refresh(t, task); return task.Spec.Cancel }).Should(BeTrue())
}

func (w world) settled(t *testing.T) {
	g := NewWithT(t)
	job := w.job(t, "settled", v1alpha1.FinalizerHostClean)
	task := w.task(t, job)
	w.Agent(t, task, stage.Claimed, stage.Succeeded)
	w.Status(t, job, func() {
		meta.SetStatusCondition(&job.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionSucceeded, Status: metav1.ConditionTrue, Reason: "Done"})
	})
	w.clock.SetTime(time.Now().Add(time.Hour))
	w.Consistently(t, func() bool { return w.Refresh(t, task) }).Should(BeTrue(), "the host is not clean yet")
	w.Edit(t, job, func() { job.Finalizers = nil })
	w.Eventually(t, func() bool { return w.Refresh(t, task) }).Should(BeFalse())
	g.Expect(w.Refresh(t, job)).To(BeTrue())
}
