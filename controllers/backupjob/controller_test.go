package backupjob_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/backupjob"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/delegation/test/stage"
)

type world struct{ stage.World }

func setUp(mgr ctrl.Manager) error {
	return backupjob.SetupWithManager(mgr, backupjob.Options{
		Delegator: delegation.New(mgr.GetClient(), mgr.GetAPIReader()), Clock: clock.RealClock{},
	})
}

func TestController(t *testing.T) {
	w := world{stage.New(t)}
	t.Run("a manager that is killed at any point changes nothing", w.restart)
	w.Manage(t, setUp)
	t.Run("at once", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"a backup's life":                          w.life,
			"a failure that a person must mend":        w.failure,
			"a virtual machine that is not there yet":  w.missingMachine,
			"a virtual machine that is gone":           w.goneMachine,
			"a host takes no more than it may":         w.limit,
			"one task for a virtual machine at a time": w.oneAtATime,
			"one backup at a time on a shared volume":  w.sharedVolume,
			"canceled":                                     w.cancel,
			"deleted while it runs":                        w.deletion,
			"a checkpoint that was left":                   w.release,
			"a host that never comes back":                 w.abandon,
			"an agent that is lost, and comes back":        w.lost,
			"a host that died, and its VM elsewhere":       w.failedOver,
			"a failure after publishing":                   w.failedAfterPublishing,
			"the method, and that of the newest image":     w.method,
			"excluded disks":                               w.excluded,
			"a namespace that is being deleted":            w.terminating,
			"an image that was deleted does not come back": w.noResurrection,
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(t) })
		}
	})
}

func (w world) job(t *testing.T, machine *v1alpha1.VirtualMachine, name string) *v1alpha1.BackupJob {
	t.Helper()
	job := &v1alpha1.BackupJob{ObjectMeta: metav1.ObjectMeta{Namespace: machine.Namespace, Name: name}}
	job.Spec.RepositoryRef.Name = stage.Repository
	job.Spec.VirtualMachineRef.Name = machine.Name
	w.Create(t, job)
	return job
}

// place makes a namespace, a host and a virtual machine of the same name.
func (w world) place(t *testing.T, name string) *v1alpha1.VirtualMachine {
	t.Helper()
	w.Namespace(t, name)
	w.Host(t, name, 2)
	return w.Machine(t, name, "crm", name)
}

func (w world) condition(t *testing.T, job *v1alpha1.BackupJob, kind string) func() string {
	return func() string {
		if !w.Refresh(t, job) {
			return "gone"
		}
		condition := meta.FindStatusCondition(job.Status.Conditions, kind)
		if condition == nil {
			return ""
		}
		return string(condition.Status) + " " + condition.Reason
	}
}

func (w world) verdict(t *testing.T, job *v1alpha1.BackupJob) func() string {
	return w.condition(t, job, v1alpha1.ConditionSucceeded)
}

