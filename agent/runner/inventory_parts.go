package runner

import (
	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// parts is how an inventory is cut into objects. A virtual machine stays in its part as long as it lives, so a change of one is one write, and no reader
// ever sees a moment without a machine that is there.
type parts []v1alpha1.HostInventoryStatus

// put lays an inventory out: known machines stay in their parts, new ones go where there is room, those that are gone leave. When the number of parts has to
// change, or the parts do not belong together, all are filled anew, as another scan.
func (p parts) put(inventory hyperv.Inventory, session, version string) parts {
	count := max(1, (len(inventory.VMs)+v1alpha1.InventoryPartSize-1)/v1alpha1.InventoryPartSize)
	next := make(parts, count)
	scan, kept := uuid.NewString(), map[string]int{}
	if p.belong(session) && len(p) == count {
		scan = p[0].ScanID
		for n, part := range p {
			for _, machine := range part.VirtualMachines {
				kept[machine.ID] = n
			}
		}
	}
	for n := range next {
		next[n].ScanID, next[n].Part, next[n].Parts, next[n].SessionID = scan, int32(n), int32(count), session
	}
	next[0].Host = hostFacts(inventory.Host, version)
	var fresh []v1alpha1.VirtualMachineFacts
	for _, vm := range inventory.VMs {
		facts := virtualMachineFacts(vm)
		if n, known := kept[facts.ID]; known {
			next[n].VirtualMachines = append(next[n].VirtualMachines, facts)
		} else {
			fresh = append(fresh, facts)
		}
	}
	n := 0
	for _, facts := range fresh {
		for len(next[n].VirtualMachines) == v1alpha1.InventoryPartSize {
			n++
		}
		next[n].VirtualMachines = append(next[n].VirtualMachines, facts)
	}
	return next
}

// belong tells whether the parts are one whole scan of this session, without an error.
func (p parts) belong(session string) bool {
	for n, part := range p {
		if part.ScanID == "" || part.ScanID != p[0].ScanID || part.Part != int32(n) || part.Parts != int32(len(p)) || part.SessionID != session || part.Error != "" {
			return false
		}
	}
	return len(p) > 0
}

// changed lists the parts of next that have to be written.
func (p parts) changed(next parts) []int {
	var out []int
	for n := range next {
		if n >= len(p) || !sameScan(p[n], next[n]) {
			out = append(out, n)
		}
	}
	return out
}

// withError repeats the last scan with an error. Virtual machines of a host that cannot be asked have not vanished.
func (p parts) withError(text, session string) parts {
	next := make(parts, max(1, len(p)))
	copy(next, p)
	scan := uuid.NewString()
	if p.belong(session) || (len(p) > 0 && p[0].Error != "" && p[0].SessionID == session) {
		scan = p[0].ScanID
	}
	for n := range next {
		next[n].ScanID, next[n].Part, next[n].Parts, next[n].SessionID, next[n].Error = scan, int32(n), int32(len(next)), session, text
	}
	return next
}
