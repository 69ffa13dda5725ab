package v1alpha1

// VirtualMachineState is what the virtual machine does.
// +kubebuilder:validation:Enum=Running;Off;Saved;Paused;Changing;Critical;Unknown
type VirtualMachineState string

// What a virtual machine does.
const (
	StateRunning  VirtualMachineState = "Running"
	StateOff      VirtualMachineState = "Off"
	StateSaved    VirtualMachineState = "Saved"
	StatePaused   VirtualMachineState = "Paused"
	StateChanging VirtualMachineState = "Changing"
	StateCritical VirtualMachineState = "Critical"
	StateUnknown  VirtualMachineState = "Unknown"
)

// VirtualMachineFacts are what a host says of a virtual machine.
type VirtualMachineFacts struct {
	// id is the Hyper-V id, in lower case. It becomes a label.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	ID string `json:"id,omitempty"`
	// displayName is the name in Hyper-V.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	DisplayName string `json:"displayName,omitempty"`
	// state of the virtual machine.
	// +required
	State VirtualMachineState `json:"state,omitempty"`
	// generation is 1 or 2.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Generation int32 `json:"generation,omitempty"`
	// configurationVersion such as 10.0.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	ConfigurationVersion string `json:"configurationVersion,omitempty"`
	// integrationServices is the state of the backup integration service: Ok, Disabled, Missing, Failing or Unknown.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	IntegrationServices string `json:"integrationServices,omitempty"`
	// replicaRole is None, Primary, Replica, TestReplica or ExtendedReplica.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	ReplicaRole string `json:"replicaRole,omitempty"`
	// checkpoints counts those that the user made.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Checkpoints int32 `json:"checkpoints,omitempty"`
	// disks that are attached.
	// +optional
	// +listType=map
	// +listMapKey=key
	// +kubebuilder:validation:MaxItems=256
	Disks []VirtualMachineDisk `json:"disks,omitempty"`
	// concerns are what will or may keep backups from being what one expects.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Concerns []Concern `json:"concerns,omitempty"`
	// clusterNode is the node that has the virtual machine by the word of its failover cluster. Empty: it is none of the cluster's.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	ClusterNode string `json:"clusterNode,omitempty"`
	// ownedElsewhere says that this node is another host than the one that states these facts: the owner's word counts, not this one's.
	// +optional
	OwnedElsewhere bool `json:"ownedElsewhere,omitempty"`
	// guestOperatingSystem as the guest states it.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	GuestOperatingSystem string `json:"guestOperatingSystem,omitempty"`
	// guestName is the guest's own name, with its domain.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	GuestName string `json:"guestName,omitempty"`
}

// ConcernSeverity is how much a concern takes away from a backup.
// +kubebuilder:validation:Enum=Critical;Warning;Information
type ConcernSeverity string

// How much a concern takes away from a backup.
const (
	// ConcernCritical means that a backup fails, or is not begun.
	ConcernCritical ConcernSeverity = "Critical"
	// ConcernWarning means that a backup holds or promises less than one expects.
	ConcernWarning ConcernSeverity = "Warning"
	// ConcernInformation means that a backup is complete, and something about it is worth knowing.
	ConcernInformation ConcernSeverity = "Information"
)

// Concern is what will or may keep backups of a virtual machine from being what one expects.
type Concern struct {
	// reason in CamelCase.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// severity is Critical, Warning or Information.
	// +optional
	Severity ConcernSeverity `json:"severity,omitempty"`
	// disk is the key of the disk that it is about. Empty: the whole virtual machine.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Disk string `json:"disk,omitempty"`
	// message says what it means and what to do.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// VirtualMachineDisk is one attached disk.
type VirtualMachineDisk struct {
	// key is the disk's place, such as SCSI-0-1. On a controller that is neither IDE nor SCSI it is Other-0-0 and so on, counted.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Key string `json:"key,omitempty"`
	// path on the host. Empty for a pass-through disk.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Path string `json:"path,omitempty"`
	// kind is VHDX, VHD, PassThrough, Shared, Remote, Unknown or Unreadable. Unknown is a disk of another format, or on another controller than IDE and SCSI.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	Kind string `json:"kind,omitempty"`
	// virtualBytes is the size as the guest sees it.
	// +optional
	// +kubebuilder:validation:Minimum=0
	VirtualBytes int64 `json:"virtualBytes,omitempty"`
	// changeTracking is Enabled, Disabled or Unsupported.
	// +optional
	// +kubebuilder:validation:MaxLength=16
	ChangeTracking string `json:"changeTracking,omitempty"`
}