func (w world) images(t *testing.T, namespace string) []v1alpha1.BackupImage {
	t.Helper()
	list := &v1alpha1.BackupImageList{}
	if err := w.Admin.List(t.Context(), list, client.InNamespace(namespace)); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func (w world) method(t *testing.T) {
	g := NewWithT(t)
	machine := w.place(t, "method")
	machine.Status.LastRestorePoint = &v1alpha1.RestorePoint{
		ImageRef: v1alpha1.ImageReference{Name: "i"}, Time: metav1.Now(), Consistency: v1alpha1.ConsistencyCrash, Method: v1alpha1.MethodVSS,
	}
	g.Expect(w.Admin.Status().Update(t.Context(), machine)).To(Succeed())
	task := w.Task(t, w.job(t, machine, "auto").UID, v1alpha1.TaskBackup)
	g.Expect(task.Spec.Backup.Method).To(Equal(v1alpha1.MethodChoiceAuto))
	g.Expect(task.Spec.Backup.OnMethodIneligible).To(Equal(v1alpha1.MethodIneligibleFallback))
	g.Expect(task.Spec.Backup.LastMethod).To(Equal(v1alpha1.MethodVSS), "DR-20: the agent stays with it")
}

func (w world) life(t *testing.T) {
	g := NewWithT(t)
	machine := w.place(t, "life")
	job := w.job(t, machine, "b1")
	task := w.Task(t, job.UID, v1alpha1.TaskBackup)
	g.Expect(task.Namespace).To(Equal("hyperkeep-host-life"))
	g.Expect(task.OwnerReferences).To(BeEmpty())
	g.Expect(task.Spec.Backup.ImageID).To(Equal(string(job.UID)))
	g.Expect(task.Spec.Backup.VirtualMachine.ID).To(Equal(machine.Status.Facts.ID))
	g.Expect(task.Spec.Repository.SecretName).To(Equal("repository-main"))
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown Placed"))
	g.Expect(job.Finalizers).To(ContainElement(v1alpha1.FinalizerHostClean))
	g.Expect(w.KStatus(t, job)).To(Equal("InProgress"))

	w.Agent(t, task, stage.Claimed, stage.Transferring)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown Running"))
	g.Expect(job.Status.Progress.BytesDone).To(Equal(int64(40)))
	w.Agent(t, task, func(task *v1alpha1.AgentTask) { task.Status.Progress.BytesDone = 50 })
	w.Eventually(t, func() int64 { w.Refresh(t, job); return job.Status.Progress.BytesDone }).Should(Equal(int64(50)))

	w.Agent(t, task, stage.Published, stage.Released, stage.Succeeded)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("True ImagePublished"))
	w.Eventually(t, func() []string { w.Refresh(t, job); return job.Finalizers }).Should(BeEmpty())
	g.Expect(w.condition(t, job, v1alpha1.ConditionComplete)()).To(Equal("True AllDisksIncluded"))
	g.Expect(w.condition(t, job, v1alpha1.ConditionCheckpointReleased)()).To(Equal("True Released"))
	g.Expect(w.KStatus(t, job)).To(Equal("Current"))

	images := w.images(t, "life")
	g.Expect(images).To(HaveLen(1))
	g.Expect(images[0].Name).To(Equal(job.Status.ImageRef.Name))
	g.Expect(images[0].OwnerReferences).To(BeEmpty(), "I8")
	g.Expect(images[0].Spec.DeletionPolicy).To(Equal(v1alpha1.DeletionRetain))
	table, err := w.Kubectl().Run(t.Context(), "get", "hvbj", "-n", "life")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(strings.Fields(strings.Split(table, "\n")[1])[:6]).To(Equal([]string{"b1", machine.Name, "Full", "WMI", "Application", "Succeeded"}))

	w.Delete(t, job)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("gone"))
	g.Expect(w.images(t, "life")).To(HaveLen(1), "deleting a finished job harms nothing (I8)")
}

func (w world) failure(t *testing.T) {
	g := NewWithT(t)
	job := w.job(t, w.place(t, "failure"), "b1")
	w.Agent(t, w.Task(t, job.UID, v1alpha1.TaskBackup), stage.Claimed, stage.Released, stage.Failed("GuestCannotQuiesce", v1alpha1.FailureStall))
	w.Eventually(t, w.verdict(t, job)).Should(Equal("False GuestCannotQuiesce"))
	g.Expect(job.Status.Phase).To(Equal("Failed"))
	g.Expect(job.Status.Failure.Message).To(Equal("it went wrong"), "C 28: the reason is in the object")
	g.Expect(w.KStatus(t, job)).To(Equal("Failed"))
	g.Expect(w.images(t, "failure")).To(BeEmpty())
	w.Eventually(t, func() string {
		out, _ := w.Kubectl().Run(t.Context(), "get", "events.events.k8s.io", "-n", "failure", "-o", "jsonpath={.items[*].reason}")
		return out
	}).Should(And(ContainSubstring("Placed"), ContainSubstring("GuestCannotQuiesce")))
}

func (w world) missingMachine(t *testing.T) {
	w.Namespace(t, "missing")
	w.Host(t, "missing", 1)
	later := &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Namespace: "missing", Name: "nobody"}}
	job := w.job(t, later, "b1")
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown VirtualMachineNotFound"))
	g := NewWithT(t)
	g.Expect(job.Status.Phase).To(Equal("Stalled"))
	g.Expect(w.KStatus(t, job)).To(Equal("Failed"))
	g.Expect(job.Finalizers).To(BeEmpty(), "C 23: finalizers only while something exists outside")
	w.Delete(t, job)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("gone"))

	machine := w.Machine(t, "missing", "crm", "missing")
	w.Delete(t, machine)
	job = w.job(t, machine, "b2")
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown VirtualMachineNotFound"))
	w.Machine(t, "missing", "crm", "missing")
	w.Task(t, job.UID, v1alpha1.TaskBackup)
}

