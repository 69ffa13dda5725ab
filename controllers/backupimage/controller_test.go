package backupimage_test

import (
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/backupimage"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/delegation/test/stage"
	"github.com/hyperkeep/hyperkeep/controllers/test/testcluster"
)

type world struct{ stage.World }

func setUp(mgr ctrl.Manager) error {
	return backupimage.SetupWithManager(mgr, backupimage.Options{
		Delegator: delegation.New(mgr.GetClient(), mgr.GetAPIReader()), Clock: clock.RealClock{}, KeeperNamespace: testcluster.KeeperNamespace,
	})
}

func TestController(t *testing.T) {
	w := world{stage.New(t)}
	t.Run("a manager that is killed at any point changes nothing", w.restart)
	w.Manage(t, setUp)
	t.Run("at once", func(t *testing.T) {
		for name, test := range map[string]func(*testing.T){
			"an image's life":                         w.life,
			"retention of the policy":                 w.expiry,
			"the policy is deleted":                   w.policyDeleted,
			"the keeper cannot delete":                w.deleteFails,
			"pinned, and the source of a restore":     w.spared,
			"deleted with Retain":                     w.retain,
			"deleted with Delete":                     w.delete,
			"a repository that is away holds nothing": w.away,
			"verification":                            w.verification,
			"it records, and cannot be changed":       w.immutable,
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(t) })
		}
	})
}

func (w world) machine(t *testing.T, namespace string) *v1alpha1.VirtualMachine {
	t.Helper()
	w.Namespace(t, namespace)
	return w.Machine(t, namespace, "crm", "hv01")
}

func (w world) policy(t *testing.T, namespace string, keepLast int32) *v1alpha1.BackupPolicy {
	t.Helper()
	policy := &v1alpha1.BackupPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "gold"}}
	policy.Spec.RepositoryRef.Name = stage.Repository
	policy.Spec.Selection.All = ptr.To(true)
	policy.Spec.Retention = &v1alpha1.Retention{KeepLast: ptr.To(keepLast)}
	w.Create(t, policy)
	return policy
}

func ofPolicy(i *v1alpha1.BackupImage) { i.Spec.PolicyName = "gold" }

func (w world) condition(t *testing.T, image *v1alpha1.BackupImage, kind string) func() string {
	return func() string {
		if !w.Refresh(t, image) {
			return "gone"
		}
		condition := meta.FindStatusCondition(image.Status.Conditions, kind)
		if condition == nil || image.Status.ObservedGeneration == 0 {
			return ""
		}
		return string(condition.Status) + " " + condition.Reason
	}
}

func (w world) ready(t *testing.T, image *v1alpha1.BackupImage) func() string {
	return w.condition(t, image, v1alpha1.ConditionReady)
}

func (w world) life(t *testing.T) {
	g := NewWithT(t)
	image := w.Image(t, w.machine(t, "life"), "i", 1)
	w.Eventually(t, w.ready(t, image)).Should(Equal("True Published"))
	g.Expect(w.KStatus(t, image)).To(Equal("Current"))
	g.Expect(image.Finalizers).To(BeEmpty(), "C 23")
	table, err := w.Kubectl().Run(t.Context(), "get", "hvimg", "-n", "life")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(strings.Join(strings.Fields(strings.Split(table, "\n")[1]), " ")).To(HaveSuffix("Full Application 40 GiB 1.0 GiB Never True"))
}

func (w world) expiry(t *testing.T) {
	g := NewWithT(t)
	machine := w.machine(t, "expiry")
	policy := w.policy(t, "expiry", 2)
	oldest, older := w.Image(t, machine, "oldest", 9, ofPolicy), w.Image(t, machine, "older", 5, ofPolicy)
	w.Eventually(t, func() string { w.Refresh(t, oldest); return oldest.Status.Expiry }).Should(Equal("One of the newest 2"))
	w.Image(t, machine, "stranger", 1) // of no policy: it pushes nothing out
	w.Consistently(t, w.ready(t, oldest)).Should(Equal("True Published"))
	newest := w.Image(t, machine, "newest", 1, ofPolicy)

	task := w.Task(t, oldest.UID, v1alpha1.TaskDeleteImage)
	g.Expect(task.Namespace).To(Equal(testcluster.KeeperNamespace))
	g.Expect(task.Spec.Image.ImageID).To(Equal("oldest"))
	g.Expect(w.ready(t, oldest)()).To(Equal("False Expiring"))
	g.Expect(w.KStatus(t, oldest)).To(Equal("InProgress"))
	w.Agent(t, task, stage.Claimed, stage.Succeeded)
	w.Eventually(t, w.ready(t, oldest)).Should(Equal("gone"))
	g.Expect(w.ready(t, older)()).To(Equal("True Published"))

	w.Edit(t, policy, func() { policy.Spec.Retention.KeepLast = ptr.To(int32(1)) })
	w.Task(t, older.UID, v1alpha1.TaskDeleteImage)
	g.Expect(w.ready(t, newest)()).To(Equal("True Published"))
	g.Expect(newest.Status.Expiry).To(Equal("Newest, is kept"))
}

