package inventory

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

const (
	// maxName is the longest name that still fits into a label.
	maxName = 63
	// hashLength is in hexadecimal digits: two of a namespace's ten thousand machines of the same name share a hash in one of a hundred clusters.
	hashLength = 8
)

var notDNS = regexp.MustCompile(`[^a-z0-9]+`)

// ObjectName returns the name of a VirtualMachine object: the name in Hyper-V made DNS-safe, and a short hash of the id, so that machines of the same
// name do not meet. An object keeps its name when the machine is renamed.
func ObjectName(facts v1alpha1.VirtualMachineFacts) string {
	name := strings.Trim(notDNS.ReplaceAllString(strings.ToLower(facts.DisplayName), "-"), "-")
	if longest := maxName - hashLength - 1; len(name) > longest {
		name = strings.TrimRight(name[:longest], "-")
	}
	if name == "" {
		name = "vm"
	}
	return name + "-" + hash(facts.ID)
}

// ID returns the Hyper-V id that an object stands for, or nothing when that cannot be told any more. Labels are people's to edit, so an id counts only if
// it fits the hash in the object's name: nobody turns an object into another machine's by its label.
func ID(machine *v1alpha1.VirtualMachine) string {
	candidates := []string{machine.Labels[v1alpha1.LabelVirtualMachineID]}
	if machine.Status.Facts != nil {
		candidates = append(candidates, machine.Status.Facts.ID)
	}
	for _, id := range candidates {
		if id != "" && strings.HasSuffix(machine.Name, "-"+hash(id)) {
			return id
		}
	}
	return ""
}

func hash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])[:hashLength]
}
