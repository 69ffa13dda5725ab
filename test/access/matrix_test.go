// Package access tests who may do what, by asking the API server: with the roles and the fence that config/ installs, and real tokens.
package access

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/hypervhost"
	"github.com/hyperkeep/hyperkeep/controllers/test/testcluster"
)

// nodesNamespace is where config/nodes puts the agents of hosts that are nodes.
const nodesNamespace = "hyperkeep-nodes"

// world is a cluster with two hosts and a user namespace.
type world struct {
	*testcluster.Cluster
}

func TestAccess(t *testing.T) {
	w := &world{testcluster.New(t)}
	w.Manage(t, func(mgr ctrl.Manager) error {
		return hypervhost.SetupWithManager(mgr, hypervhost.Options{
			Manager:        types.NamespacedName{Namespace: testcluster.ManagerNamespace, Name: testcluster.ManagerAccount},
			NodesNamespace: nodesNamespace, Clock: clock.RealClock{},
		})
	})
	for _, path := range []string{"namespace.yaml", "access.yaml"} {
		if out, err := w.Kubectl().Run(t.Context(), "apply", "--server-side", "--filename", testcluster.Root()+"/config/nodes/"+path); err != nil {
			t.Fatal(out, err)
		}
	}
	w.Namespace(t, "sales")
	for _, name := range []string{"a", "b"} {
		host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.HyperVHostSpec{VirtualMachineNamespace: "sales"}}
		w.Create(t, host)
		NewWithT(t).Eventually(func() string {
			_ = w.Admin.Get(t.Context(), client.ObjectKeyFromObject(host), host)
			return host.Status.AgentNamespace
		}, "20s").ShouldNot(BeEmpty())
	}
	t.Run("the samples apply", w.samples)
	t.Run("agents (T5)", w.agents)
	t.Run("enrolment", w.enrolment)
	t.Run("people", w.people)
	t.Run("the manager's fence (T12)", w.fence)
}

// samples are what people copy: the API server must take them as they are, twice.
func (w *world) samples(t *testing.T) {
	for range 2 {
		if out, err := w.Kubectl().Run(t.Context(), "apply", "--server-side", "--kustomize", testcluster.Root()+"/config/samples"); err != nil {
			t.Fatal(out, err)
		}
	}
}

// may lists all that the API server lets somebody do, as "namespace: resource verbs"; what is limited to one name has it in brackets. What everybody may do,
// to ask for their own rights, is left out. A right in the whole cluster shows in every namespace.
func (w *world) may(t *testing.T, who *rest.Config, namespaces ...string) []string {
	t.Helper()
	reviews := kubernetes.NewForConfigOrDie(who).AuthorizationV1().SelfSubjectRulesReviews()
	var allowed []string
	for _, namespace := range namespaces {
		review, err := reviews.Create(t.Context(), &authorizationv1.SelfSubjectRulesReview{
			Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: namespace},
		}, metav1.CreateOptions{})
		if err != nil || review.Status.Incomplete {
			t.Fatalf("the rights in %s cannot be told: %v %s", namespace, err, review.Status.EvaluationError)
		}
		for _, rule := range review.Status.ResourceRules {
			for _, resource := range rule.Resources {
				if strings.HasPrefix(resource, "selfsubject") {
					continue
				}
				if len(rule.ResourceNames) > 0 {
					resource += fmt.Sprint(rule.ResourceNames)
				}
				allowed = append(allowed, fmt.Sprintf("%s: %s %s", namespace, resource, strings.Join(rule.Verbs, " ")))
			}
		}
	}
	slices.Sort(allowed)
	return allowed
}

// everywhere are the namespaces in which somebody may try something.
var everywhere = []string{"hyperkeep-host-a", "hyperkeep-host-b", testcluster.KeeperNamespace, testcluster.ManagerNamespace, "sales", "kube-system", nodesNamespace}

func (w *world) agents(t *testing.T) {
	for _, namespace := range []string{"hyperkeep-host-a", testcluster.KeeperNamespace} {
		token, err := w.ServiceAccount(t.Context(), namespace, v1alpha1.AgentName)
		if err != nil {
			t.Fatal(err)
		}
		// Exactly this, in its own namespace, and nothing anywhere else.
		var want []string
		for _, right := range []string{
			"agenttasks get list watch", "agenttasks/status patch update", "hostinventories get list create delete",
			"hostinventories/status patch update", "leases create", "leases[agent] get update", "secrets get",
		} {
			want = append(want, namespace+": "+right)
		}
		if namespace == testcluster.KeeperNamespace {
			want = append(want, namespace+": leases get update") // of the repositories that it deletes from
		} else {
			want = append(want, namespace+": serviceaccounts/token[agent] create")
		}
		NewWithT(t).Expect(w.may(t, token, everywhere...)).To(ConsistOf(want))
	}
	w.strangers(t)
}