func (w world) policyDeleted(t *testing.T) {
	machine := w.machine(t, "orphans")
	policy := w.policy(t, "orphans", 2)
	old := w.Image(t, machine, "old", 9, ofPolicy)
	w.Image(t, machine, "new", 1, ofPolicy)
	w.Eventually(t, func() string { w.Refresh(t, old); return old.Status.Expiry }).Should(Equal("One of the newest 2"))
	w.Delete(t, policy)
	w.Eventually(t, func() string { w.Refresh(t, old); return old.Status.Expiry }).Should(Equal("Never"), "I8: no record says how old it may be")
	w.Image(t, machine, "newer", 0, ofPolicy)
	w.Consistently(t, w.ready(t, old)).Should(Equal("True Published"))
}

func (w world) deleteFails(t *testing.T) {
	machine := w.machine(t, "failing")
	w.policy(t, "failing", 1)
	old := w.Image(t, machine, "old", 9, ofPolicy)
	w.Image(t, machine, "new", 1, ofPolicy)
	w.Agent(t, w.Task(t, old.UID, v1alpha1.TaskDeleteImage), stage.Claimed, stage.Failed(v1alpha1.ReasonAccessDenied, v1alpha1.FailureStall))
	w.Eventually(t, w.ready(t, old)).Should(Equal("False DeleteFailed"))
	NewWithT(t).Expect(meta.FindStatusCondition(old.Status.Conditions, v1alpha1.ConditionReady).Message).To(ContainSubstring("AccessDenied"))
}

func (w world) spared(t *testing.T) {
	machine := w.machine(t, "spared")
	w.policy(t, "spared", 1)
	pinned := w.Image(t, machine, "pinned", 9, ofPolicy, func(i *v1alpha1.BackupImage) { i.Spec.Pinned = true })
	source := w.Image(t, machine, "source", 8, ofPolicy)
	restore := &v1alpha1.RestoreJob{ObjectMeta: metav1.ObjectMeta{Namespace: "spared", Name: "r1"}}
	restore.Spec.Source.VirtualMachine = &v1alpha1.VirtualMachineSource{Name: machine.Name}
	w.Create(t, restore)
	w.Status(t, restore, func() { restore.Status.ImageRef = &v1alpha1.ImageReference{Name: source.Name} })
	w.Image(t, machine, "new", 1, ofPolicy)
	w.Eventually(t, w.condition(t, source, v1alpha1.ConditionReconciling)).Should(Equal("True Expiring"), "it waits for the restore")
	w.Consistently(t, func() int { return len(w.Tasks(t, source.UID, v1alpha1.TaskDeleteImage)) }).Should(BeZero())
	g := NewWithT(t)
	g.Expect(w.Tasks(t, pinned.UID, v1alpha1.TaskDeleteImage)).To(BeEmpty())
	g.Expect(w.ready(t, pinned)()).To(Equal("True Published"))
	g.Expect(pinned.Status.Expiry).To(Equal("Pinned"))
}

func (w world) retain(t *testing.T) {
	image := w.Image(t, w.machine(t, "retain"), "i", 1)
	w.Eventually(t, w.ready(t, image)).Should(Equal("True Published"))
	uid := image.UID
	w.Delete(t, image)
	w.Eventually(t, w.ready(t, image)).Should(Equal("gone"))
	w.Consistently(t, func() int { return len(w.Tasks(t, uid, v1alpha1.TaskDeleteImage)) }).Should(BeZero(), "I8, C 21")
}

