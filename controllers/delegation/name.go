package delegation

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

const (
	// maxName is the longest name that fits into a label.
	maxName = 63
	// hashLength is in hexadecimal digits. A namespace has a few hundred thousand jobs and images in its life; 48 bits keep them apart.
	hashLength = 12
)

// ClusterLabel stands for the failover cluster that a host is a node of, in a label: cluster names may have any characters. Empty outside of clusters.
func ClusterLabel(host *v1alpha1.HyperVHost) string {
	if host == nil || host.Status.Facts == nil || host.Status.Facts.ClusterName == "" {
		return ""
	}
	return ChildName("cluster", strings.ToLower(host.Status.Facts.ClusterName))
}

// ChildName is a name for an object that is made for others: readable, at most 63 characters, and the same for the same parts, so that making it
// twice makes one. readable must be a DNS name already.
func ChildName(readable string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "/")))
	if longest := maxName - hashLength - 1; len(readable) > longest {
		readable = strings.TrimRight(readable[:longest], "-.")
	}
	return readable + "-" + hex.EncodeToString(sum[:])[:hashLength]
}
