package restorejob_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/backupjob"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/delegation/test/stage"
	"github.com/hyperkeep/hyperkeep/controllers/restorejob"
)

type world struct{ stage.World }

// setUp runs the controller of backups too: both share one Delegator, and get out of each other's way.
func setUp(mgr ctrl.Manager) error {
	delegator := delegation.New(mgr.GetClient(), mgr.GetAPIReader())
	if err := backupjob.SetupWithManager(mgr, backupjob.Options{Delegator: delegator, Clock: clock.RealClock{}}); err != nil {
		return err
	}
	return restorejob.SetupWithManager(mgr, restorejob.Options{Delegator: delegator, Clock: clock.RealClock{}})
}

func TestController(t *testing.T) {
	w := world{stage.New(t)}
	t.Run("a manager that is killed at any point changes nothing", w.restart)
	w.Manage(t, setUp)
	t.Run("at once", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"a restore's life":                   w.life,
			"a restore waits for its image":      w.waits,
			"a damaged image":                    w.damaged,
			"a failure that a person must mend":  w.failure,
			"a virtual machine without an image": w.noImage,
			"in place of the original":           w.replace,
			"canceled":                           w.cancel,
			"deleted while it runs":              w.deletion,
			"it is immutable":                    w.immutable,
			"single disks, and a rollback":       w.parts,
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(t) })
		}
	})
}

func restored(t *v1alpha1.AgentTask) {
	t.Status.Restored = &v1alpha1.RestoredVirtualMachine{ID: "id-new", Name: "crm-restored", Paths: []string{`D:\VMs\crm.vhdx`}, WrittenBytes: 42}
}

func (w world) restore(t *testing.T, namespace string, edit func(*v1alpha1.RestoreJobSpec)) *v1alpha1.RestoreJob {
	t.Helper()
	job := &v1alpha1.RestoreJob{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "r1"}}
	edit(&job.Spec)
	w.Create(t, job)
	return job
}

func from(image *v1alpha1.BackupImage) func(*v1alpha1.RestoreJobSpec) {
	return func(s *v1alpha1.RestoreJobSpec) { s.Source.ImageRef = &v1alpha1.ImageReference{Name: image.Name} }
}

func newestOf(machine *v1alpha1.VirtualMachine) func(*v1alpha1.RestoreJobSpec) {
	return func(s *v1alpha1.RestoreJobSpec) {
		s.Source.VirtualMachine = &v1alpha1.VirtualMachineSource{Name: machine.Name}
	}
}

func (w world) place(t *testing.T, name string) *v1alpha1.VirtualMachine {
	t.Helper()
	w.Namespace(t, name)
	w.Host(t, name, 2)
	return w.Machine(t, name, "crm", name)
}

func (w world) verdict(t *testing.T, job *v1alpha1.RestoreJob) func() string {
	return func() string {
		if !w.Refresh(t, job) {
			return "gone"
		}
		verdict := meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionSucceeded)
		if verdict == nil {
			return ""
		}
		return string(verdict.Status) + " " + verdict.Reason
	}
}

func (w world) life(t *testing.T) {
	g := NewWithT(t)
	machine := w.place(t, "life")
	w.Image(t, machine, "old", 9)
	newer := w.Image(t, machine, "new", 1)
	job := w.restore(t, "life", newestOf(machine))
	task := w.Task(t, job.UID, v1alpha1.TaskRestore)
	g.Expect(*task.Spec.Restore).To(Equal(v1alpha1.RestoreTask{
		ImageID: "new", VirtualMachineID: newer.Spec.VirtualMachine.ID, Digest: newer.Spec.Summary.Digest,
		Overwrite: v1alpha1.OverwriteNever, Name: "crm-restored", Blocks: v1alpha1.BlocksAll, RestoreID: string(job.UID), State: v1alpha1.RestoredAsRecorded,
	}))
	g.Expect(task.Labels).NotTo(HaveKey(v1alpha1.LabelVirtualMachineID), "a new virtual machine is in nobody's way")
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown Placed"))
	g.Expect(job.Status.ImageRef.Name).To(Equal(newer.Name))
	g.Expect(w.KStatus(t, job)).To(Equal("InProgress"))
	w.Agent(t, task, stage.Claimed, stage.Transferring)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown Running"))
	w.Agent(t, task, restored, stage.Succeeded)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("True Restored"))
	w.Eventually(t, func() []string { w.Refresh(t, job); return job.Finalizers }).Should(BeEmpty())
	g.Expect(job.Status.Restored.ID).To(Equal("id-new"))
	g.Expect(meta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.ConditionComplete)).To(BeTrue())
	g.Expect(w.KStatus(t, job)).To(Equal("Current"))
	table, err := w.Kubectl().Run(t.Context(), "get", "hvrj", "-n", "life")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(strings.Fields(strings.Split(table, "\n")[1])[:4]).To(Equal([]string{"r1", "new", "Never", "Succeeded"}))
}

