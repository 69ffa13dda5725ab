package index

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// CacheOptions returns what the manager's cache holds of Kubernetes' own kinds. A cluster has a Lease for each node and many accounts; only those of
// agents matter, and asking for them by name lets RBAC allow no other.
func CacheOptions() cache.Options {
	agents := cache.ByObject{Field: fields.OneTermEqualSelector("metadata.name", v1alpha1.AgentName)}
	ours := cache.ByObject{Label: labels.SelectorFromSet(labels.Set{v1alpha1.LabelManagedBy: v1alpha1.ManagedBy})}
	return cache.Options{
		DefaultTransform: cache.TransformStripManagedFields(),
		ByObject: map[client.Object]cache.ByObject{
			&coordinationv1.Lease{}:  agents,
			&corev1.ServiceAccount{}: agents,
			&rbacv1.RoleBinding{}:    ours,
		},
	}
}

// ClientOptions returns how the manager reads. Secrets are read by name when they are needed and never kept: the manager has no right to list them.
func ClientOptions() client.Options {
	return client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}}
}
