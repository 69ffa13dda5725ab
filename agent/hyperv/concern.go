package hyperv

import (
	"fmt"
	"strings"
)

// Concern is something that stands in the way of a good backup, or narrows what it can hold.
type Concern struct {
	Reason ConcernReason `json:"reason"`
	// Disk is the key of the disk concerned, "" for the whole VM.
	Disk string `json:"disk,omitempty"`
	// Message says what is wrong and what to do.
	Message string `json:"message"`
}

// Severity is how much a concern takes away from a backup.
type Severity string

// The severities.
const (
	// Critical: a backup fails, or is not begun.
	Critical Severity = "Critical"
	// Warning: a backup holds less, or promises less, than one expects.
	Warning Severity = "Warning"
	// Information: a backup is complete; something about it is worth knowing.
	Information Severity = "Information"
)

// Severity of a reason. One that nobody classed is a warning.
func (r ConcernReason) Severity() Severity {
	switch r {
	case CriticalState, OwnedElsewhere, ForeignCheckpoint, DiskUnreadable, HostTooOld, DesktopEdition:
		return Critical
	case ConfigurationVersionOld, AutomaticCheckpoints, NeedsGuardian:
		return Information
	}
	return Warning
}

// ConcernReason is the kind of a concern, a word that programs may compare.
type ConcernReason string

// The reasons, in the order in which they are listed: most serious first.
const (
	CriticalState              ConcernReason = "CriticalState"
	OwnedElsewhere             ConcernReason = "OwnedElsewhere"
	ForeignCheckpoint          ConcernReason = "ForeignCheckpoint"
	Unhealthy                  ConcernReason = "Unhealthy"
	ClusterServiceStopped      ConcernReason = "ClusterServiceStopped"
	DiskUnreadable             ConcernReason = "DiskUnreadable"
	DuplicateDiskID            ConcernReason = "DuplicateDiskID"
	DiskUsedTwice              ConcernReason = "DiskUsedTwice"
	PassThroughDisk            ConcernReason = "PassThroughDisk"
	SharedDisk                 ConcernReason = "SharedDisk"
	RemoteDisk                 ConcernReason = "RemoteDisk"
	LegacyDiskFormat           ConcernReason = "LegacyDiskFormat"
	UnknownDiskFormat          ConcernReason = "UnknownDiskFormat"
	UnknownController          ConcernReason = "UnknownController"
	FibreChannelDisks          ConcernReason = "FibreChannelDisks"
	AssignedDevice             ConcernReason = "AssignedDevice"
	NotQuiescibleNow           ConcernReason = "NotQuiescibleNow"
	BackupServiceIsDisabled    ConcernReason = "BackupServiceDisabled"
	BackupServiceIsMissing     ConcernReason = "BackupServiceMissing"
	BackupServiceIsFailing     ConcernReason = "BackupServiceFailing"
	ReplicaSide                ConcernReason = "ReplicaSide"
	ReplicationFailing         ConcernReason = "ReplicationFailing"
	ProductionCheckpointsOff   ConcernReason = "ProductionCheckpointsOff"
	HostTooOld                 ConcernReason = "HostTooOld"
	DesktopEdition             ConcernReason = "DesktopEdition"
	ClusterLevelTooLow         ConcernReason = "ClusterLevelTooLow"
	ConfigurationVersionTooOld ConcernReason = "ConfigurationVersionTooOld"
	ManyReferencePoints        ConcernReason = "ManyReferencePoints"
	ConfigurationVersionOld    ConcernReason = "ConfigurationVersionOld"
	AutomaticCheckpoints       ConcernReason = "AutomaticCheckpoints"
	NeedsGuardian              ConcernReason = "NeedsGuardian"
)

