package backuppolicy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/backuppolicy"
	"github.com/hyperkeep/hyperkeep/controllers/delegation/test/stage"
)

// world has a clock that only the tests move. They share it, so they run one after the other.
type world struct {
	stage.World
	clock *clocktesting.FakePassiveClock
}

func TestController(t *testing.T) {
	w := world{stage.New(t), clocktesting.NewFakePassiveClock(time.Now())}
	w.run(t, "a manager that is killed at any point changes nothing", w.restart)
	w.Manage(t, w.setUp)
	w.run(t, "a policy's life", w.life)
	w.run(t, "runNow", w.runNow)
	w.run(t, "a run that selects nothing", w.nothingSelected)
	w.run(t, "suspended and resumed", w.suspend)
	w.run(t, "what is wrong is said", w.wrong)
	w.run(t, "a promise is broken by time alone", w.objective)
	w.run(t, "old jobs go", w.history)
	w.run(t, "a job of the same name", w.nameTaken)
}

// run begins at the present, by which the API server dates what is made.
func (w world) run(t *testing.T, name string, test func(*testing.T)) {
	w.clock.SetTime(time.Now())
	t.Run(name, test)
}

func (w world) setUp(mgr ctrl.Manager) error {
	return backuppolicy.SetupWithManager(mgr, backuppolicy.Options{Clock: w.clock})
}

// hourly has its next slot in half an hour, so that none is near while a test runs.
func hourly(p *v1alpha1.BackupPolicy) {
	cron := fmt.Sprintf("%d * * * *", (time.Now().Minute()+30)%60)
	p.Spec.Schedules = []v1alpha1.Schedule{{Name: "hourly", Cron: cron, TimeZone: "Europe/Berlin"}}
}

func (w world) policy(t *testing.T, namespace string, edits ...func(*v1alpha1.BackupPolicy)) *v1alpha1.BackupPolicy {
	t.Helper()
	policy := &v1alpha1.BackupPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "gold"}}
	policy.Labels = map[string]string{"app.kubernetes.io/instance": "argo"}
	policy.Spec.RepositoryRef.Name = stage.Repository
	policy.Spec.Selection.All = ptr.To(true)
	for _, edit := range edits {
		edit(policy)
	}
	w.Create(t, policy)
	return policy
}

func (w world) ready(t *testing.T, policy *v1alpha1.BackupPolicy) func() string {
	return w.condition(t, policy, v1alpha1.ConditionReady)
}

func (w world) condition(t *testing.T, policy *v1alpha1.BackupPolicy, kind string) func() string {
	return func() string {
		w.Refresh(t, policy)
		condition := meta.FindStatusCondition(policy.Status.Conditions, kind)
		if condition == nil || policy.Status.ObservedGeneration != policy.Generation {
			return ""
		}
		return string(condition.Status) + " " + condition.Reason
	}
}

func (w world) jobs(t *testing.T, namespace string) []v1alpha1.BackupJob {
	t.Helper()
	jobs := &v1alpha1.BackupJobList{}
	if err := w.Admin.List(t.Context(), jobs, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	return jobs.Items
}

// pass moves the clock, and wakes the policy, which would otherwise sleep on by the real one.
func (w world) pass(t *testing.T, policy *v1alpha1.BackupPolicy, d time.Duration) {
	t.Helper()
	w.clock.SetTime(w.clock.Now().Add(d))
	w.Edit(t, policy, func() { policy.Annotations = map[string]string{"woken": fmt.Sprint(w.clock.Now().UnixNano())} })
}

func (w world) finish(t *testing.T, job *v1alpha1.BackupJob, status metav1.ConditionStatus) {
	t.Helper()
	w.Status(t, job, func() {
		meta.SetStatusCondition(&job.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionSucceeded, Status: status, Reason: "Done"})
		job.Status.CompletionTime = ptr.To(metav1.NewTime(w.clock.Now()))
	})
}