// strangers tries what a compromised agent would, for real.
func (w *world) strangers(t *testing.T) {
	agent := w.Account(t, "hyperkeep-host-a", v1alpha1.AgentName)
	others := client.InNamespace("hyperkeep-host-b")
	for name, err := range map[string]error{
		"read another host's work":      agent.List(t.Context(), &v1alpha1.AgentTaskList{}, others),
		"read another host's inventory": agent.List(t.Context(), &v1alpha1.HostInventoryList{}, others),
		"read all work":                 agent.List(t.Context(), &v1alpha1.AgentTaskList{}),
		"list its own Secrets":          agent.List(t.Context(), &corev1.SecretList{}, client.InNamespace("hyperkeep-host-a")),
		"read a user's image":           agent.List(t.Context(), &v1alpha1.BackupImageList{}, client.InNamespace("sales")),
		"give itself work":              agent.Create(t.Context(), &v1alpha1.AgentTask{ObjectMeta: metav1.ObjectMeta{Namespace: "hyperkeep-host-a", Name: "x"}}),
		"read its host":                 agent.Get(t.Context(), client.ObjectKey{Name: "a"}, &v1alpha1.HyperVHost{}),
		"make itself a token for ever":  agent.SubResource("token").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "hyperkeep-host-a", Name: "agent"}}, &authenticationv1.TokenRequest{}),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("an agent could %s: %v", name, err)
		}
	}
}

func (w *world) people(t *testing.T) {
	cases := map[string][]string{
		"hyperkeep-viewer": {
			"backupimages get list watch", "backupjobs get list watch", "backuppolicies get list watch", "restorejobs get list watch",
			"virtualmachines get list watch",
		},
		"hyperkeep-editor": {
			"backupjobs create update patch delete", "backuppolicies create update patch delete", "virtualmachines update patch",
		},
		"hyperkeep-admin": {"backupimages update patch delete", "virtualmachines delete"},
		"hyperkeep-restore": {
			"backupimages get list watch", "restorejobs get list watch create update patch delete", "virtualmachines get list watch",
		},
	}
	for role, rights := range cases {
		t.Run(role, func(t *testing.T) {
			user := w.User("user-of-" + role)
			w.Create(t, &rbacv1.RoleBinding{
				ObjectMeta: metav1.ObjectMeta{Namespace: "sales", Name: role},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
				Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "user-of-" + role}},
			})
			var want []string
			for _, right := range rights {
				want = append(want, "sales: "+right)
			}
			NewWithT(t).Eventually(func() []string { return w.may(t, user, "sales", "kube-system") }, "20s").Should(ConsistOf(want))
		})
	}
}

// fence proves what RBAC cannot say: that the manager hands out rights and credentials in agents' namespaces only.
func (w *world) fence(t *testing.T) {
	manager := w.Account(t, testcluster.ManagerNamespace, testcluster.ManagerAccount)
	binding := func(namespace, role string) client.Object {
		return &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "probe-" + role},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: testcluster.ManagerNamespace, Name: testcluster.ManagerAccount}},
		}
	}
	secret := func(namespace string) client.Object {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "probe"}}
	}
	create := func(object client.Object) func(context.Context) error {
		return func(ctx context.Context) error { return manager.Create(ctx, object) }
	}
	cases := map[string]struct {
		try   func(context.Context) error
		fails bool
	}{
		"its roles in an agent's namespace":    {create(binding("hyperkeep-host-a", hypervhost.CredentialsRole)), false},
		"its roles elsewhere":                  {create(binding("kube-system", hypervhost.CredentialsRole)), true},
		"its roles in its own namespace":       {create(binding(testcluster.ManagerNamespace, hypervhost.CredentialsRole)), true},
		"the agent's role elsewhere":           {create(binding("sales", hypervhost.AgentRole)), true},
		"another role in an agent's namespace": {create(binding("hyperkeep-host-a", "cluster-admin")), true},
		"a credential in an agent's namespace": {create(secret("hyperkeep-host-a")), false},
		"a credential in the keeper's":         {create(secret(testcluster.KeeperNamespace)), false},
		"a Secret in a user's namespace":       {create(secret("sales")), true},
		"a Secret in its own namespace":        {create(secret(testcluster.ManagerNamespace)), true},
		"a namespace of another name":          {create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "mine"}}), true},
		"a namespace of an agent":              {create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "hyperkeep-host-c"}}), false},
		"an account in a user's namespace":     {create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "sales", Name: "agent"}}), true},
		"deleting somebody's account of that name": {func(ctx context.Context) error {
			return manager.Delete(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "sales", Name: "agent"}})
		}, true},
		"listing Secrets, even in its own": {func(ctx context.Context) error {
			return manager.List(ctx, &corev1.SecretList{}, client.InNamespace(testcluster.ManagerNamespace))
		}, true},
		"reading a Secret of a user": {func(ctx context.Context) error {
			return manager.Get(ctx, client.ObjectKey{Namespace: "sales", Name: "x"}, &corev1.Secret{})
		}, true},
		"deleting a namespace, even one of its own": {func(ctx context.Context) error {
			return manager.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "hyperkeep-host-b"}})
		}, true},
	}
	// Something to delete.
	w.Create(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "sales", Name: "agent"}})
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := c.try(t.Context())
			refused := apierrors.IsForbidden(err) || apierrors.IsInvalid(err)
			if refused != c.fails || err != nil && !refused {
				t.Errorf("refused: %v, want %v (%v)", refused, c.fails, err)
			}
		})
	}
}
