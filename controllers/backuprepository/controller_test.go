package backuprepository_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/backuprepository"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/hypervhost"
	"github.com/hyperkeep/hyperkeep/controllers/test/testcluster"
)

// canary is a password that must be found nowhere but in Secrets.
const canary = "canary-7f3a"

// world is a cluster with the controller under test, and the one that admits hosts.
type world struct {
	*testcluster.Cluster
	clock  *clocktesting.FakePassiveClock
	keeper client.Client
}

func TestController(t *testing.T) {
	w := &world{Cluster: testcluster.New(t), clock: clocktesting.NewFakePassiveClock(time.Now().Truncate(time.Hour))}
	w.Manage(t, func(mgr ctrl.Manager) error {
		return backuprepository.SetupWithManager(mgr, backuprepository.Options{
			Namespace: testcluster.ManagerNamespace, KeeperNamespace: testcluster.KeeperNamespace, Clock: w.clock,
			SecretPoll: time.Second,
		})
	}, func(mgr ctrl.Manager) error {
		return hypervhost.SetupWithManager(mgr, hypervhost.Options{
			Manager: types.NamespacedName{Namespace: testcluster.ManagerNamespace, Name: testcluster.ManagerAccount}, Clock: w.clock,
		})
	})
	w.keeper = w.Account(t, testcluster.KeeperNamespace, v1alpha1.AgentName)
	t.Run("credentials go where the right is", w.credentials)
	t.Run("probes", w.probes)
	t.Run("immutability is only tightened (T1)", w.immutability)
	t.Run("no secret is anywhere else (T8, I7)", w.noLeak)
}

func (w *world) secret(t *testing.T, name, password string) *corev1.Secret {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: testcluster.ManagerNamespace, Name: name}}
	secret.StringData = map[string]string{v1alpha1.SecretKeyPassword: password, "other": canary + "-unrelated"}
	w.Create(t, secret)
	return secret
}

func (w *world) repository(t *testing.T, name, secret string, namespaces ...string) *v1alpha1.BackupRepository {
	repository := &v1alpha1.BackupRepository{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.BackupRepositorySpec{
		Location:          v1alpha1.RepositoryLocation{Filesystem: &v1alpha1.FilesystemLocation{Path: "/repository"}},
		SecretName:        secret,
		AllowedNamespaces: namespaces,
	}}
	w.Create(t, repository)
	return repository
}

// copies lists the namespaces that have a copy of a repository's credential, with the password.
func (w *world) copies(t *testing.T, repository string) func() string {
	return func() string {
		var secrets corev1.SecretList
		if err := w.Admin.List(t.Context(), &secrets, client.MatchingLabels{v1alpha1.LabelRepository: repository}); err != nil {
			return err.Error()
		}
		var found []string
		for _, secret := range secrets.Items {
			found = append(found, fmt.Sprintf("%s:%s/%d", strings.TrimPrefix(secret.Namespace, "hyperkeep-"), secret.Data["password"], len(secret.Data)))
		}
		return strings.Join(found, " ")
	}
}

func (w *world) reason(t *testing.T, repository *v1alpha1.BackupRepository) func() string {
	return func() string {
		if err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(repository), repository); err != nil {
			return err.Error()
		}
		ready := meta.FindStatusCondition(repository.Status.Conditions, v1alpha1.ConditionReady)
		if ready == nil {
			return ""
		}
		return ready.Reason
	}
}