func (w world) goneMachine(t *testing.T) {
	machine := w.place(t, "gone")
	host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: "gone"}}
	w.Edit(t, host, func() { host.Spec.Unschedulable = true })
	job := w.job(t, machine, "b1")
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown Queued"))
	NewWithT(t).Expect(job.Status.Conditions).To(ContainElement(HaveField("Message", ContainSubstring("spec.unschedulable"))))
	w.Condition(t, machine, &machine.Status.Conditions, v1alpha1.ConditionPresent, metav1.ConditionFalse, v1alpha1.ReasonNotFound)
	w.Eventually(t, func() string {
		w.Refresh(t, job)
		return fmt.Sprint(job.Status.Conditions)
	}).Should(ContainSubstring("was there until now"), "it may only be restored in place")
	w.Status(t, machine, func() {
		present := meta.FindStatusCondition(machine.Status.Conditions, v1alpha1.ConditionPresent)
		present.LastTransitionTime = metav1.NewTime(time.Now().Add(-2 * time.Minute))
	})
	w.Eventually(t, w.verdict(t, job)).Should(Equal("False VirtualMachineGone"))
}

func (w world) limit(t *testing.T) {
	g := NewWithT(t)
	w.Namespace(t, "limit")
	w.Host(t, "limit", 1)
	jobs := []*v1alpha1.BackupJob{
		w.job(t, w.Machine(t, "limit", "a", "limit"), "a"), w.job(t, w.Machine(t, "limit", "b", "limit"), "b"), w.job(t, w.Machine(t, "limit", "c", "limit"), "c"),
	}
	reasons := func() (placed, queued int) {
		for _, job := range jobs {
			switch w.verdict(t, job)() {
			case "Unknown Placed":
				placed++
			case "Unknown Queued":
				queued++
			}
		}
		return placed, queued
	}
	w.Eventually(t, func() []int { placed, queued := reasons(); return []int{placed, queued} }).Should(Equal([]int{1, 2}))
	tasks := &v1alpha1.AgentTaskList{}
	g.Expect(w.Admin.List(t.Context(), tasks, client.InNamespace("hyperkeep-host-limit"))).To(Succeed())
	g.Expect(tasks.Items).To(HaveLen(1))
	w.Agent(t, &tasks.Items[0], stage.Claimed, stage.Published, stage.Released, stage.Succeeded)
	w.Eventually(t, func() []int { placed, queued := reasons(); return []int{placed, queued} }).Should(Equal([]int{1, 1}))
}

func (w world) oneAtATime(t *testing.T) {
	machine := w.place(t, "single")
	first, second := w.job(t, machine, "b1"), w.job(t, machine, "b2")
	w.Eventually(t, func() int { return w.LiveTasks(t, machine.Status.Facts.ID) }).Should(Equal(1))
	w.Consistently(t, func() int { return w.LiveTasks(t, machine.Status.Facts.ID) }).Should(Equal(1))
	if len(w.Tasks(t, first.UID, v1alpha1.TaskBackup)) == 0 {
		first, second = second, first
	}
	w.Eventually(t, w.condition(t, second, v1alpha1.ConditionReconciling)).Should(Equal("True VirtualMachineBusy"))
	w.Agent(t, w.Task(t, first.UID, v1alpha1.TaskBackup), stage.Claimed, stage.Published, stage.Released, stage.Succeeded)
	w.Task(t, second.UID, v1alpha1.TaskBackup)
}