func (w world) waits(t *testing.T) {
	machine := w.place(t, "waits")
	image := w.Image(t, machine, "i", 1)
	w.Condition(t, image, &image.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonExpiring)
	job := w.restore(t, "waits", from(image))
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown Queued"), "C 11")
	w.Condition(t, image, &image.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonPublished)
	w.Task(t, job.UID, v1alpha1.TaskRestore)
}

func (w world) damaged(t *testing.T) {
	g := NewWithT(t)
	machine := w.place(t, "damaged")
	image := w.Image(t, machine, "i", 1)
	w.Condition(t, image, &image.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonDamaged)
	job := w.restore(t, "damaged", from(image))
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown Damaged"))
	g.Expect(w.KStatus(t, job)).To(Equal("Failed"), "stalled at once, not at its deadline")
	w.Condition(t, image, &image.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonPublished)
	w.Task(t, job.UID, v1alpha1.TaskRestore)
}

func (w world) failure(t *testing.T) {
	job := w.restore(t, "default", func(s *v1alpha1.RestoreJobSpec) {
		machine := w.place(t, "failure")
		job := w.restore(t, "failure", from(w.Image(t, machine, "i", 1)))
		w.Agent(t, w.Task(t, job.UID, v1alpha1.TaskRestore), stage.Claimed, stage.Failed("NoSpace", v1alpha1.FailureStall))
		w.Eventually(t, w.verdict(t, job)).Should(Equal("False NoSpace"), "C 16")
		NewWithT(t).Expect(w.KStatus(t, job)).To(Equal("Failed"))
		s.Source.ImageRef = &v1alpha1.ImageReference{Name: "i"} // of another namespace
	})
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown ImageNotFound"))
	NewWithT(t).Expect(w.KStatus(t, job)).To(Equal("Failed"), "stalled")
}

func (w world) noImage(t *testing.T) {
	machine := w.place(t, "none")
	job := w.restore(t, "none", newestOf(machine))
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown NoImage"))
	w.Delete(t, job)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("gone"))
}

func (w world) replace(t *testing.T) {
	g := NewWithT(t)
	machine := w.place(t, "replace")
	image := w.Image(t, machine, "i", 1)
	backup := &v1alpha1.BackupJob{ObjectMeta: metav1.ObjectMeta{Namespace: "replace", Name: "b1"}}
	backup.Spec.RepositoryRef.Name, backup.Spec.VirtualMachineRef.Name = stage.Repository, machine.Name
	w.Create(t, backup)
	running := w.Task(t, backup.UID, v1alpha1.TaskBackup)
	job := w.restore(t, "replace", func(s *v1alpha1.RestoreJobSpec) { from(image)(s); s.Overwrite = v1alpha1.OverwriteReplace })
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown Queued"))
	g.Expect(job.Status.Conditions).To(ContainElement(HaveField("Reason", v1alpha1.ReasonVirtualMachineBusy)))
	w.Agent(t, running, stage.Claimed, stage.Published, stage.Released, stage.Succeeded)
	task := w.Task(t, job.UID, v1alpha1.TaskRestore)
	g.Expect(task.Labels).To(HaveKeyWithValue(v1alpha1.LabelVirtualMachineID, machine.Status.Facts.ID))
	g.Expect(task.Spec.Restore.Name).To(BeEmpty())
	g.Expect(w.LiveTasks(t, machine.Status.Facts.ID)).To(Equal(1))
}

func (w world) cancel(t *testing.T) {
	machine := w.place(t, "cancel")
	job := w.restore(t, "cancel", from(w.Image(t, machine, "i", 1)))
	task := w.Task(t, job.UID, v1alpha1.TaskRestore)
	w.Agent(t, task, stage.Claimed)
	w.Edit(t, job, func() { job.Spec.Cancel = true })
	w.Eventually(t, func() bool { w.Refresh(t, task); return task.Spec.Cancel }).Should(BeTrue())
	w.Agent(t, task, stage.Failed(v1alpha1.ReasonCanceled, v1alpha1.FailureStall))
	w.Eventually(t, w.verdict(t, job)).Should(Equal("False Canceled"))
}