func (w world) delete(t *testing.T) {
	g := NewWithT(t)
	image := w.Image(t, w.machine(t, "delete"), "i", 1)
	w.Edit(t, image, func() { image.Spec.DeletionPolicy = v1alpha1.DeletionDelete })
	w.Eventually(t, func() []string { w.Refresh(t, image); return image.Finalizers }).Should(HaveLen(1))
	w.Delete(t, image)
	task := w.Task(t, image.UID, v1alpha1.TaskDeleteImage)
	g.Expect(w.ready(t, image)()).To(Equal("False Deleting"))
	g.Expect(w.KStatus(t, image)).To(Equal("Terminating"))
	w.Agent(t, task, stage.Claimed, stage.Succeeded) // also when the data was gone already (C 22)
	w.Eventually(t, w.ready(t, image)).Should(Equal("gone"))
}

func (w world) away(t *testing.T) {
	image := w.Image(t, w.machine(t, "away"), "i", 1, func(i *v1alpha1.BackupImage) {
		i.Spec.RepositoryRef.Name, i.Spec.DeletionPolicy = "nowhere", v1alpha1.DeletionDelete
	})
	w.Eventually(t, func() []string { w.Refresh(t, image); return image.Finalizers }).Should(HaveLen(1))
	w.Delete(t, image)
	w.Eventually(t, w.condition(t, image, v1alpha1.ConditionReconciling)).Should(Equal("True Deleting"))
	NewWithT(t).Expect(meta.FindStatusCondition(image.Status.Conditions, v1alpha1.ConditionReconciling).Message).To(ContainSubstring("set deletionPolicy to Retain"))
	w.Edit(t, image, func() { image.Spec.DeletionPolicy = v1alpha1.DeletionRetain })
	w.Eventually(t, w.ready(t, image)).Should(Equal("gone"), "C 15")
}

func (w world) verification(t *testing.T) {
	g := NewWithT(t)
	image := w.Image(t, w.machine(t, "verify"), "i", 1)
	w.Edit(t, image, func() { image.Spec.VerifyRequest = "one" })
	w.Agent(t, w.Task(t, image.UID, v1alpha1.TaskVerify), stage.Claimed, stage.Succeeded)
	w.Eventually(t, w.condition(t, image, v1alpha1.ConditionVerified)).Should(Equal("True Verified"))
	w.Eventually(t, func() string { return w.KStatus(t, image) }).Should(Equal("Current"))
	w.Edit(t, image, func() { image.Spec.VerifyRequest = "two" })
	w.Eventually(t, func() int { return len(w.Tasks(t, image.UID, v1alpha1.TaskVerify)) }).Should(Equal(2))
	for _, task := range w.Tasks(t, image.UID, v1alpha1.TaskVerify) {
		if meta.FindStatusCondition(task.Status.Conditions, v1alpha1.ConditionSucceeded) == nil {
			w.Agent(t, task, stage.Claimed, stage.Failed(v1alpha1.ReasonDamaged, v1alpha1.FailureStall))
		}
	}
	w.Eventually(t, w.condition(t, image, v1alpha1.ConditionVerified)).Should(Equal("False Damaged"), "I9")
	g.Expect(w.ready(t, image)()).To(Equal("False Damaged"))
	g.Expect(image.Status.LastVerifyRequest).To(Equal("two"))
	g.Expect(w.KStatus(t, image)).To(Equal("Failed"))
}

func (w world) immutable(t *testing.T) {
	image := w.Image(t, w.machine(t, "immutable"), "i", 1)
	w.Eventually(t, func() string {
		w.Refresh(t, image)
		image.Spec.Summary.Consistency = v1alpha1.ConsistencyCrash
		if err := w.Admin.Update(t.Context(), image); err != nil {
			return err.Error()
		}
		return "changed"
	}).Should(ContainSubstring("an image records what was achieved"), "C 39")
}

// restart stops the manager between any two steps of an expiry.
func (w world) restart(t *testing.T) {
	g := NewWithT(t)
	machine := w.machine(t, "restart")
	w.policy(t, "restart", 1)
	stop := w.Manage(t, setUp)
	old := w.Image(t, machine, "old", 9, ofPolicy)
	newer := w.Image(t, machine, "new", 1, ofPolicy)
	task := w.Task(t, old.UID, v1alpha1.TaskDeleteImage)
	stop()
	w.Agent(t, task, stage.Claimed, stage.Succeeded)
	w.Manage(t, setUp)
	w.Manage(t, setUp)
	w.Eventually(t, w.ready(t, old)).Should(Equal("gone"))
	g.Expect(w.Tasks(t, old.UID, v1alpha1.TaskDeleteImage)).To(HaveLen(1), "I5")
	g.Expect(w.ready(t, newer)()).To(Equal("True Published"))
}