func (w *world) credentials(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(30 * time.Second)
	for host, namespace := range map[string]string{"hv01": "sales", "hv02": "finance"} {
		w.Namespace(t, namespace)
		w.Create(t, &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: host}, Spec: v1alpha1.HyperVHostSpec{VirtualMachineNamespace: namespace}})
	}
	repository := w.repository(t, "main", "main-secret", "sales")
	g.Eventually(w.reason(t, repository)).Should(Equal(v1alpha1.ReasonSecretNotFound))
	secret := w.secret(t, "main-secret", canary)
	copies := w.copies(t, "main")
	g.Eventually(copies).Should(Equal("host-hv01:" + canary + "/1 keeper:" + canary + "/1"))

	// The agent reads it; another host's agent does not.
	key := client.ObjectKey{Namespace: "hyperkeep-host-hv01", Name: "repository-main"}
	g.Expect(w.Account(t, "hyperkeep-host-hv01", v1alpha1.AgentName).Get(t.Context(), key, &corev1.Secret{})).To(Succeed())
	g.Expect(w.Account(t, "hyperkeep-host-hv02", v1alpha1.AgentName).Get(t.Context(), key, &corev1.Secret{})).
		To(MatchError(apierrors.IsForbidden, "IsForbidden"))

	// The right comes and goes with the repository's namespaces, and with the host's.
	w.patch(t, repository, `{"spec":{"allowedNamespaces":["sales","finance"]}}`)
	g.Eventually(copies).Should(ContainSubstring("host-hv02:"))
	w.patch(t, repository, `{"spec":{"allowedNamespaces":["finance"]}}`)
	g.Eventually(copies).ShouldNot(ContainSubstring("host-hv01:"))
	w.patch(t, &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: "hv01"}}, `{"spec":{"placement":[{"namePattern":"*","namespace":"finance"}]}}`)
	g.Eventually(copies).Should(ContainSubstring("host-hv01:"))

	// A new password arrives everywhere.
	secret.StringData = map[string]string{v1alpha1.SecretKeyPassword: canary + "-new"}
	g.Expect(w.Admin.Update(t.Context(), secret)).To(Succeed())
	g.Eventually(copies).Should(Equal(strings.ReplaceAll("host-hv01:@/1 host-hv02:@/1 keeper:@/1", "@", canary+"-new")))

	// Deleting the repository takes all copies and nothing else.
	g.Expect(w.Admin.Delete(t.Context(), repository)).To(Succeed())
	g.Eventually(copies).Should(BeEmpty())
	g.Eventually(func() error {
		return w.Admin.Get(t.Context(), client.ObjectKeyFromObject(repository), repository)
	}).Should(MatchError(apierrors.IsNotFound, "IsNotFound"))
	g.Expect(w.tasks(t)()).To(BeEmpty(), "its probes go with it")
	g.Expect(w.Admin.Get(t.Context(), client.ObjectKeyFromObject(secret), secret)).To(Succeed(), "the administrator's Secret stays")
}

func (w *world) patch(t *testing.T, object client.Object, json string) {
	t.Helper()
	if err := w.Admin.Patch(t.Context(), object, client.RawPatch(types.MergePatchType, []byte(json))); err != nil {
		t.Fatal(err)
	}
}

func (w *world) immutability(t *testing.T) {
	g := NewWithT(t)
	repository := &v1alpha1.BackupRepository{ObjectMeta: metav1.ObjectMeta{Name: "locked"}, Spec: v1alpha1.BackupRepositorySpec{
		Location:   v1alpha1.RepositoryLocation{S3: &v1alpha1.S3Location{Endpoint: "s3.example.com", Bucket: "backups"}},
		SecretName: "locked", AllowedNamespaces: []string{"*"},
		Immutability: &v1alpha1.Immutability{RetentionDays: 30},
	}}
	w.Create(t, repository)
	g.Expect(repository.Spec.Immutability.Mode).To(Equal(v1alpha1.ImmutabilityCompliance), "the default")
	for patch, message := range map[string]string{
		`{"spec":{"immutability":{"retentionDays":29}}}`:       "never shortened",
		`{"spec":{"immutability":null}}`:                       "never removed",
		`{"spec":{"immutability":{"mode":"Governance"}}}`:      "cannot be weakened",
		`{"spec":{"immutability":{"retentionDays":100000}}}`:   "3650",
		`{"spec":{"location":{"gcs":{"bucket":"elsewhere"}}}}`: "exactly one",
	} {
		err := w.Admin.Patch(t.Context(), repository.DeepCopy(), client.RawPatch(types.MergePatchType, []byte(patch)))
		g.Expect(err).To(MatchError(ContainSubstring(message)), patch)
	}
	w.patch(t, repository, `{"spec":{"immutability":{"retentionDays":60}}}`)
	folder := repository.DeepCopy()
	folder.ObjectMeta = metav1.ObjectMeta{Name: "folder"}
	folder.Spec.Location = v1alpha1.RepositoryLocation{Filesystem: &v1alpha1.FilesystemLocation{Path: "/repository"}}
	g.Expect(w.Admin.Create(t.Context(), folder)).To(MatchError(ContainSubstring("cannot be locked")))
	g.Expect(w.Admin.Delete(t.Context(), repository)).To(Succeed())
}

// tasks are the probes that the keeper sees.
func (w *world) tasks(t *testing.T) func() []v1alpha1.AgentTask {
	return func() []v1alpha1.AgentTask {
		var tasks v1alpha1.AgentTaskList
		if err := w.keeper.List(t.Context(), &tasks, client.InNamespace(testcluster.KeeperNamespace)); err != nil {
			t.Error(err)
		}
		return tasks.Items
	}
}