func (w world) deletion(t *testing.T) {
	machine := w.place(t, "deletion")
	job := w.restore(t, "deletion", from(w.Image(t, machine, "i", 1)))
	task := w.Task(t, job.UID, v1alpha1.TaskRestore)
	w.Agent(t, task, stage.Claimed)
	w.Delete(t, job)
	w.Eventually(t, func() bool { w.Refresh(t, task); return task.Spec.Cancel }).Should(BeTrue())
	NewWithT(t).Expect(w.KStatus(t, job)).To(Equal("Terminating"))
	w.Agent(t, task, stage.Failed(v1alpha1.ReasonCanceled, v1alpha1.FailureStall))
	w.Eventually(t, func() bool { return w.Refresh(t, job) }).Should(BeFalse())
}

func (w world) immutable(t *testing.T) {
	machine := w.place(t, "immutable")
	job := w.restore(t, "immutable", from(w.Image(t, machine, "i", 1)))
	w.Eventually(t, func() string {
		w.Refresh(t, job)
		job.Spec.Overwrite = v1alpha1.OverwriteReplace
		err := w.Admin.Update(t.Context(), job)
		if err == nil {
			return "changed"
		}
		return err.Error()
	}).Should(ContainSubstring("a restore cannot be changed"), "C 24")
}

// parts restores disks alone, and only what differs.
func (w world) parts(t *testing.T) {
	g := NewWithT(t)
	machine := w.place(t, "parts")
	image := w.Image(t, machine, "i", 1)
	for message, edit := range map[string]func(*v1alpha1.RestoreJobSpec){
		"set overwrite to Replace":  func(s *v1alpha1.RestoreJobSpec) { s.Blocks = v1alpha1.BlocksChanged },
		"there is nothing to start": func(s *v1alpha1.RestoreJobSpec) { s.Disks, s.PowerOn = []string{"SCSI-0-0"}, true },
		"Unsupported value":         func(s *v1alpha1.RestoreJobSpec) { s.Blocks = "Some" },
	} {
		job := &v1alpha1.RestoreJob{ObjectMeta: metav1.ObjectMeta{Namespace: "parts", Name: "refused"}}
		from(image)(&job.Spec)
		edit(&job.Spec)
		g.Expect(w.Admin.Create(t.Context(), job)).To(MatchError(ContainSubstring(message)))
	}
	job := w.restore(t, "parts", func(s *v1alpha1.RestoreJobSpec) {
		from(image)(s)
		s.Disks, s.Overwrite, s.Blocks = []string{"SCSI-0-1"}, v1alpha1.OverwriteReplace, v1alpha1.BlocksChanged
	})
	task := w.Task(t, job.UID, v1alpha1.TaskRestore)
	g.Expect(task.Spec.Restore.Disks).To(Equal([]string{"SCSI-0-1"}))
	g.Expect(task.Spec.Restore.Blocks).To(Equal(v1alpha1.BlocksChanged))
	files := func(t *v1alpha1.AgentTask) {
		t.Status.Restored = &v1alpha1.RestoredVirtualMachine{Method: v1alpha1.RestoreFiles, Paths: []string{`D:\r\data.vhdx`}, ComparedBytes: 9}
	}
	w.Agent(t, task, stage.Claimed)
	w.Agent(t, task, files, stage.Succeeded)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("True Restored"))
	g.Expect(meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionComplete).Message).To(ContainSubstring("SCSI-0-1"))
	g.Expect(meta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionSucceeded).Message).To(ContainSubstring("to files"))
}

// restart stops the manager between any two steps of a restore.
func (w world) restart(t *testing.T) {
	g := NewWithT(t)
	machine := w.place(t, "restart")
	image := w.Image(t, machine, "i", 1)
	stop := w.Manage(t, setUp)
	job := w.restore(t, "restart", newestOf(machine))
	task := w.Task(t, job.UID, v1alpha1.TaskRestore)
	stop()
	w.Agent(t, task, stage.Claimed)
	w.Image(t, machine, "newer", 0)
	stop = w.Manage(t, setUp)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("Unknown Running"))
	stop()
	w.Agent(t, task, restored, stage.Succeeded)
	w.Manage(t, setUp)
	w.Manage(t, setUp)
	w.Eventually(t, w.verdict(t, job)).Should(Equal("True Restored"))
	g.Expect(job.Status.ImageRef.Name).To(Equal(image.Name), "a newer image does not change the choice")
	g.Expect(w.Tasks(t, job.UID, v1alpha1.TaskRestore)).To(HaveLen(1), "C 24: one-shot")
}
