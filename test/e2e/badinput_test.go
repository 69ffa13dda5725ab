package e2e

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/tenant"
	"github.com/hyperkeep/hyperkeep/test/wine"
)

// explained expects a reason, a sentence that helps, and the same in an event.
func explained(x *tenant.Tenant, object client.Object, condition metav1.Condition, help string) {
	x.Helper()
	g := NewWithT(x)
	g.Expect(condition.Reason).NotTo(BeEmpty())
	g.Expect(condition.Message).To(ContainSubstring(help))
	x.AwaitEvent(object, condition.Reason)
}

// TestUnusableRepositoriesAreExplained: a path that is a file, another repository's password, a missing Secret, and credentials that S3 refuses.
func TestUnusableRepositoriesAreExplained(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	x.UseRepository()
	file := filepath.Join(x.Dir, "file")
	g.Expect(os.WriteFile(file, []byte("not a folder"), 0o644)).To(Succeed())
	s3 := refusingS3(t)
	keys := map[string]string{v1alpha1.SecretKeyAccessKeyID: "AKIAEXAMPLE", v1alpha1.SecretKeySecretAccessKey: "s3cr3t-of-nobody"}
	tests := map[string]struct {
		at             v1alpha1.RepositoryLocation
		password       string
		more           map[string]string
		reason, secret string
	}{
		"file":     {at: x.Folder(file), password: tenant.Password, reason: v1alpha1.ReasonRepositoryUnusable},
		"password": {at: x.Folder(x.RepositoryDir), password: "of another", reason: v1alpha1.ReasonWrongPassword},
		"empty":    {at: x.Folder(filepath.Join(x.Dir, "elsewhere")), password: "", reason: v1alpha1.ReasonSecretIncomplete},
		"s3":       {at: s3, password: tenant.Password, more: keys, reason: v1alpha1.ReasonAccessDenied, secret: "s3cr3t-of-nobody"},
	}
	for name, test := range tests {
		x.CreateRepository(x.Name+"-"+name, test.password, test.at, test.more)
	}
	for name, test := range tests {
		repository := &v1alpha1.BackupRepository{ObjectMeta: metav1.ObjectMeta{Name: x.Name + "-" + name}}
		var ready metav1.Condition
		x.Await("repository "+name+" says "+test.reason, func() bool {
			ready = x.AwaitCondition(repository, v1alpha1.ConditionReady, metav1.ConditionFalse)
			return ready.Reason == test.reason
		})
		explained(x, repository, ready, "")
		if test.secret != "" && strings.Contains(ready.Message, test.secret) {
			t.Errorf("%s: the condition shows a secret", name)
		}
	}
	g.Expect(os.ReadFile(file)).To(BeEquivalentTo("not a folder"))
}

// refusingS3 is a server that takes nobody's credentials.
func refusingS3(t *testing.T) v1alpha1.RepositoryLocation {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusForbidden)
		_, _ = w.Write([]byte(`<Error><Code>InvalidAccessKeyId</Code><Message>The key does not exist in our records.</Message></Error>`))
	}))
	t.Cleanup(server.Close)
	return v1alpha1.RepositoryLocation{S3: &v1alpha1.S3Location{
		Endpoint: strings.TrimPrefix(server.URL, "http://"), Bucket: "images", Region: "us-east-1", Transport: "PlainText",
	}}
}

// TestMachinesThatCannotBeReadAreExplained: a file that is no VHDX, a vm.yaml that is no YAML, one that names a disk which is not there.
func TestMachinesThatCannotBeReadAreExplained(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	good := x.AddMachine("good", nil, x.Raw("good", 8*mib, map[int64]int64{0: mib}))
	torn := x.AddMachine("torn", tenant.Settings{"state": "off"}, x.Raw("torn", 8*mib, nil))
	g.Expect(os.WriteFile(torn.Path("disk0.vhdx"), []byte("this is no disk"), 0o644)).To(Succeed())
	x.AddMachine("absent", tenant.Settings{"state": "off", "disks": []any{map[string]any{"path": "nothing.vhdx"}}})
	broken := x.AddMachine("broken", nil)
	g.Expect(os.WriteFile(broken.Path("vm.yaml"), []byte("disks: {this is no list"), 0o644)).To(Succeed())
	x.UseRepository()
	x.StartExpecting("good", "torn", "absent", "broken")

	for _, name := range []string{"torn", "absent", "broken"} {
		facts := x.Object(name).Status.Facts
		g.Expect(facts.State).To(Equal(v1alpha1.StateCritical), name)
		g.Expect(facts.Concerns).NotTo(BeEmpty(), name)
		job := x.JobNamed(name, "of-"+name, func(spec *v1alpha1.BackupJobSpec) { spec.Attempts = 1 })
		x.AwaitJob(job)
		failed := x.AwaitCondition(job, v1alpha1.ConditionSucceeded, metav1.ConditionFalse)
		explained(x, job, failed, "critical")
	}
	for file, want := range map[string]string{"torn": "disk0.vhdx", "absent": "nothing.vhdx", "broken": "vm.yaml"} {
		g.Expect(x.Host.Emulator.Tail(100)).To(And(ContainSubstring(file), ContainSubstring(want)), "the host says what is wrong with the folder")
	}
	job := x.Backup(good, "of-good", nil) // I9: one bad machine stops no other
	g.Expect(x.Images()).To(HaveLen(1))
	x.ExpectRestores(job.Status.ImageRef.Name, "again", []string{good.Disks[0].Shadow})
}

// TestPolicyThatSelectsNothingSaysSo, and is ready all the same when a machine appears.
func TestPolicyThatSelectsNothingSaysSo(t *testing.T) {
	x := newTenant(t)
	x.UseRepository()
	policy := newPolicy(x, "none", "one")
	policy.Spec.Selection = v1alpha1.Selection{Names: []string{"no-such-machine"}}
	x.Create(policy)
	x.Await("the policy says what is wrong", func() bool {
		x.Get(policy)
		for _, condition := range policy.Status.Conditions {
			if condition.Type == v1alpha1.ConditionReady && strings.Contains(condition.Message, "no-such-machine") {
				x.AwaitEvent(policy, condition.Reason)
				return true
			}
		}
		return false
	})
}

// TestRestoreOntoAFullDiskLeavesNothing: the space is looked at before anything is written.
func TestRestoreOntoAFullDiskLeavesNothing(t *testing.T) {
	if wine.OnWindows() {
		t.Skip("Wine's drives have the space of the disk below them")
	}
	x := newTenant(t)
	g := NewWithT(t)
	dir := x.Site.HostDir(x.Name)
	g.Expect(os.MkdirAll(dir, 0o755)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(dir, "host.yaml"), []byte("volumes:\n  E:\n    sizeBytes: 4194304\n"), 0o644)).To(Succeed())
	m := x.AddMachine("vm", nil, x.Raw("disk", 32*mib, map[int64]int64{0: 12 * mib}))
	x.UseRepository()
	x.Start()
	job := x.Backup(m, "full", nil)
	restore := x.RestoreJob(job.Status.ImageRef.Name, "toolarge", func(spec *v1alpha1.RestoreJobSpec) {
		spec.Target.Folder, spec.Attempts = `E:\VMs`, 1
	})
	x.AwaitRestore(restore)
	failed := x.AwaitCondition(restore, v1alpha1.ConditionSucceeded, metav1.ConditionFalse)
	explained(x, restore, failed, "space")
	left, err := filepath.Glob(filepath.Join(dir, ".volumes", "E", "*", "*"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(left).To(BeEmpty())
	g.Expect(x.Object("toolarge")).To(BeNil())
}