// concerns lists what is wrong with one VM on its host.
func concerns(host HostInfo, vm VM) []Concern {
	var out []Concern
	add := func(reason ConcernReason, format string, args ...any) {
		out = append(out, Concern{Reason: reason, Message: fmt.Sprintf(format, args...)})
	}
	if isCritical(vm.RawState) {
		add(CriticalState, "The virtual machine is in a critical state (%d): it lost its storage or is frozen. Restore access to its files.", vm.RawState)
	}
	if vm.Cluster != nil && !vm.Cluster.Here {
		add(OwnedElsewhere, "The cluster has this virtual machine on node %s, where it is backed up. If that stays so, remove what is left of it on this host.", vm.Cluster.Node)
	}
	for _, node := range vm.recoveryCheckpoints() {
		if node.Tag == "" {
			add(ForeignCheckpoint, "The recovery checkpoint %q of %s was made by another backup product. Backups wait until that product removes it.",
				node.Name, node.Created.Format("2006-01-02 15:04"))
		}
	}
	if vm.Unhealthy && !isCritical(vm.RawState) {
		add(Unhealthy, "Hyper-V reports a failure of the virtual machine: %s Look into its event log on the host (Hyper-V-VMMS, Hyper-V-Worker).", sentence(vm.Problem))
	}
	if host.ClusterStopped {
		add(ClusterServiceStopped, "The cluster service of this host is stopped, so nobody here knows which node has the virtual machine if it is a clustered one. "+
			"Start it (Start-Service ClusSvc), or remove the host from its cluster.")
	}
	for _, d := range vm.Disks {
		if c, found := diskConcern(d); found {
			out = append(out, c)
		}
	}
	out = append(out, deviceConcerns(vm)...)
	out = append(out, guestConcerns(vm)...)
	out = append(out, TrackingObstacles(host, vm)...)
	return append(out, remarks(vm)...)
}

func isCritical(rawState int64) bool { return rawState >= criticalFirst && rawState <= criticalLast }

// sentence is what a host said, with a full stop at its end.
func sentence(text string) string {
	if text == "" {
		return "it does not say which."
	}
	return strings.TrimRight(text, ". ") + "."
}

// The range of the critical values of EnabledState (Msvm_ComputerSystem).
const (
	criticalFirst = 32785
	criticalLast  = 32796
)

// diskConcern says why a disk will not be in an image, or not for certain.
func diskConcern(d Disk) (Concern, bool) {
	c := Concern{Disk: d.Key}
	switch {
	case d.Kind == DiskPassThrough:
		c.Reason = PassThroughDisk
		c.Message = fmt.Sprintf("Disk %s is a pass-through disk and is not backed up. Run a backup agent inside the guest, or convert the disk to a .vhdx file.", d.Key)
	case d.Controller == OtherController:
		c.Reason = UnknownController
		c.Message = fmt.Sprintf("Disk %s (%s) is on a controller that is neither IDE nor SCSI, such as one for persistent memory, and is not backed up. Attach it to a SCSI "+
			"controller, or run a backup agent inside the guest.", d.Key, d.Path)
	case d.Kind == DiskShared:
		c.Reason = SharedDisk
		c.Message = fmt.Sprintf("Disk %s (%s) is shared between virtual machines and is not backed up. Run a backup agent inside the guest.", d.Key, d.Path)
	case d.Kind == DiskRemote:
		c.Reason = RemoteDisk
		c.Message = fmt.Sprintf("Disk %s (%s) is on a file server and is not backed up. Move it to a volume of the host.", d.Key, d.Path)
	case d.Kind == DiskVHD:
		c.Reason = LegacyDiskFormat
		c.Message = fmt.Sprintf("Disk %s (%s) has the VHD format and is not backed up. Convert it with Convert-VHD to .vhdx.", d.Key, d.Path)
	case d.Kind == DiskUnknown:
		c.Reason = UnknownDiskFormat
		c.Message = fmt.Sprintf("Disk %s (%s) has a format that is not backed up. Attach a .vhdx file instead.", d.Key, d.Path)
	case d.Problem != "":
		c.Reason = DiskUnreadable
		c.Message = fmt.Sprintf("Disk %s (%s) cannot be opened: %s. Check the file and the access to it.", d.Key, d.Path, d.Problem)
	default:
		return Concern{}, false
	}
	return c, true
}
