package hypervhost

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// The ClusterRoles that are shipped with the manager. They are only ever bound within an agent's namespace.
const (
	// AgentRole is what an agent may do.
	AgentRole = "hyperkeep-agent"
	// CredentialsRole lets the manager put credentials of repositories where agents read them.
	CredentialsRole = "hyperkeep-credentials"
	// TokenRole lets an account ask for tokens of the agent. An admission policy says for whom and bound to what.
	TokenRole = "hyperkeep-token"
	// EnrollerRole lets a host enroll.
	EnrollerRole = "hyperkeep-enroller"
	// managerBinding is the RoleBinding of CredentialsRole.
	managerBinding = "hyperkeep-manager"
	// tokenBinding is the RoleBinding of TokenRole.
	tokenBinding = "agent-token"
)

// agentNamespace is the namespace of a host's agent. Its owner is the host, so that the garbage collector removes it after the host.
func agentNamespace(host *v1alpha1.HyperVHost) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name:   v1alpha1.AgentNamespace(host.Name),
		Labels: labelsOf(host.Name),
		OwnerReferences: []metav1.OwnerReference{
			*metav1.NewControllerRef(host, v1alpha1.GroupVersion.WithKind("HyperVHost")),
		},
	}}
}

// isOurs says whether a namespace was made for the agent of this host.
func isOurs(namespace *corev1.Namespace, host string) bool {
	return namespace.Labels[v1alpha1.LabelManagedBy] == v1alpha1.ManagedBy && namespace.Labels[v1alpha1.LabelHost] == host
}

// agentAccount is the ServiceAccount of a host's agent.
func agentAccount(host string) *corev1.ServiceAccount {
	return &corev1.ServiceAccount{ObjectMeta: metaOf(host, v1alpha1.AgentName)}
}

// bindings are the rights within an agent's namespace: the agent's own, the manager's to put credentials there, and the rights to tokens of the agent: its
// own to renew them, that of a host that enrolls, and that of pods on nodes if there are any.
func bindings(host string, opts Options) []*rbacv1.RoleBinding {
	agent := types.NamespacedName{Namespace: v1alpha1.AgentNamespace(host), Name: v1alpha1.AgentName}
	enroller := types.NamespacedName{Namespace: agent.Namespace, Name: v1alpha1.EnrollerName}
	holders := []types.NamespacedName{agent, enroller}
	if opts.NodesNamespace != "" {
		holders = append(holders, types.NamespacedName{Namespace: opts.NodesNamespace, Name: v1alpha1.AgentName})
	}
	return []*rbacv1.RoleBinding{
		binding(host, v1alpha1.AgentName, AgentRole, agent),
		binding(host, managerBinding, CredentialsRole, opts.Manager),
		binding(host, tokenBinding, TokenRole, holders...),
		binding(host, v1alpha1.EnrollerName, EnrollerRole, enroller),
	}
}

func binding(host, name, role string, accounts ...types.NamespacedName) *rbacv1.RoleBinding {
	made := &rbacv1.RoleBinding{
		ObjectMeta: metaOf(host, name),
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
	}
	for _, account := range accounts {
		made.Subjects = append(made.Subjects, rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: account.Namespace, Name: account.Name})
	}
	return made
}

// sameRights says whether two bindings give the same role to the same account.
func sameRights(a, b *rbacv1.RoleBinding) bool {
	return a.RoleRef == b.RoleRef && equality.Semantic.DeepEqual(a.Subjects, b.Subjects)
}

func metaOf(host, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: v1alpha1.AgentNamespace(host), Name: name, Labels: labelsOf(host)}
}

func labelsOf(host string) map[string]string {
	return map[string]string{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy, v1alpha1.LabelHost: host}
}
