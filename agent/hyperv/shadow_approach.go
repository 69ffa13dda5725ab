package hyperv

import (
	"fmt"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// firstBuildWithLiveShadows is Windows Server 2012 R2: from it on the writer needs no saved state for a guest that cannot quiesce.
const firstBuildWithLiveShadows = 9600

// ShadowApproach is what the Hyper-V writer has to do with a shadow copy of a VM, and how consistent its disks then are.
type ShadowApproach struct {
	// Uninvolved leaves the writer out: nothing happens to the VM.
	Uninvolved bool `json:"uninvolved,omitempty"`
	Level      Level
}

// ApplicationShadow tells how the guest takes part in a shadow copy. ErrQuiesce with the reason when it cannot, ErrVMState for a VM that is saved or paused.
// What the writer says counts (mode); the VM's own settings do only where its words are not understood.
func ApplicationShadow(vm VM, mode vss.Mode) (ShadowApproach, error) {
	ok, reason := Quiescible(vm)
	switch {
	case vm.State == Off:
		return ShadowApproach{Uninvolved: mode == vss.PartialMode, Level: Offline}, nil
	case vm.State != Running:
		return ShadowApproach{}, fmt.Errorf("%w: an application-consistent snapshot of a virtual machine that is %s", ErrVMState, strings.ToLower(string(vm.State)))
	case mode == vss.PartialMode:
		return ShadowApproach{}, fmt.Errorf("%w: the Hyper-V VSS writer takes no part for some of the disks alone, and others lie on no volume of the host", ErrQuiesce)
	case mode == vss.Online, mode == vss.UnknownMode && ok:
		return ShadowApproach{Level: Application}, nil
	case reason != "":
		return ShadowApproach{}, fmt.Errorf("%w: %s", ErrQuiesce, reason)
	}
	return ShadowApproach{}, fmt.Errorf("%w: the Hyper-V VSS writer offers the virtual machine offline only", ErrQuiesce)
}

// CrashShadow tells how a shadow copy is taken that the guest has no part in. With save, and on hosts before Windows Server 2012 R2 in any case, the writer
// saves a VM that cannot quiesce; otherwise the VM is left alone.
func CrashShadow(host HostInfo, vm VM, mode vss.Mode, save bool) ShadowApproach {
	if vm.State == Off {
		return ShadowApproach{Uninvolved: mode == vss.PartialMode, Level: Offline}
	}
	alive := vm.State == Running || vm.State == Paused
	mayBeSaved := alive && mode == vss.OfflineMode && (save || host.Build < firstBuildWithLiveShadows)
	return ShadowApproach{Uninvolved: !mayBeSaved, Level: Crash}
}
