package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/tenant"
	"github.com/hyperkeep/hyperkeep/test/tool"
)

// slowHost is a host whose jobs take long enough to interrupt them.
func slowHost(x *tenant.Tenant) {
	x.Helper()
	dir := x.Site.HostDir(x.Name)
	g := NewWithT(x)
	g.Expect(os.MkdirAll(dir, 0o755)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "host.yaml"), []byte("jobMillis: 2000\n"), 0o644)).To(Succeed())
}

func awaitStep(x *tenant.Tenant, job *v1alpha1.BackupJob, step string) {
	x.Helper()
	x.Await("job "+job.Name+" is at "+step, func() bool {
		x.Get(job)
		return slices.Contains(stepsOf(job), step)
	})
}

// TestLostAgentLeavesNothingStuck kills the agent within a backup: the host is shown as not ready, and the job goes on when the agent is back.
func TestLostAgentLeavesNothingStuck(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	slowHost(x)
	m := x.AddMachine("vm", nil, x.Raw("disk", 32*mib, map[int64]int64{0: 4 * mib}))
	x.UseRepository()
	x.Start()
	frozen := m.Freeze("before")
	job := x.Job(m, "interrupted", nil)
	awaitStep(x, job, "Checkpoint")
	g.Expect(x.Host.Agent.Kill()).To(Succeed())
	host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: x.Name}}
	lost := x.AwaitCondition(host, v1alpha1.ConditionReady, metav1.ConditionFalse)
	g.Expect(lost.Reason).To(Equal(v1alpha1.ReasonAgentLost))
	x.AwaitEvent(host, v1alpha1.ReasonAgentLost)

	g.Expect(x.Host.Agent.Start()).To(Succeed())
	x.AwaitCondition(host, v1alpha1.ConditionReady, metav1.ConditionTrue)
	x.AwaitJob(job)
	g.Expect(tenant.Verdict(job.Status.Conditions)).To(ContainSubstring("Succeeded=True"))
	g.Expect(x.Leftovers()).To(BeEmpty())
	g.Expect(x.Images()).To(HaveLen(1))
	x.ExpectRestores(job.Status.ImageRef.Name, "again", frozen)
}

// TestCanceledJobLeavesNothing cancels a backup that has its checkpoint.
func TestCanceledJobLeavesNothing(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	slowHost(x)
	m := x.AddMachine("vm", nil, x.Raw("disk", 32*mib, map[int64]int64{0: 4 * mib}))
	x.UseRepository()
	x.Start()
	job := x.Job(m, "canceled", nil)
	awaitStep(x, job, "Checkpoint")
	x.Change(job, func() { job.Spec.Cancel = true })
	x.AwaitJob(job)
	verdict := x.AwaitCondition(job, v1alpha1.ConditionSucceeded, metav1.ConditionFalse)
	g.Expect(verdict.Reason).To(Equal(v1alpha1.ReasonCanceled))
	x.Await("the host is clean", func() bool { return len(x.Leftovers()) == 0 })
	g.Expect(x.Images()).To(BeEmpty())
}

// TestDeletingObjectsDeletesNoImage deletes the job, the policy and at last the whole namespace, and finds the data in the repository by stock kopia. I8.
func TestDeletingObjectsDeletesNoImage(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	m := x.AddMachine("vm", nil, x.Raw("disk", 32*mib, map[int64]int64{0: 4 * mib}))
	x.UseRepository()
	x.Start()
	policy := newPolicy(x, "all", "one")
	frozen := m.Freeze("before")
	x.Create(policy)
	job := awaitRun(x, "one", map[string]*tenant.Machine{"vm": m})["vm"]
	x.Delete(policy)
	if err := x.Site.Client.Delete(t.Context(), job); client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	x.AwaitGone(job)
	x.ExpectRestores(job.Status.ImageRef.Name, "after-policy", frozen)

	m.Detach()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: x.Name}}
	x.Delete(namespace)
	restored := restoreWithKopia(x)
	g.Expect(restored).To(HaveLen(1))
	g.Expect(sameFile(restored[0], frozen[0])).To(BeTrue(), "stock kopia restores what the guest had")
}