// sharedVolume backs two virtual machines up that lie on one volume of a cluster, from two of its nodes.
func (w world) sharedVolume(t *testing.T) {
	g := NewWithT(t)
	const volume = `C:\ClusterStorage\Volume1\`
	var jobs []*v1alpha1.BackupJob
	w.Namespace(t, "csv")
	for _, node := range []string{"csv-a", "csv-b"} {
		host := w.Host(t, node, 2)
		w.Edit(t, host, func() { host.Spec.VSSProvider = &v1alpha1.VSSProvider{ID: "b5946137-7b9f-4925-af80-51abd60b20d5"} })
		w.Status(t, host, func() {
			host.Status.Facts = &v1alpha1.HostFacts{ClusterName: "CL 1", Build: "20348", Volumes: []v1alpha1.HostVolume{{Path: volume, Shared: true}}}
		})
		machine := w.Machine(t, "csv", node, node)
		w.Status(t, machine, func() {
			machine.Status.Facts.Disks = []v1alpha1.VirtualMachineDisk{{Key: "SCSI-0-0", Kind: "VHDX", Path: volume + node + `\a.vhdx`}}
		})
		job := &v1alpha1.BackupJob{ObjectMeta: metav1.ObjectMeta{Namespace: "csv", Name: node}}
		job.Spec.RepositoryRef.Name, job.Spec.VirtualMachineRef.Name, job.Spec.Method = stage.Repository, machine.Name, v1alpha1.MethodChoiceVSS
		w.Create(t, job)
		jobs = append(jobs, job)
	}
	first, second := jobs[0], jobs[1]
	w.Eventually(t, func() int {
		return len(w.Tasks(t, first.UID, v1alpha1.TaskBackup)) + len(w.Tasks(t, second.UID, v1alpha1.TaskBackup))
	}).Should(Equal(1))
	if len(w.Tasks(t, first.UID, v1alpha1.TaskBackup)) == 0 {
		first, second = second, first
	}
	task := w.Task(t, first.UID, v1alpha1.TaskBackup)
	g.Expect(task.Spec.Backup.VSSProviderID).To(Equal("b5946137-7b9f-4925-af80-51abd60b20d5"), "DR-11")
	g.Expect(task.Spec.Backup.SharedVolumes).To(Equal([]string{volume}))
	w.Eventually(t, w.condition(t, second, v1alpha1.ConditionReconciling)).Should(Equal("True SharedVolumeBusy"), "DR-09")
	g.Expect(second.Status.Conditions).To(ContainElement(HaveField("Message", ContainSubstring("BackupJob csv/"+first.Name+" on host "+first.Name))))
	w.Agent(t, task, stage.Claimed, stage.Published, stage.Released, stage.Succeeded)
	w.Task(t, second.UID, v1alpha1.TaskBackup)
}

func (w world) cancel(t *testing.T) {
	g := NewWithT(t)
	job := w.job(t, w.place(t, "cancel"), "b1")
	task := w.Task(t, job.UID, v1alpha1.TaskBackup)
	w.Agent(t, task, stage.Claimed)
	w.Edit(t, job, func() { job.Spec.Cancel = true })
	w.Eventually(t, func() bool { w.Refresh(t, task); return task.Spec.Cancel }).Should(BeTrue())
	g.Expect(w.verdict(t, job)()).To(HavePrefix("Unknown"))
	w.Agent(t, task, stage.Released, stage.Failed(v1alpha1.ReasonCanceled, v1alpha1.FailureStall))
	w.Eventually(t, w.verdict(t, job)).Should(Equal("False Canceled"))
	g.Expect(job.Status.Phase).To(Equal("Canceled"))
	g.Expect(w.images(t, "cancel")).To(BeEmpty())
}

func (w world) deletion(t *testing.T) {
	job := w.job(t, w.place(t, "deletion"), "b1")
	task := w.Task(t, job.UID, v1alpha1.TaskBackup)
	w.Agent(t, task, stage.Claimed)
	w.Delete(t, job)
	w.Eventually(t, func() bool { w.Refresh(t, task); return task.Spec.Cancel }).Should(BeTrue())
	w.Consistently(t, func() bool { return w.Refresh(t, job) }).Should(BeTrue(), "the host is not clean yet (I4)")
	NewWithT(t).Expect(w.KStatus(t, job)).To(Equal("Terminating"))
	w.Agent(t, task, stage.Released, stage.Failed(v1alpha1.ReasonCanceled, v1alpha1.FailureStall))
	w.Eventually(t, func() bool { return w.Refresh(t, job) }).Should(BeFalse())
}

func (w world) release(t *testing.T) {
	g := NewWithT(t)
	machine := w.place(t, "release")
	job := w.job(t, machine, "b1")
	task := w.Task(t, job.UID, v1alpha1.TaskBackup)
	w.Agent(t, task, stage.Claimed, stage.Published, stage.NotReleased, stage.Succeeded)
	release := w.Task(t, job.UID, v1alpha1.TaskRelease)
	g.Expect(*release.Spec.Release).To(Equal(v1alpha1.ReleaseTask{VirtualMachineID: machine.Status.Facts.ID, Tag: string(task.UID)}))
	g.Expect(w.verdict(t, job)()).To(Equal("True ImagePublished"), "the image does not wait for that")
	g.Expect(w.condition(t, job, v1alpha1.ConditionCheckpointReleased)()).To(Equal("False MergePending"), "C 48")
	g.Expect(job.Finalizers).NotTo(BeEmpty())
	w.Agent(t, release, stage.Claimed, stage.Succeeded)
	w.Eventually(t, w.condition(t, job, v1alpha1.ConditionCheckpointReleased)).Should(Equal("True Released"))
	w.Eventually(t, func() []string { w.Refresh(t, job); return job.Finalizers }).Should(BeEmpty())
}

func (w world) abandon(t *testing.T) {
	job := w.job(t, w.place(t, "abandon"), "b1")
	w.Agent(t, w.Task(t, job.UID, v1alpha1.TaskBackup), stage.Claimed)
	w.Delete(t, job)
	w.Consistently(t, func() bool { return w.Refresh(t, job) }).Should(BeTrue())
	w.Edit(t, job, func() { job.Annotations = map[string]string{v1alpha1.AnnotationAbandon: "the host burnt"} })
	w.Eventually(t, func() bool { return w.Refresh(t, job) }).Should(BeFalse())
	w.Eventually(t, func() string {
		out, _ := w.Kubectl().Run(t.Context(), "get", "events.events.k8s.io", "-n", "abandon", "-o", "jsonpath={.items[*].note}")
		return out
	}).Should(ContainSubstring("the host burnt"))
}

func (w world) lost(t *testing.T) {
	g := NewWithT(t)
	job := w.job(t, w.place(t, "lost"), "b1")
	task := w.Task(t, job.UID, v1alpha1.TaskBackup)
	w.Agent(t, task, stage.Claimed)
	host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: "lost"}}
	w.Refresh(t, host)
	w.Condition(t, host, &host.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonAgentLost)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown HostUnreachable"))
	g.Expect(w.KStatus(t, job)).To(Equal("InProgress"))
	w.Condition(t, host, &host.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAgentAlive)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown Running"), "C 2: a run whose agent lives is left alone")
	w.Agent(t, task, stage.Published, stage.Released, stage.Succeeded)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("True ImagePublished"))
	g.Expect(w.Tasks(t, job.UID, v1alpha1.TaskBackup)).To(HaveLen(1))
}

// failedOver is a cluster's virtual machine whose host died in the middle of a backup.
func (w world) failedOver(t *testing.T) {
	machine := w.place(t, "burnt")
	first := w.job(t, machine, "b1")
	w.Agent(t, w.Task(t, first.UID, v1alpha1.TaskBackup), stage.Claimed)
	w.Host(t, "burnt-not", 1)
	w.Status(t, machine, func() { machine.Status.HostName = "burnt-not" })
	second := w.job(t, machine, "b2")
	w.Eventually(t, w.condition(t, second, v1alpha1.ConditionReconciling)).Should(Equal("True VirtualMachineBusy"), "the agent of the old host lives")
	host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: "burnt"}}
	w.Refresh(t, host)
	w.Condition(t, host, &host.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonAgentLost)
	task := w.Task(t, second.UID, v1alpha1.TaskBackup)
	NewWithT(t).Expect(task.Namespace).To(Equal("hyperkeep-host-burnt-not"))
}

func (w world) failedAfterPublishing(t *testing.T) {
	job := w.job(t, w.place(t, "published"), "b1")
	w.Agent(t, w.Task(t, job.UID, v1alpha1.TaskBackup), stage.Claimed, stage.Published, stage.Released, stage.Failed("ConvertFailed", v1alpha1.FailureStall))
	w.Eventually(t, w.verdict(t, job)).Should(Equal("False ConvertFailed"))
	NewWithT(t).Expect(w.images(t, "published")).To(HaveLen(1), "what exists is on record")
}

func (w world) excluded(t *testing.T) {
	job := w.job(t, w.place(t, "excluded"), "b1")
	w.Agent(t, w.Task(t, job.UID, v1alpha1.TaskBackup), stage.Claimed, stage.Published, stage.Released, stage.Succeeded, func(task *v1alpha1.AgentTask) {
		task.Status.Image.Disks[1] = v1alpha1.DiskSummary{Key: "SCSI-0-1", Included: v1alpha1.DiskExcluded, Reason: "PassThrough", Message: "a pass-through disk"}
	})
	w.Eventually(t, w.verdict(t, job)).Should(Equal("True ImagePublished"))
	g := NewWithT(t)
	g.Expect(w.condition(t, job, v1alpha1.ConditionComplete)()).To(Equal("False DisksExcluded"), "C 29, I9")
	g.Expect(meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionComplete).Message).To(ContainSubstring("SCSI-0-1"))
}

// terminating deletes a namespace in the middle of a backup. There is no namespace controller here: the test deletes the job in its place.
func (w world) terminating(t *testing.T) {
	job := w.job(t, w.place(t, "terminating"), "b1")
	task := w.Task(t, job.UID, v1alpha1.TaskBackup)
	w.Agent(t, task, stage.Claimed)
	w.Delete(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "terminating"}})
	w.Delete(t, job)
	w.Agent(t, task, stage.Published, stage.Released, stage.Succeeded)
	w.Eventually(t, func() bool { return w.Refresh(t, job) }).Should(BeFalse(), "C 23: no deletion hangs")
}

func (w world) noResurrection(t *testing.T) {
	g := NewWithT(t)
	job := w.job(t, w.place(t, "resurrect"), "b1")
	w.Agent(t, w.Task(t, job.UID, v1alpha1.TaskBackup), stage.Claimed, stage.Published, stage.NotReleased, stage.Succeeded)
	release := w.Task(t, job.UID, v1alpha1.TaskRelease)
	images := w.images(t, "resurrect")
	g.Expect(images).To(HaveLen(1))
	w.Delete(t, &images[0])
	w.Agent(t, release, stage.Claimed, stage.Succeeded)
	w.Eventually(t, func() []string { w.Refresh(t, job); return job.Finalizers }).Should(BeEmpty())
	g.Expect(w.images(t, "resurrect")).To(BeEmpty(), "C 20")
}

// restart stops the manager between any two steps of a backup, and goes on with two managers at once.
func (w world) restart(t *testing.T) {
	g := NewWithT(t)
	stop := w.Manage(t, setUp)
	machine := w.place(t, "restart")
	job := w.job(t, machine, "b1")
	task := w.Task(t, job.UID, v1alpha1.TaskBackup)
	stop()
	w.Agent(t, task, stage.Claimed, stage.Transferring)
	stop = w.Manage(t, setUp)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown Running"), "C 1, C 2")
	stop()
	w.Agent(t, task, stage.Published, stage.NotReleased, stage.Succeeded)
	stop = w.Manage(t, setUp)
	release := w.Task(t, job.UID, v1alpha1.TaskRelease)
	stop()
	g.Expect(w.verdict(t, job)()).To(Equal("True ImagePublished"))
	w.Agent(t, release, stage.Claimed, stage.Succeeded)
	// Leader election keeps two managers apart, but for a moment that must do no harm (I5).
	for range 2 {
		w.Manage(t, setUp)
	}
	w.Eventually(t, func() []string { w.Refresh(t, job); return job.Finalizers }).Should(BeEmpty())
	second := w.job(t, machine, "b2")
	other := w.Task(t, second.UID, v1alpha1.TaskBackup)
	w.Agent(t, other, stage.Claimed, stage.Published, stage.Released, stage.Succeeded)
	w.Eventually(t, w.verdict(t, second)).Should(Equal("True ImagePublished"))
	g.Expect(w.Tasks(t, job.UID, v1alpha1.TaskBackup)).To(HaveLen(1))
	g.Expect(w.Tasks(t, second.UID, v1alpha1.TaskBackup)).To(HaveLen(1))
	g.Expect(w.images(t, "restart")).To(HaveLen(2))
}
