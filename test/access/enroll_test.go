package access

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/cert"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/agent/identity"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// hostA is the namespace of the host that these tests enroll, again and again.
const hostA = "hyperkeep-host-a"

// oneTime makes a one-time token as the administrator does, after everything that earlier enrolments left was removed.
func (w *world) oneTime(t *testing.T) *rest.Config {
	t.Helper()
	w.remove(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: hostA, Name: v1alpha1.EnrolledName}})
	w.remove(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: hostA, Name: v1alpha1.EnrollerName}})
	w.Create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: hostA, Name: v1alpha1.EnrollerName}})
	config, err := w.ServiceAccount(t.Context(), hostA, v1alpha1.EnrollerName)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

func (w *world) remove(t *testing.T, object client.Object) {
	t.Helper()
	if err := w.Admin.Delete(t.Context(), object); client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
}

// keep is a store that remembers the token.
func keep(into *string) func(identity.Token) error {
	return func(token identity.Token) error { *into = string(token.Bytes()); return nil }
}

// with is a configuration with another token.
func (w *world) with(token string) *rest.Config {
	config := w.Config()
	config.BearerToken = token
	return config
}

func (w *world) enrolment(t *testing.T) {
	t.Run("a one-time token becomes the agent's", w.enrolls)
	t.Run("of many who use a one-time token, one enrolls", w.race)
	t.Run("what a one-time token is good for", w.enrollerMay)
	t.Run("a host that is enrolled, or not there", w.refusals)
	t.Run("a token that could not be stored", w.unstored)
	t.Run("tokens are renewed", w.renewal)
	t.Run("revocation", w.revocation)
	t.Run("pods on nodes", w.nodes)
	t.Run("trust by a hash", w.trust)
}

func (w *world) enrolls(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(20 * time.Second) // the API server remembers a token that was good for ten seconds
	var value string
	used := w.oneTime(t)
	left, err := identity.Enrolment{Config: used, Host: "a", Computer: "HV-A"}.Run(t.Context(), func(token identity.Token) error {
		g.Expect(token.Expires.Sub(token.Issued)).To(BeNumerically("~", identity.Lifetime, time.Minute))
		g.Expect(fmt.Sprintf("%v %+v %#v", token, token, token)).NotTo(ContainSubstring(string(token.Bytes())), "I7")
		return keep(&value)(token)
	})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(left).NotTo(HaveOccurred())

	who, err := kubernetes.NewForConfigOrDie(w.with(value)).AuthenticationV1().SelfSubjectReviews().
		Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(who.Status.UserInfo.Username).To(Equal("system:serviceaccount:hyperkeep-host-a:agent"))

	record := &corev1.Secret{}
	g.Expect(w.Admin.Get(t.Context(), client.ObjectKey{Namespace: hostA, Name: v1alpha1.EnrolledName}, record)).To(Succeed())
	g.Expect(record.Data).To(Equal(map[string][]byte{"computer": []byte("HV-A")}), "it says who enrolled, and no more")
	g.Expect(w.Admin.Get(t.Context(), client.ObjectKey{Namespace: hostA, Name: v1alpha1.EnrollerName}, &corev1.ServiceAccount{})).
		To(MatchError(apierrors.IsNotFound, "IsNotFound"))

	_, err = identity.Enrolment{Config: used, Host: "a"}.Run(t.Context(), keep(&value))
	g.Expect(err).To(MatchError(identity.ErrEnrolled), "the second use fails at once")
	g.Eventually(func() error {
		_, err := identity.Enrolment{Config: used, Host: "a"}.Run(t.Context(), keep(&value))
		return err
	}).Should(MatchError(identity.ErrRefused), "and then the token is worth nothing at all")
}

func (w *world) race(t *testing.T) {
	g := NewWithT(t)
	const users = 8
	config := w.oneTime(t)
	tokens, errs := make([]string, users), make([]error, users)
	var done sync.WaitGroup
	for i := range users {
		done.Go(func() { _, errs[i] = identity.Enrolment{Config: config, Host: "a"}.Run(t.Context(), keep(&tokens[i])) })
	}
	done.Wait()
	won := 0
	for i := range users {
		if errs[i] == nil {
			won++
			continue
		}
		g.Expect(errors.Is(errs[i], identity.ErrEnrolled) || errors.Is(errs[i], identity.ErrRefused)).To(BeTrue(), "%v", errs[i])
		g.Expect(tokens[i]).To(BeEmpty())
	}
	g.Expect(won).To(Equal(1))
}