func (w world) life(t *testing.T) {
	g := NewWithT(t)
	w.Namespace(t, "life")
	crm, web := w.Machine(t, "life", "crm", "hv01"), w.Machine(t, "life", "web", "hv01")
	exempt := w.Machine(t, "life", "scratch", "hv01")
	w.Edit(t, exempt, func() { exempt.Spec.Exemption = &v1alpha1.Exemption{Reason: "scratch"} })
	policy := w.policy(t, "life", hourly)
	w.Eventually(t, w.ready(t, policy)).Should(Equal("True Scheduled"))
	g.Expect(w.KStatus(t, policy)).To(Equal("Current"))
	g.Expect(*policy.Status.VirtualMachines).To(Equal(int32(2)))
	g.Expect(w.jobs(t, "life")).To(BeEmpty(), "C 25: nothing runs at creation")

	w.pass(t, policy, time.Hour)
	w.Eventually(t, func() int { return len(w.jobs(t, "life")) }).Should(Equal(2))
	w.Consistently(t, func() int { return len(w.jobs(t, "life")) }).Should(Equal(2), "a slot runs once")
	for _, job := range w.jobs(t, "life") {
		g.Expect([]string{crm.Name, web.Name}).To(ContainElement(job.Spec.VirtualMachineRef.Name))
		g.Expect(metav1.IsControlledBy(&job, policy)).To(BeTrue())
		g.Expect(job.Labels).NotTo(HaveKey("app.kubernetes.io/instance"), "C 17")
		g.Expect(job.Spec.Origin.Trigger).To(Equal(v1alpha1.TriggerSchedule))
	}

	// The one for web goes on while the next slot comes: it is left out then.
	jobs := w.jobs(t, "life")
	if jobs[0].Spec.VirtualMachineRef.Name != crm.Name {
		jobs[0], jobs[1] = jobs[1], jobs[0]
	}
	w.finish(t, &jobs[0], metav1.ConditionTrue)
	w.Eventually(t, func() int32 { w.Refresh(t, policy); return policy.Status.LastRun.Succeeded }).Should(Equal(int32(1)))
	w.pass(t, policy, time.Hour)
	w.Eventually(t, func() int { return len(w.jobs(t, "life")) }).Should(Equal(3))
	w.Consistently(t, func() int { return len(w.jobs(t, "life")) }).Should(Equal(3), "C 12: at most one pending for each virtual machine")
	w.Eventually(t, w.reasons(t, "life")).Should(And(ContainSubstring("RunStarted"), ContainSubstring("VirtualMachineBusy")))
	table, err := w.Kubectl().Run(t.Context(), "get", "hvbp", "-n", "life")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(strings.Join(strings.Fields(strings.Split(table, "\n")[1]), " ")).To(HavePrefix("gold " + policy.Spec.Schedules[0].Cron + " main 2 "))

	w.Delete(t, policy)
	w.Eventually(t, func() bool { return w.Refresh(t, policy) }).Should(BeFalse(), "no finalizer holds a policy (C 23)")
}

func (w world) reasons(t *testing.T, namespace string) func() string {
	return func() string {
		out, _ := w.Kubectl().Run(t.Context(), "get", "events.events.k8s.io", "-n", namespace, "-o", "jsonpath={.items[*].reason}")
		return out
	}
}

func (w world) runNow(t *testing.T) {
	g := NewWithT(t)
	w.Namespace(t, "now")
	w.Machine(t, "now", "crm", "hv01")
	policy := w.policy(t, "now", func(p *v1alpha1.BackupPolicy) {
		p.Spec.RunNow = &v1alpha1.RunNow{Token: "2026-07-06", Type: v1alpha1.RunFull}
	})
	w.Eventually(t, func() int { return len(w.jobs(t, "now")) }).Should(Equal(1))
	job := w.jobs(t, "now")[0]
	g.Expect(job.Spec.Type).To(Equal(v1alpha1.RunFull))
	g.Expect(job.Spec.Origin.Trigger).To(Equal(v1alpha1.TriggerRunNow))
	w.finish(t, &job, metav1.ConditionTrue)
	w.pass(t, policy, time.Minute)
	w.Consistently(t, func() int { return len(w.jobs(t, "now")) }).Should(Equal(1), "a token is used once (C 53)")
	w.Edit(t, policy, func() { policy.Spec.RunNow.Token = "again" })
	w.Eventually(t, func() int { return len(w.jobs(t, "now")) }).Should(Equal(2))
}

func (w world) nothingSelected(t *testing.T) {
	w.Namespace(t, "empty")
	policy := w.policy(t, "empty", hourly)
	w.Eventually(t, w.ready(t, policy)).Should(Equal("True NoVirtualMachinesSelected"))
	w.pass(t, policy, time.Hour)
	w.Eventually(t, func() bool { w.Refresh(t, policy); return policy.Status.LastRun != nil }).Should(BeTrue(), "C 13: the run ends at once")
	w.Eventually(t, w.reasons(t, "empty")).Should(ContainSubstring("NoVirtualMachinesSelected"))
	NewWithT(t).Expect(w.jobs(t, "empty")).To(BeEmpty())
}

