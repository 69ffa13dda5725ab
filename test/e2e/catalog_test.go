package e2e

import (
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/tenant"
)

// TestCatalogIsRebuilt loses all that Kubernetes knew of the images, and makes it anew from the repository: the same names, restores as before, nothing that
// retention had removed, and nothing changes the second time.
func TestCatalogIsRebuilt(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	m := x.AddMachine("vm", nil, x.Raw("disk", 32*mib, map[int64]int64{0: 4 * mib}))
	x.UseRepository()
	x.Start()
	policy := newPolicy(x, "retain", "0")
	policy.Spec.Retention = &v1alpha1.Retention{KeepLast: ptr.To[int32](2)}
	machines := map[string]*tenant.Machine{"vm": m}
	x.Create(policy)
	removed := awaitRun(x, "0", machines)["vm"].Status.ImageRef.Name
	for i, token := range []string{"one", "two"} {
		g.Expect(m.Disks[0].Guest.Write(tenant.Random(4096), int64(i)*mib)).To(Succeed())
		x.Change(policy, func() { policy.Spec.RunNow.Token = token })
		awaitRun(x, token, machines)
	}
	frozen := m.Freeze("last")
	x.Await("two images are left", func() bool { return len(x.Images()) == 2 })
	before := x.Images()
	g.Expect(before).NotTo(HaveKey(removed))

	lose(x, m)
	g.Expect(x.Images()).To(BeEmpty())
	image := newestOf(before)
	x.ExpectEqual(restoreStored(x, x.Name, image.Spec.ImageID), frozen)
	refused := storedJob(x, x.Name+"-other", image.Spec.ImageID)
	x.AwaitRestore(refused)
	g.Expect(tenant.Verdict(refused.Status.Conditions)).To(ContainSubstring(v1alpha1.ReasonImageOfAnotherNamespace))

	repository := &v1alpha1.BackupRepository{ObjectMeta: metav1.ObjectMeta{Name: x.Name}}
	x.Change(repository, func() { repository.Spec.ImportRequest = "after the fire" })
	x.AwaitCondition(repository, v1alpha1.ConditionImported, metav1.ConditionTrue)
	g.Expect(repository.Status.CatalogImport.Made).To(Equal(int32(2)))
	after := x.Images()
	g.Expect(after).To(HaveLen(2))
	for name, was := range before {
		g.Expect(after).To(HaveKey(name), "the same names every time")
		g.Expect(after[name].Spec).To(Equal(was.Spec))
		g.Expect(after[name].Labels).To(Equal(was.Labels))
	}
	x.ExpectRestores(image.Name, "again", frozen)

	x.Change(repository, func() { repository.Spec.ImportRequest = "once more" })
	x.Await("the second import has ended", func() bool {
		x.Get(repository)
		i := repository.Status.CatalogImport
		return i.Request == "once more" && i.CompletionTime != nil
	})
	g.Expect([]int32{repository.Status.CatalogImport.Made, repository.Status.CatalogImport.Present}).To(Equal([]int32{0, 2}))
	for name, image := range x.Images() {
		g.Expect(image.UID).To(Equal(after[name].UID))
		g.Expect(image.Generation).To(Equal(after[name].Generation))
	}
}

// lose deletes what a cluster knows of a tenant, and declares the repository anew, for one more namespace.
func lose(x *tenant.Tenant, m *tenant.Machine) {
	x.Helper()
	m.Detach()
	repository := &v1alpha1.BackupRepository{ObjectMeta: metav1.ObjectMeta{Name: x.Name}}
	x.Get(repository)
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: x.Name}}
	x.Delete(namespace)
	x.Delete(repository)
	x.AwaitGone(repository)
	x.AwaitGone(namespace)
	other := x.Name + "-other"
	for _, name := range []string{x.Name, other} {
		if err := x.Site.CreateNamespace(x.Context(), name); err != nil {
			x.Fatal(err)
		}
	}
	anew := &v1alpha1.BackupRepository{ObjectMeta: metav1.ObjectMeta{Name: x.Name}, Spec: repository.Spec}
	anew.Spec.AllowedNamespaces = []string{x.Name, other}
	x.Create(anew)
	x.AwaitCondition(anew, v1alpha1.ConditionReady, metav1.ConditionTrue)
}

func newestOf(images map[string]v1alpha1.BackupImage) (newest v1alpha1.BackupImage) {
	for _, image := range images {
		if newest.Name == "" || image.Spec.Summary.SnapshotTime.After(newest.Spec.Summary.SnapshotTime.Time) {
			newest = image
		}
	}
	return newest
}

// storedJob restores an image that no BackupImage stands for.
func storedJob(x *tenant.Tenant, namespace, imageID string) *v1alpha1.RestoreJob {
	x.Helper()
	job := &v1alpha1.RestoreJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "stored"},
		Spec: v1alpha1.RestoreJobSpec{
			Source: v1alpha1.RestoreSource{RepositoryRef: &v1alpha1.RepositoryReference{Name: x.Name}, ImageID: imageID},
			Target: &v1alpha1.RestoreTarget{HostName: x.Name, Name: "stored"},
		},
	}
	incomplete := job.DeepCopy()
	incomplete.Spec.Target.HostName = ""
	if err := x.Site.Client.Create(x.Context(), incomplete, client.DryRunAll); err == nil {
		x.Error("a restore by image id that does not say where was admitted")
	}
	x.Create(job)
	return job
}

func restoreStored(x *tenant.Tenant, namespace, imageID string) (paths []string) {
	x.Helper()
	job := storedJob(x, namespace, imageID)
	x.AwaitRestore(job)
	if !apimeta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.ConditionSucceeded) {
		x.Fatalf("the restore failed: %s", tenant.Verdict(job.Status.Conditions))
	}
	for _, path := range job.Status.Restored.Paths {
		paths = append(paths, x.HostPath(path))
	}
	return paths
}
