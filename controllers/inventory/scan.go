// Package inventory reads what agents say of their hosts: whole scans, the places of a virtual machine, and the name and namespace of its object.
package inventory

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Scan is one whole look at a host.
type Scan struct {
	// Time at which the agent looked, by its own clock.
	Time metav1.Time
	// SessionID of the agent that looked.
	SessionID string
	// Error says why the agent could not look; the rest is then from the last look that worked.
	Error string
	// Host has the facts on the host. Nil when the agent stated none.
	Host *v1alpha1.HostFacts
	// VirtualMachines of all parts.
	VirtualMachines []v1alpha1.VirtualMachineFacts
}

// PartName is the name of the HostInventory that holds a part.
func PartName(part int32) string { return fmt.Sprintf("inventory-%d", part) }

// Whole puts the parts of a host's inventory together. It says false while not all parts are of the same scan, as when the agent is writing them:
// what is missing then is not gone. Parts that the scan does not count, of a time when the host had more virtual machines, are left out.
func Whole(parts []v1alpha1.HostInventory) (Scan, bool) {
	byName := make(map[string]*v1alpha1.HostInventoryStatus, len(parts))
	for i := range parts {
		byName[parts[i].Name] = &parts[i].Status
	}
	first := byName[PartName(0)]
	if first == nil || first.ScanID == "" {
		return Scan{}, false
	}
	scan := Scan{SessionID: first.SessionID, Error: first.Error, Host: first.Host}
	if first.ScanTime != nil {
		scan.Time = *first.ScanTime
	}
	for n := range first.Parts {
		part := byName[PartName(n)]
		if part == nil || part.ScanID != first.ScanID {
			return Scan{}, false
		}
		scan.VirtualMachines = append(scan.VirtualMachines, part.VirtualMachines...)
	}
	return scan, true
}

// counts says whether a part belongs to the inventory at all: not when the first part, which is written first, says that there are fewer.
func counts(part, first *v1alpha1.HostInventory) bool {
	return part.Status.ScanID == first.Status.ScanID || part.Status.Part < first.Status.Parts
}