// answer ends the pending probe as the keeper does, and returns its name.
func (w *world) answer(t *testing.T, g Gomega, status v1alpha1.AgentTaskStatus, verdict metav1.ConditionStatus) string {
	t.Helper()
	var pending *v1alpha1.AgentTask
	g.Eventually(func() *v1alpha1.AgentTask {
		pending = nil
		for _, task := range w.tasks(t)() {
			if !delegation.Finished(&task) {
				pending = &task
			}
		}
		return pending
	}).ShouldNot(BeNil(), "a probe")
	now := metav1.Now()
	status.CompletionTime = &now
	status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionSucceeded, Status: verdict, Reason: "Ended", LastTransitionTime: now}}
	pending.Status = status
	g.Expect(w.keeper.Status().Update(t.Context(), pending)).To(Succeed())
	return pending.Name
}

func (w *world) probes(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(30 * time.Second)
	secret := w.secret(t, "archive-secret", canary)
	repository := w.repository(t, "archive", "archive-secret", "*")
	dead := w.reason(t, repository)
	g.Eventually(dead).Should(Equal(v1alpha1.ReasonKeeperUnreachable))
	// A keeper that lives renews its lease again and again.
	reason := func() string {
		g.Expect(testcluster.Renew(t.Context(), w.keeper, testcluster.KeeperNamespace, time.Minute)).To(Succeed())
		return dead()
	}
	g.Eventually(reason).Should(Equal(v1alpha1.ReasonProbing))

	found := v1alpha1.AgentTaskStatus{Probe: &v1alpha1.ProbeResult{RepositoryID: "k1", Images: 5, StoredBytes: 1 << 30}}
	first := w.answer(t, g, found, metav1.ConditionTrue)
	g.Eventually(reason).Should(Equal(v1alpha1.ReasonReachable))
	g.Expect(repository.Status.Stored).To(Equal("1.0 GiB"))

	// A changed Secret is probed at once. What the store answers stays on the task.
	secret.StringData = map[string]string{v1alpha1.SecretKeyPassword: canary + "-wrong"}
	g.Expect(w.Admin.Update(t.Context(), secret)).To(Succeed())
	g.Eventually(reason).Should(Equal(v1alpha1.ReasonProbing))
	wrong := v1alpha1.AgentTaskStatus{Failure: &v1alpha1.Failure{Reason: v1alpha1.ReasonWrongPassword, Message: "BODY", Action: v1alpha1.FailureStall}}
	second := w.answer(t, g, wrong, metav1.ConditionFalse)
	g.Eventually(reason).Should(Equal(v1alpha1.ReasonWrongPassword))
	g.Expect(second).NotTo(Equal(first))
	g.Expect(repository.Status.Stored).To(Equal("1.0 GiB"), "what was found before stays on show")
	g.Expect(meta.IsStatusConditionTrue(repository.Status.Conditions, v1alpha1.ConditionStalled)).To(BeTrue())
	g.Expect(fmt.Sprint(repository.Status)).NotTo(ContainSubstring("BODY"))

	// The next interval brings a probe of its own, and old ones go. Another repository in its place is loud.
	w.clock.SetTime(w.clock.Now().Add(301 * time.Second))
	other := v1alpha1.AgentTaskStatus{Probe: &v1alpha1.ProbeResult{RepositoryID: "k2"}}
	w.answer(t, g, other, metav1.ConditionTrue)
	g.Eventually(reason).Should(Equal(v1alpha1.ReasonRepositoryReplaced))
	g.Expect(repository.Status.RepositoryID).To(Equal("k1"))
	g.Eventually(w.tasks(t)).Should(HaveLen(1))

	// A keeper that is lost is not believed, and what it found is still shown.
	g.Eventually(func() string {
		w.clock.SetTime(w.clock.Now().Add(2 * time.Minute))
		return dead()
	}).WithPolling(time.Second).Should(Equal(v1alpha1.ReasonKeeperUnreachable))
	g.Expect(*repository.Status.Images).To(Equal(int32(5)))
}

// noLeak looks for the canary in every object of every kind but Secret, the events among them.
func (w *world) noLeak(t *testing.T) {
	g := NewWithT(t)
	kinds, err := w.Kubectl().Run(t.Context(), "api-resources", "--verbs=list", "--output=name")
	g.Expect(err).NotTo(HaveOccurred())
	var looked []string
	for _, kind := range strings.Fields(kinds) {
		if kind != "secrets" {
			looked = append(looked, kind)
		}
	}
	g.Expect(looked).To(ContainElements("events.events.k8s.io", "agenttasks.hyperkeep.io", "backuprepositories.hyperkeep.io"))
	everything, err := w.Kubectl().Run(t.Context(), "get", strings.Join(looked, ","), "--all-namespaces", "--output=yaml", "--show-managed-fields")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(everything).To(ContainSubstring("WrongPassword"), "the search sees what the controller wrote")
	g.Expect(strings.Contains(everything, canary)).To(BeFalse(), "the canary is in an object that is no Secret")
}