// enrollerMay tries what somebody would with a one-time token that fell into his hands after it was used.
func (w *world) enrollerMay(t *testing.T) {
	g := NewWithT(t)
	config := w.oneTime(t)
	g.Expect(w.may(t, config, everywhere...)).To(ConsistOf(
		hostA+": secrets create", hostA+": serviceaccounts/token[agent] create", hostA+": serviceaccounts[enroller] delete"))

	enroller := w.Client(t, config)
	w.Create(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: hostA, Name: v1alpha1.EnrolledName}, Type: v1alpha1.SecretTypeEnrolled})
	secret := func(name string, of corev1.SecretType) error {
		return enroller.Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: hostA, Name: name, Annotations: map[string]string{corev1.ServiceAccountNameKey: "agent"}}, Type: of,
		})
	}
	token := func(namespace, account string, bound *authenticationv1.BoundObjectReference) error {
		return enroller.SubResource("token").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: account}},
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: bound}})
	}
	enrolled := &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Secret", Name: v1alpha1.EnrolledName}
	guessed := enrolled.DeepCopy()
	guessed.UID = "3b0c8d8e-7f4c-4a52-9f51-9b1d1f1c6a11"
	for name, c := range map[string]struct {
		err     error
		refused func(error) bool
	}{
		"a second enrolment":                   {secret(v1alpha1.EnrolledName, v1alpha1.SecretTypeEnrolled), apierrors.IsAlreadyExists},
		"another Secret":                       {secret("main", v1alpha1.SecretTypeEnrolled), apierrors.IsForbidden},
		"a Secret that gets a lasting token":   {secret(v1alpha1.EnrolledName, corev1.SecretTypeServiceAccountToken), apierrors.IsForbidden},
		"a token bound to nothing":             {token(hostA, "agent", nil), apierrors.IsForbidden},
		"a token without the uid":              {token(hostA, "agent", enrolled), apierrors.IsForbidden},
		"a token with a guessed uid":           {token(hostA, "agent", guessed), apierrors.IsConflict},
		"a token of itself":                    {token(hostA, v1alpha1.EnrollerName, enrolled), apierrors.IsForbidden},
		"a token of another host":              {token("hyperkeep-host-b", "agent", guessed), apierrors.IsForbidden},
		"a token of the manager":               {token("hyperkeep-system", "hyperkeep-manager", nil), apierrors.IsForbidden},
		"reading the Secret that has the uid":  {enroller.Get(t.Context(), client.ObjectKey{Namespace: hostA, Name: v1alpha1.EnrolledName}, &corev1.Secret{}), apierrors.IsForbidden},
		"deleting the Secret to start anew":    {enroller.Delete(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: hostA, Name: v1alpha1.EnrolledName}}), apierrors.IsForbidden},
		"deleting the agent's account instead": {enroller.Delete(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: hostA, Name: "agent"}}), apierrors.IsForbidden},
	} {
		if !c.refused(c.err) {
			t.Errorf("%s: %v", name, c.err)
		}
	}
}

func (w *world) refusals(t *testing.T) {
	var value string
	config := w.oneTime(t)
	for name, c := range map[string]struct {
		enrolment identity.Enrolment
		want      error
		says      string
	}{
		"a token for another host": {identity.Enrolment{Config: config, Host: "b"}, identity.ErrRefused, "not one for host b"},
		"a host that is not there": {identity.Enrolment{Config: config, Host: "zzz"}, identity.ErrRefused, "there is no HyperVHost of that name"},
		"a token that is none":     {identity.Enrolment{Config: w.with("rubbish"), Host: "a"}, identity.ErrRefused, "make a new one"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := c.enrolment.Run(t.Context(), keep(&value))
			NewWithT(t).Expect(err).To(And(MatchError(c.want), MatchError(ContainSubstring(c.says))))
			if strings.Contains(err.Error(), config.BearerToken) {
				t.Error("I7: the error has the token")
			}
		})
	}
	if value != "" {
		t.Error("somebody got a token")
	}
}

// unstored is a disk that is full: the one-time token is used up, and the error says what to do.
func (w *world) unstored(t *testing.T) {
	full := errors.New("no space")
	_, err := identity.Enrolment{Config: w.oneTime(t), Host: "a"}.Run(t.Context(), func(identity.Token) error { return full })
	NewWithT(t).Expect(err).To(And(MatchError(full), MatchError(ContainSubstring("kubectl delete secret enrolled --namespace hyperkeep-host-a"))))
}