func (w world) suspend(t *testing.T) {
	w.Namespace(t, "suspended")
	w.Machine(t, "suspended", "crm", "hv01")
	policy := w.policy(t, "suspended", hourly, func(p *v1alpha1.BackupPolicy) { p.Spec.Suspend = true })
	w.Eventually(t, w.ready(t, policy)).Should(Equal("True Suspended"), "C 33")
	w.pass(t, policy, 3*time.Hour)
	w.Consistently(t, func() int { return len(w.jobs(t, "suspended")) }).Should(BeZero())
	w.Edit(t, policy, func() { policy.Spec.Suspend = false })
	w.Eventually(t, w.ready(t, policy)).Should(Equal("True Scheduled"))
	w.Consistently(t, func() int { return len(w.jobs(t, "suspended")) }).Should(BeZero(), "C 25: nothing is made up for")
	w.pass(t, policy, time.Hour)
	w.Eventually(t, func() int { return len(w.jobs(t, "suspended")) }).Should(Equal(1))
}

func (w world) wrong(t *testing.T) {
	g := NewWithT(t)
	w.Namespace(t, "wrong")
	machine := w.Machine(t, "wrong", "crm", "hv01")
	policy := w.policy(t, "wrong", func(p *v1alpha1.BackupPolicy) {
		p.Spec.Schedules = []v1alpha1.Schedule{{Name: "x", Cron: "0 25 * * *", TimeZone: "UTC"}}
	})
	w.Eventually(t, w.ready(t, policy)).Should(Equal("False InvalidSchedule"))
	g.Expect(w.KStatus(t, policy)).To(Equal("Failed"))
	w.Edit(t, policy, func() { hourly(policy); policy.Spec.RepositoryRef.Name = "later" })
	w.Eventually(t, w.ready(t, policy)).Should(Equal("False RepositoryNotFound"))
	g.Expect(w.KStatus(t, policy)).To(Equal("InProgress"), "it may come")
	repository := &v1alpha1.BackupRepository{ObjectMeta: metav1.ObjectMeta{Name: "later"}}
	repository.Spec.Location.Filesystem = &v1alpha1.FilesystemLocation{Path: "/later"}
	repository.Spec.SecretName, repository.Spec.AllowedNamespaces = "later", []string{"others"}
	w.Create(t, repository)
	w.Eventually(t, w.ready(t, policy)).Should(Equal("False RepositoryNotAllowed"))
	g.Expect(w.KStatus(t, policy)).To(Equal("Failed"))
	w.Edit(t, repository, func() { repository.Spec.AllowedNamespaces = []string{"wrong"} })
	w.Eventually(t, w.ready(t, policy)).Should(Equal("True Scheduled"))
	w.Edit(t, policy, func() { policy.Spec.Selection = v1alpha1.Selection{Names: []string{machine.Name, "nobody"}} })
	w.Eventually(t, w.ready(t, policy)).Should(Equal("True SelectionNamesUnknownVirtualMachine"))
	g.Expect(*policy.Status.VirtualMachines).To(Equal(int32(1)), "the others go on")
}

func (w world) objective(t *testing.T) {
	g := NewWithT(t)
	w.Namespace(t, "rpo")
	machine := w.Machine(t, "rpo", "crm", "hv01")
	policy := w.policy(t, "rpo", func(p *v1alpha1.BackupPolicy) { p.Spec.Objectives = &v1alpha1.Objectives{RPO: "4h"} })
	w.Eventually(t, w.condition(t, policy, v1alpha1.ConditionRPOMet)).Should(Equal("False NeverBackedUp"))
	g.Expect(w.KStatus(t, policy)).To(Equal("Current"), "Ready never depends on how backups went")
	point := w.clock.Now().Add(-4 * time.Hour).Add(2 * time.Second)
	w.Status(t, machine, func() {
		machine.Status.LastRestorePoint = &v1alpha1.RestorePoint{ImageRef: v1alpha1.ImageReference{Name: "i"}, Time: metav1.NewTime(point), Consistency: v1alpha1.ConsistencyCrash}
	})
	w.Eventually(t, w.condition(t, policy, v1alpha1.ConditionRPOMet)).Should(Equal("True Met"))
	g.Expect(policy.Status.Compliance).To(Equal("1/1"))
	w.clock.SetTime(w.clock.Now().Add(time.Hour)) // and nothing else happens
	w.Eventually(t, w.condition(t, policy, v1alpha1.ConditionRPOMet)).Should(Equal("False Missed"))
	g.Expect(policy.Status.Compliance).To(Equal("0/1"))
}

