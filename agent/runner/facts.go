package runner

import (
	"strconv"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// hostFacts are the API's words for what the host said of itself.
func hostFacts(host hyperv.HostInfo, version string) *v1alpha1.HostFacts {
	facts := &v1alpha1.HostFacts{
		ComputerName: cut(host.Name, 256), OperatingSystem: cut(host.OS, 128), Build: strconv.Itoa(host.Build), AgentVersion: cut(version, 64),
	}
	for _, reason := range hyperv.HostObstacles(host) {
		facts.UnsupportedReasons = append(facts.UnsupportedReasons, warningOf(reason))
	}
	if host.Cluster != nil {
		facts.ClusterName, facts.ClusterFunctionalLevel = cut(host.Cluster.Name, 256), int32(host.Cluster.Level)
	}
	for _, volume := range host.Volumes {
		facts.Volumes = append(facts.Volumes, v1alpha1.HostVolume{
			Path: volume.Name + `\`, TotalBytes: volume.Total, FreeBytes: volume.Free, Shared: volume.Shared,
		})
	}
	return facts
}

// virtualMachineFacts are the API's words for what the host said of a virtual machine.
func virtualMachineFacts(vm hyperv.VM) v1alpha1.VirtualMachineFacts {
	facts := v1alpha1.VirtualMachineFacts{
		ID: strings.ToLower(vm.ID), DisplayName: cut(vm.Name, 256), State: stateOf(vm),
		Generation: int32(vm.Generation), ConfigurationVersion: cut(vm.ConfigurationVersion, 16),
		IntegrationServices: string(vm.BackupService), ReplicaRole: string(vm.Replica),
	}
	for _, checkpoint := range vm.Checkpoints {
		if checkpoint.Kind == hyperv.CheckpointUser {
			facts.Checkpoints++
		}
	}
	for _, disk := range vm.Disks {
		facts.Disks = append(facts.Disks, diskFacts(disk))
	}
	for _, concern := range vm.Concerns {
		facts.Concerns = append(facts.Concerns, concernOf(concern))
	}
	if vm.Cluster != nil {
		facts.ClusterNode, facts.OwnedElsewhere = cut(vm.Cluster.Node, 256), !vm.Cluster.Here
	}
	facts.GuestOperatingSystem, facts.GuestName = cut(vm.Guest.OS, 256), cut(vm.Guest.Name, 256)
	return facts
}

func warningOf(concern hyperv.Concern) v1alpha1.Warning {
	return v1alpha1.Warning{Reason: cut(string(concern.Reason), 64), Message: cut(concern.Message, 1024)}
}

func concernOf(concern hyperv.Concern) v1alpha1.Concern {
	return v1alpha1.Concern{
		Reason: cut(string(concern.Reason), 64), Severity: v1alpha1.ConcernSeverity(concern.Reason.Severity()),
		Disk: concern.Disk, Message: cut(concern.Message, 1024),
	}
}

// stateOf maps a state. Everything between two states is Changing, EnabledState 32785 to 32796 is critical.
func stateOf(vm hyperv.VM) v1alpha1.VirtualMachineState {
	const firstCritical, lastCritical = 32785, 32796
	switch {
	case vm.State == hyperv.Running:
		return v1alpha1.StateRunning
	case vm.State == hyperv.Off:
		return v1alpha1.StateOff
	case vm.State == hyperv.Saved:
		return v1alpha1.StateSaved
	case vm.State == hyperv.Paused:
		return v1alpha1.StatePaused
	case vm.RawState >= firstCritical && vm.RawState <= lastCritical:
		return v1alpha1.StateCritical
	case vm.RawState <= 1:
		return v1alpha1.StateUnknown
	}
	return v1alpha1.StateChanging
}

func diskFacts(disk hyperv.Disk) v1alpha1.VirtualMachineDisk {
	facts := v1alpha1.VirtualMachineDisk{
		Key: disk.Key, Path: cut(disk.Path, 1024), Kind: string(disk.Kind), VirtualBytes: disk.VirtualSize,
		ChangeTracking: "Unsupported",
	}
	switch {
	case disk.Problem != "":
		facts.Kind = "Unreadable"
	case disk.TrackingEnabled:
		facts.ChangeTracking = "Enabled"
	case disk.Kind == hyperv.DiskVHDX:
		facts.ChangeTracking = "Disabled"
	}
	return facts
}
