package hyperv

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The gates of the WMI method and of change tracking.
const (
	firstBuildWithRCT = 14393 // Windows Server 2016
	// FirstClusterWithRCT is the functional level of Server 2016, from which on a cluster can track changes.
	FirstClusterWithRCT = 9
)

// HostObstacles lists why a host cannot be backed up by checkpoints through WMI; empty when it can.
func HostObstacles(host HostInfo) []Concern {
	var out []Concern
	if host.Desktop {
		out = append(out, Concern{Reason: DesktopEdition, Message: fmt.Sprintf("%s is a desktop edition. Hyper-V is supported on Windows Server only.", host.OS)})
	}
	if host.Build < firstBuildWithRCT {
		out = append(out, Concern{Reason: HostTooOld,
			Message: fmt.Sprintf("The host is build %d. Recovery checkpoints need Windows Server 2016 (build %d) or later.", host.Build, firstBuildWithRCT)})
	}
	return out
}

// TrackingObstacles lists every unmet condition of change tracking for a VM. ConfigurationVersionOld alone does not hinder it. The last word
// has the disk itself, whose tracking can be enabled or not.
func TrackingObstacles(host HostInfo, vm VM) []Concern {
	out := HostObstacles(host)
	if host.Cluster != nil && host.Cluster.Level < FirstClusterWithRCT {
		out = append(out, Concern{Reason: ClusterLevelTooLow,
			Message: fmt.Sprintf("The cluster's functional level is %d. Change tracking needs %d: run Update-ClusterFunctionalLevel.", host.Cluster.Level, FirstClusterWithRCT)})
	}
	switch {
	case versionBefore(vm.ConfigurationVersion, 6, 2):
		out = append(out, Concern{Reason: ConfigurationVersionTooOld,
			Message: fmt.Sprintf("The configuration version is %s. Change tracking needs 6.2: run Update-VMVersion; until then every backup reads all data.", vm.ConfigurationVersion)})
	case versionBefore(vm.ConfigurationVersion, 8, 0):
		out = append(out, Concern{Reason: ConfigurationVersionOld,
			Message: fmt.Sprintf("The configuration version is %s. Update-VMVersion to 8.0 or later is recommended for change tracking.", vm.ConfigurationVersion)})
	}
	return out
}

// Trackable tells whether change tracking can be used for a VM.
func Trackable(host HostInfo, vm VM) bool {
	return !slices.ContainsFunc(TrackingObstacles(host, vm), func(c Concern) bool { return c.Reason != ConfigurationVersionOld })
}

// versionBefore compares a configuration version like "8.0". One that cannot be read is before any.
func versionBefore(version string, major, minor int) bool {
	first, second, _ := strings.Cut(version, ".")
	a, err := strconv.Atoi(first)
	if err != nil {
		return true
	}
	b, err := strconv.Atoi(second)
	return err != nil || a < major || (a == major && b < minor)
}

// Quiescible tells whether an application-consistent checkpoint makes sense, and why not. A VM that is off needs no quiescing and is.
func Quiescible(vm VM) (ok bool, reason string) {
	switch {
	case vm.Replica.onReplicaSide():
		return false, "the replica of a virtual machine can only be backed up crash consistent"
	case vm.State == Off:
		return true, ""
	case vm.State != Running:
		return false, fmt.Sprintf("the virtual machine is %s", strings.ToLower(string(vm.State)))
	case vm.BackupService == BackupServiceDisabled:
		return false, "the backup integration service is disabled in the virtual machine's settings"
	case vm.BackupService == BackupServiceMissing:
		return false, "the guest's backup integration service does not answer"
	case vm.BackupService == BackupServiceFailing:
		return false, "the guest's backup integration service fails"
	case vm.CheckpointType == CheckpointsDisabled, vm.CheckpointType == CheckpointsStandard:
		return false, "production checkpoints are off in the virtual machine's settings"
	}
	return true, ""
}