// enrolled enrolls host a and returns its token in a file, and the configuration that names the file.
func (w *world) enrolled(t *testing.T) (file string, config *rest.Config) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "token")
	_, err := identity.Enrolment{Config: w.oneTime(t), Host: "a"}.Run(t.Context(), func(token identity.Token) error {
		return os.WriteFile(file, token.Bytes(), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	config = w.with("")
	config.BearerTokenFile = file
	return file, config
}

func (w *world) renewal(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(20 * time.Second)
	file, config := w.enrolled(t)
	first, err := os.ReadFile(file)
	g.Expect(err).NotTo(HaveOccurred())
	clock := clocktesting.NewFakeClock(time.Now())
	ctx, stop := context.WithCancel(t.Context())
	ended, lost := make(chan error, 1), make(chan error, 100)
	renewer := identity.Renewer{Config: config, Host: "a", File: file, Clock: clock, Lost: func(err error) { lost <- err }}
	go func() { ended <- renewer.Run(ctx) }()

	content := func() []byte { now, _ := os.ReadFile(file); return now }
	g.Eventually(clock.HasWaiters).Should(BeTrue())
	clock.Step(identity.Lifetime/4 - time.Minute)
	g.Consistently(content, 300*time.Millisecond).Should(Equal(first), "not before a quarter of its life has passed")
	clock.Step(2 * time.Minute)
	g.Eventually(content).ShouldNot(Equal(first))
	renewed := w.with(string(content()))
	g.Expect(w.Client(t, renewed).List(t.Context(), &v1alpha1.AgentTaskList{}, client.InNamespace(hostA))).To(Succeed())
	g.Expect(lost).To(BeEmpty())

	// The enrolment is revoked: the agent says so, and tries again.
	w.remove(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: hostA, Name: v1alpha1.EnrolledName}})
	g.Eventually(func() []error {
		clock.Step(identity.Lifetime)
		var all []error
		for len(lost) > 0 {
			all = append(all, <-lost)
		}
		return all
	}).Should(ContainElement(MatchError(ContainSubstring("enroll it anew"))))
	stop()
	g.Eventually(ended).Should(Receive(BeNil()))

	// A token that somebody made by hand lasts as long as it lasts.
	w.remove(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: hostA, Name: v1alpha1.EnrolledName}})
	byHand, err := w.ServiceAccount(t.Context(), hostA, v1alpha1.AgentName)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(os.WriteFile(file, []byte(byHand.BearerToken), 0o600)).To(Succeed())
	g.Expect(renewer.Run(t.Context())).To(Succeed())
	g.Expect(<-lost).To(MatchError(ContainSubstring("did not come from enrolling")))
}

func (w *world) revocation(t *testing.T) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(20 * time.Second)
	_, config := w.enrolled(t)
	agent := w.Client(t, config)
	g.Expect(agent.List(t.Context(), &v1alpha1.AgentTaskList{}, client.InNamespace(hostA))).To(Succeed())
	unbound := func() error {
		return agent.SubResource("token").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: hostA, Name: "agent"}}, &authenticationv1.TokenRequest{})
	}
	g.Expect(unbound()).To(MatchError(apierrors.IsForbidden, "IsForbidden"), "an agent gets no token that outlives its enrolment")
	w.remove(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: hostA, Name: v1alpha1.EnrolledName}})
	g.Expect(unbound()).To(Or(MatchError(apierrors.IsForbidden, "IsForbidden"), MatchError(apierrors.IsUnauthorized, "IsUnauthorized")))
	g.Eventually(func() error {
		return agent.List(t.Context(), &v1alpha1.AgentTaskList{}, client.InNamespace(hostA))
	}).Should(MatchError(apierrors.IsUnauthorized, "IsUnauthorized"))
}

// environment of a HostProcess container on a node: its own token is bound to its pod, as Kubernetes does it.
func (w *world) environment(t *testing.T, node string) func(string) (string, bool) {
	t.Helper()
	g := NewWithT(t)
	w.Create(t, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: node}})
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: nodesNamespace, Name: "agent-" + node},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: v1alpha1.AgentName, AutomountServiceAccountToken: ptr.To(false),
			Containers: []corev1.Container{{Name: "agent", Image: "agent"}},
		},
	}
	w.Create(t, pod)
	token, err := kubernetes.NewForConfigOrDie(w.Config()).CoreV1().ServiceAccounts(nodesNamespace).CreateToken(t.Context(), v1alpha1.AgentName,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			BoundObjectRef: &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
		}}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	root := t.TempDir()
	folder := filepath.Join(root, "var", "run", "secrets", "kubernetes.io", "serviceaccount")
	g.Expect(os.MkdirAll(folder, 0o700)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(folder, "token"), []byte(token.Status.Token), 0o600)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(folder, "ca.crt"), w.Config().CAData, 0o600)).To(Succeed())
	host, port, _ := strings.Cut(strings.TrimPrefix(w.Config().Host, "https://"), ":")
	set := map[string]string{"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "CONTAINER_SANDBOX_MOUNT_POINT": root}
	return func(name string) (string, bool) { value, found := set[name]; return value, found }
}