func (w world) history(t *testing.T) {
	w.Namespace(t, "history")
	w.Machine(t, "history", "crm", "hv01")
	policy := w.policy(t, "history", hourly, func(p *v1alpha1.BackupPolicy) { p.Spec.History = v1alpha1.JobHistory{Succeeded: 1, Failed: 1} })
	w.Eventually(t, w.ready(t, policy)).Should(Equal("True Scheduled"))
	stranger := &v1alpha1.BackupJob{ObjectMeta: metav1.ObjectMeta{Namespace: "history", Name: "by-hand", Labels: map[string]string{v1alpha1.LabelPolicyUID: string(policy.UID)}}}
	stranger.Spec.RepositoryRef.Name, stranger.Spec.VirtualMachineRef.Name = stage.Repository, "crm"
	w.Create(t, stranger)
	w.finish(t, stranger, metav1.ConditionTrue)
	var last string
	for i, verdict := range []metav1.ConditionStatus{"True", "False", "True"} {
		w.pass(t, policy, time.Hour)
		w.Eventually(t, func() string { w.Refresh(t, policy); return lastRun(policy) }).ShouldNot(Or(BeEmpty(), Equal(last)), fmt.Sprint("run ", i))
		last = lastRun(policy)
		for _, job := range w.jobs(t, "history") {
			if !meta.IsStatusConditionPresentAndEqual(job.Status.Conditions, v1alpha1.ConditionSucceeded, "True") && job.Labels[v1alpha1.LabelRunID] == last {
				w.finish(t, &job, verdict)
			}
		}
	}
	w.Eventually(t, func() int { return len(w.jobs(t, "history")) }).Should(Equal(3), "one good, one bad, and the one that is not the policy's (C 36)")
	w.Consistently(t, func() bool { return w.Refresh(t, stranger) }).Should(BeTrue())
}

func lastRun(policy *v1alpha1.BackupPolicy) string {
	if policy.Status.LastRun == nil {
		return ""
	}
	return policy.Status.LastRun.ID
}

// nameTaken has somebody else make an object of the name that a job is going to have.
func (w world) nameTaken(t *testing.T) {
	w.Namespace(t, "taken")
	w.Machine(t, "taken", "crm", "hv01")
	policy := w.policy(t, "taken", hourly)
	w.Eventually(t, w.ready(t, policy)).Should(Equal("True Scheduled"))
	w.pass(t, policy, time.Hour)
	w.Eventually(t, func() int { return len(w.jobs(t, "taken")) }).Should(Equal(1))
	job := w.jobs(t, "taken")[0]
	w.Edit(t, &job, func() { job.OwnerReferences, job.Labels = nil, nil })
	w.Status(t, policy, func() { policy.Status.Schedules[0].LastSlot = metav1.NewTime(w.clock.Now().Add(-90 * time.Minute)) })
	w.Eventually(t, w.reasons(t, "taken")).Should(ContainSubstring("JobNameTaken"), "C 8: the schedule goes on")
	w.pass(t, policy, time.Hour)
	w.Eventually(t, func() int { return len(w.jobs(t, "taken")) }).Should(Equal(2))
}

// restart kills the manager after a run was started, and takes the memory of it away.
func (w world) restart(t *testing.T) {
	w.Namespace(t, "restart")
	w.Machine(t, "restart", "crm", "hv01")
	stop := w.Manage(t, w.setUp)
	policy := w.policy(t, "restart", hourly)
	w.Eventually(t, w.ready(t, policy)).Should(Equal("True Scheduled"))
	before := policy.DeepCopy()
	stop()
	w.clock.SetTime(w.clock.Now().Add(5 * time.Hour))
	stop = w.Manage(t, w.setUp)
	w.Eventually(t, func() int { return len(w.jobs(t, "restart")) }).Should(Equal(1))
	stop()
	w.Status(t, policy, func() { policy.Status = before.Status }) // as if it was killed before it could write that
	w.Manage(t, w.setUp)
	w.Manage(t, w.setUp)
	w.Eventually(t, func() bool { w.Refresh(t, policy); return policy.Status.LastRun != nil }).Should(BeTrue())
	w.Consistently(t, func() int { return len(w.jobs(t, "restart")) }).Should(Equal(1), "C 12, I5: five missed slots are one run, started once")
}
