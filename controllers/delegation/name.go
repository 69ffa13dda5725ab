package delegation

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

const (
	// maxName is the longest name that fits into a label.
	maxName = 63
	// hashLength is in hexadecimal digits. A namespace has a few hundred thousand jobs and images in its life; 48 bits keep them apart.
	hashLength = 12
)

// ChildName is a name for an object that is made for others: readable, at most 63 characters, and the same for the same parts, so that making it
// twice makes one. readable must be a DNS name already.
func ChildName(readable string, parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "/")))
	if longest := maxName - hashLength - 1; len(readable) > longest {
		readable = strings.TrimRight(readable[:longest], "-.")
	}
	return readable + "-" + hex.EncodeToString(sum[:])[:hashLength]
}