// nodes proves that the pod on a node can be the agent of the host of that name, and of no other.
func (w *world) nodes(t *testing.T) {
	g := NewWithT(t)
	onA := w.environment(t, "a")
	config, err := identity.ForPod(onA, "a")
	g.Expect(err).NotTo(HaveOccurred())
	agent := w.Client(t, config)
	g.Expect(agent.Create(t.Context(), &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: hostA, Name: v1alpha1.AgentName}})).To(Succeed())

	config, err = identity.ForPod(onA, "b")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(w.Client(t, config).List(t.Context(), &v1alpha1.AgentTaskList{}, client.InNamespace("hyperkeep-host-b"))).
		To(MatchError(ContainSubstring("only of the agent of its own node")))

	// The same account without a pod names no node.
	bare := w.Account(t, nodesNamespace, v1alpha1.AgentName)
	token := func(life int64) error {
		return bare.SubResource("token").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: hostA, Name: "agent"}},
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &life}})
	}
	g.Expect(token(3600)).To(MatchError(ContainSubstring("only of the agent of its own node")))

	// A token that a pod asks for is short.
	folder, _ := onA("CONTAINER_SANDBOX_MOUNT_POINT")
	value, err := os.ReadFile(filepath.Join(folder, "var/run/secrets/kubernetes.io/serviceaccount/token"))
	g.Expect(err).NotTo(HaveOccurred())
	bare = w.Client(t, w.with(string(value)))
	g.Expect(token(3601)).To(MatchError(ContainSubstring("for an hour at most")))
	g.Expect(w.may(t, w.with(string(value)), everywhere...)).To(ConsistOf(
		hostA+": serviceaccounts/token[agent] create", "hyperkeep-host-b: serviceaccounts/token[agent] create"))

	_, err = identity.ForPod(func(string) (string, bool) { return "", false }, "a")
	g.Expect(err).To(MatchError(ContainSubstring("this is no pod")))
}

func (w *world) trust(t *testing.T) {
	g := NewWithT(t)
	server, ca := w.Config().Host, w.Config().CAData
	hash := func(pem []byte) string {
		certificates, err := cert.ParseCertsPEM(pem)
		g.Expect(err).NotTo(HaveOccurred())
		return fmt.Sprintf("sha256:%x", sha256.Sum256(certificates[0].RawSubjectPublicKeyInfo))
	}
	found, err := identity.Trust(t.Context(), server, hash(ca))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(bytes.HasPrefix(ca, found)).To(BeTrue(), "the certificate that the server shows")
	trusting := w.with("rubbish")
	trusting.CAData = found
	g.Expect(w.Client(t, trusting).List(t.Context(), &v1alpha1.AgentTaskList{})).To(MatchError(apierrors.IsUnauthorized, "IsUnauthorized"), "the server is reached")

	other, _, err := cert.GenerateSelfSignedCertKey("elsewhere", nil, nil)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = identity.Trust(t.Context(), server, hash(other))
	g.Expect(err).To(MatchError(identity.ErrUntrusted))
	_, err = identity.Trust(t.Context(), server, "sha256:12")
	g.Expect(err).To(MatchError(ContainSubstring("64 digits")))
	_, err = identity.Trust(t.Context(), "http://"+strings.TrimPrefix(server, "https://"), hash(ca))
	g.Expect(err).To(MatchError(ContainSubstring("https://")))

	// As kubeadm does it: the API server shows its own certificate only, and the authority stands where everybody may read it.
	info, err := clientcmd.Write(clientcmdapi.Config{Clusters: map[string]*clientcmdapi.Cluster{"": {CertificateAuthorityData: other}}})
	g.Expect(err).NotTo(HaveOccurred())
	w.Create(t,
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-public", Name: "cluster-info"}, Data: map[string]string{"kubeconfig": string(info)}},
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-public", Name: "cluster-info"},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"cluster-info"}, Verbs: []string{"get"}}},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: "kube-public", Name: "cluster-info"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "cluster-info"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "system:anonymous"}},
		})
	g.Eventually(func() ([]byte, error) { return identity.Trust(t.Context(), server, hash(other)) }, "20s").
		Should(WithTransform(func(found []byte) bool { return bytes.HasPrefix(other, found) }, BeTrue()))
}