// restoreWithKopia has stock kopia restore every snapshot of the tenant's repository, and returns the raw disks that it made.
func restoreWithKopia(x *tenant.Tenant) []string {
	x.Helper()
	g := NewWithT(x)
	kopia := filepath.Join(x.Dir, "kopia")
	_, err := tool.Run(x.Context(), "go", "build", "-o", kopia, "github.com/kopia/kopia")
	g.Expect(err).NotTo(HaveOccurred())
	config := "--config-file=" + filepath.Join(x.Dir, "kopia.config")
	password := "--password=" + tenant.Password
	_, err = tool.Run(x.Context(), kopia, "repository", "connect", "filesystem", "--path", x.RepositoryDir, config, password,
		"--no-check-for-updates", "--cache-directory", filepath.Join(x.Dir, "kopia-cache"), "--readonly", "--log-dir", filepath.Join(x.Dir, "kopia-log"))
	g.Expect(err).NotTo(HaveOccurred())
	list, err := tool.Run(x.Context(), kopia, "snapshot", "list", "--all", "--json", config, password)
	g.Expect(err).NotTo(HaveOccurred())
	var disks []string
	for _, id := range snapshotIDs(x, list) {
		target := filepath.Join(x.Dir, "kopia-"+id)
		_, err := tool.Run(x.Context(), kopia, "restore", id, target, "--write-sparse-files", config, password)
		g.Expect(err).NotTo(HaveOccurred())
		found, err := filepath.Glob(filepath.Join(target, "*", "*"))
		g.Expect(err).NotTo(HaveOccurred())
		more, err := filepath.Glob(filepath.Join(target, "*"))
		g.Expect(err).NotTo(HaveOccurred())
		for _, path := range append(found, more...) {
			if stat, err := os.Stat(path); err == nil && stat.Mode().IsRegular() && stat.Size() >= mib {
				disks = append(disks, path)
			}
		}
	}
	return disks
}

// TestRetentionDeletesThroughTheKeeper: keepLast lets old images go, from Kubernetes and from the repository.
func TestRetentionDeletesThroughTheKeeper(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	m := x.AddMachine("vm", nil, x.Raw("disk", 32*mib, map[int64]int64{0: 4 * mib}))
	x.UseRepository()
	x.Start()
	policy := newPolicy(x, "retain", "0")
	policy.Spec.Retention = &v1alpha1.Retention{KeepLast: ptr.To[int32](1)}
	machines := map[string]*tenant.Machine{"vm": m}
	x.Create(policy)
	awaitRun(x, "0", machines)
	var last *v1alpha1.BackupJob
	for i, token := range []string{"one", "two"} {
		g.Expect(m.Disks[0].Guest.Write(tenant.Random(4096), int64(i)*mib)).To(Succeed())
		x.Change(policy, func() { policy.Spec.RunNow.Token = token })
		last = awaitRun(x, token, machines)["vm"]
	}
	x.Await("one image is left", func() bool { return len(x.Images()) == 1 })
	g.Expect(x.Images()).To(HaveKey(last.Status.ImageRef.Name))
	x.ExpectRestores(last.Status.ImageRef.Name, "again", m.Freeze("last"))
	repository := &v1alpha1.BackupRepository{ObjectMeta: metav1.ObjectMeta{Name: x.Name}}
	x.Await("the keeper counts one image", func() bool {
		x.Get(repository)
		return ptr.Deref(repository.Status.Images, 0) == 1
	})
}

// newPolicy selects all machines of the tenant and runs once, for its token.
func newPolicy(x *tenant.Tenant, name, token string) *v1alpha1.BackupPolicy {
	return &v1alpha1.BackupPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: x.Name, Name: name},
		Spec: v1alpha1.BackupPolicySpec{
			BackupSettings: v1alpha1.BackupSettings{RepositoryRef: v1alpha1.RepositoryReference{Name: x.Name}},
			Selection:      v1alpha1.Selection{All: ptr.To(true)},
			RunNow:         &v1alpha1.RunNow{Token: token},
		},
	}
}

// TestDamageIsFound changes a byte in the repository: nothing of the image is restored (I10), and a verify request says what is wrong with it.
func TestDamageIsFound(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	m := x.AddMachine("vm", nil, x.Raw("disk", 32*mib, map[int64]int64{0: 4 * mib}))
	x.UseRepository()
	x.Start()
	job := x.Backup(m, "one", nil)
	image := &v1alpha1.BackupImage{ObjectMeta: metav1.ObjectMeta{Namespace: x.Name, Name: job.Status.ImageRef.Name}}
	x.Change(image, func() { image.Spec.VerifyRequest = "sound" })
	x.AwaitCondition(image, v1alpha1.ConditionVerified, metav1.ConditionTrue)
	g.Expect(damageLargestPack(x.RepositoryDir)).To(Succeed())

	restore := x.RestoreJob(image.Name, "again", func(spec *v1alpha1.RestoreJobSpec) { spec.Attempts = 1 })
	x.AwaitRestore(restore)
	failed := x.AwaitCondition(restore, v1alpha1.ConditionSucceeded, metav1.ConditionFalse)
	g.Expect(failed.Reason).To(Equal(v1alpha1.ReasonDamaged))
	g.Expect(x.Object("again")).To(BeNil())
	g.Expect(x.HostPath(`D:\VMs\again`)).NotTo(BeADirectory(), "nothing is left behind")

	x.Change(image, func() { image.Spec.VerifyRequest = "damaged" })
	found := x.AwaitCondition(image, v1alpha1.ConditionVerified, metav1.ConditionFalse)
	g.Expect(found.Reason).To(Equal(v1alpha1.ReasonDamaged))
	x.AwaitEvent(image, v1alpha1.ReasonDamaged)
}
