package backupjob

import (
	"slices"
	"strconv"
	"strings"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
)

// Builds of Windows: what a host is able to do depends on them.
const (
	// build2012 is Windows Server 2012, the first whose nodes take shadow copies of a cluster shared volume without redirecting all access to it.
	build2012 = 9200
	// build2016 is Windows Server 2016, the first with the method WMI.
	build2016 = 14393
)

// needs is what the backup of a virtual machine has for itself on a host, which may be nil. Shared volumes are, before Windows Server 2012 in any case (DR-09)
// and later where shadow copies may be made, unless the storage makes them itself.
func needs(job *v1alpha1.BackupJob, machine *v1alpha1.VirtualMachine, host *v1alpha1.HyperVHost) delegation.Needs {
	needs := delegation.Needs{MachineID: inventory.ID(machine)}
	cluster := delegation.ClusterLabel(host)
	if cluster == "" {
		return needs
	}
	build, err := strconv.Atoi(host.Status.Facts.Build)
	if err != nil {
		build = build2016 // every host that an agent runs on
	}
	hardware := host.Spec.VSSProvider != nil && host.Spec.VSSProvider.Type == v1alpha1.VSSProviderHardware
	if build >= build2012 && (hardware || !mayUseVSS(job, machine, build)) {
		return needs
	}
	if needs.SharedVolumes = sharedVolumes(machine, host); len(needs.SharedVolumes) > 0 {
		needs.Cluster = cluster
	}
	return needs
}

// mayUseVSS foresees the agent's choice of a method, except that of falling back where the method WMI turns out not to work: a shadow copy that meets another
// one on its volume waits on the host then.
func mayUseVSS(job *v1alpha1.BackupJob, machine *v1alpha1.VirtualMachine, build int) bool {
	switch job.Spec.Method {
	case v1alpha1.MethodChoiceVSS:
		return true
	case v1alpha1.MethodChoiceWMI:
		return build < build2016 && job.Spec.OnMethodIneligible != v1alpha1.MethodIneligibleFail
	default:
		return build < build2016 || lastMethod(machine) == v1alpha1.MethodVSS
	}
}

// lastMethod is that of the newest image of a virtual machine, or empty.
func lastMethod(machine *v1alpha1.VirtualMachine) v1alpha1.BackupMethod {
	if point := machine.Status.LastRestorePoint; point != nil {
		return point.Method
	}
	return ""
}

// sharedVolumes are those of the host's cluster that a virtual machine has disks on.
func sharedVolumes(machine *v1alpha1.VirtualMachine, host *v1alpha1.HyperVHost) (volumes []string) {
	for _, volume := range host.Status.Facts.Volumes {
		if volume.Shared && slices.ContainsFunc(machine.Status.Facts.Disks, func(disk v1alpha1.VirtualMachineDisk) bool {
			return len(disk.Path) > len(volume.Path) && strings.EqualFold(disk.Path[:len(volume.Path)], volume.Path)
		}) {
			volumes = append(volumes, volume.Path)
		}
	}
	return volumes
}
