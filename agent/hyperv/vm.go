package hyperv

import "time"

// State is the power state of a VM, reduced to what a backup has to tell apart.
type State string

// The states (Msvm_ComputerSystem.EnabledState 2, 3, 6 and 9; everything else is Other and explained by VM.RawState).
const (
	Running State = "Running"
	Off     State = "Off"
	Saved   State = "Saved"
	Paused  State = "Paused"
	// Other is a state in between (starting, saving) or a critical one (storage lost): look again later.
	Other State = "Other"
)

// BackupService is the state of the integration service "Backup (volume checkpoint)".
type BackupService string

// The states of the backup service. They are the setting's first, then the running component's (Msvm_VssComponent).
const (
	// BackupServiceOK: enabled, and answering where the VM runs.
	BackupServiceOK BackupService = "OK"
	// BackupServiceDisabled: switched off in the VM's settings.
	BackupServiceDisabled BackupService = "Disabled"
	// BackupServiceMissing: the guest does not answer: not installed or not started.
	BackupServiceMissing BackupService = "Missing"
	// BackupServiceFailing: the guest's component is incompatible or lost its connection.
	BackupServiceFailing BackupService = "Failing"
)

// CheckpointType is the VM's own setting for checkpoints (UserSnapshotType). Recovery checkpoints do not depend on it, but it tells
// how the owner means the VM to be checkpointed.
type CheckpointType string

// The checkpoint types.
const (
	CheckpointsDisabled       CheckpointType = "Disabled"
	CheckpointsProduction     CheckpointType = "Production"
	CheckpointsProductionOnly CheckpointType = "ProductionOnly"
	CheckpointsStandard       CheckpointType = "Standard"
	CheckpointsUnknown        CheckpointType = "Unknown"
)

// ReplicaRole is the part that this VM plays in Hyper-V Replica (ReplicationMode).
type ReplicaRole string

// The replica roles.
const (
	ReplicaNone     ReplicaRole = "None"
	ReplicaPrimary  ReplicaRole = "Primary"
	ReplicaReplica  ReplicaRole = "Replica"
	ReplicaTest     ReplicaRole = "TestReplica"
	ReplicaExtended ReplicaRole = "ExtendedReplica"
)

// onReplicaSide tells that the VM's disks are written by replication, not by a guest.
func (r ReplicaRole) onReplicaSide() bool {
	return r == ReplicaReplica || r == ReplicaTest || r == ReplicaExtended
}

// Replication is the state of Hyper-V Replica for a VM, by the numbers of Msvm_ComputerSystem.ReplicationState and ReplicationHealth (1 good, 2 warning, 3 critical).
type Replication struct {
	State  int64 `json:"state,omitempty"`
	Health int64 `json:"health,omitempty"`
}

// VM is one virtual machine as its host describes it at one moment.
type VM struct {
	// ID is the Hyper-V id in upper case.
	ID   string `json:"id"`
	Name string `json:"name"`
	// State is the reduced state, RawState the number that Hyper-V gave (EnabledState).
	State    State `json:"state"`
	RawState int64 `json:"rawState"`
	// Operation is what Hyper-V does with the VM right now (OperationalStatus[1]), "" when nothing.
	Operation Operation `json:"operation,omitempty"`
	// Generation is 1 or 2. ConfigurationVersion is like "9.0".
	Generation           int            `json:"generation"`
	ConfigurationVersion string         `json:"configurationVersion"`
	Created              time.Time      `json:"created,omitzero"`
	Processors           int            `json:"processors"`
	Memory               Memory         `json:"memory"`
	BackupService        BackupService  `json:"backupService"`
	CheckpointType       CheckpointType `json:"checkpointType"`
	// AutomaticCheckpoints says that Hyper-V makes a checkpoint at each start.
	AutomaticCheckpoints bool        `json:"automaticCheckpoints,omitempty"`
	Replica              ReplicaRole `json:"replica"`
	// Replication is how replication goes, zero without a replica.
	Replication Replication `json:"replication,omitzero"`
	// Unhealthy says that Hyper-V reports a failure of the VM (HealthState 20 and 25), Problem what it says of it.
	Unhealthy bool   `json:"unhealthy,omitempty"`
	Problem   string `json:"problem,omitempty"`
	// LastBackup is when a backup of the VM succeeded last, by Hyper-V's word and with any product. Zero for never.
	LastBackup time.Time `json:"lastBackup,omitzero"`
	// ReferencePoints counts the VM's reference points, everybody's.
	ReferencePoints int    `json:"referencePoints,omitempty"`
	Traits          Traits `json:"traits,omitzero"`
	Guest           Guest  `json:"guest,omitzero"`
	// Cluster is what the failover cluster says of the VM, nil when it is none of the cluster's.
	Cluster *Ownership `json:"cluster,omitempty"`
	// Folder is where the VM's configuration lives.
	Folder      string           `json:"folder,omitempty"`
	Firmware    Firmware         `json:"firmware"`
	Notes       []string         `json:"notes,omitempty"`
	Controllers []Controller     `json:"controllers,omitempty"`
	Disks       []Disk           `json:"disks,omitempty"`
	Networks    []NetworkAdapter `json:"networks,omitempty"`
	// Checkpoints are all checkpoints of the VM, recovery checkpoints among them, oldest first. Current is the ID of the one that the VM goes on from, "" for none.
	Checkpoints []CheckpointNode `json:"checkpoints,omitempty"`
	Current     string           `json:"current,omitempty"`
	// Concerns are what stands in the way of a good backup, most serious first.
	Concerns []Concern `json:"concerns,omitempty"`

	systemPath   string // of the Msvm_ComputerSystem
	settingsPath string // of the active Msvm_VirtualSystemSettingData
	settingsID   string // its InstanceID
}

// Memory is the VM's memory in MiB.
type Memory struct {
	Startup int64 `json:"startup"`
	Dynamic bool  `json:"dynamic,omitempty"`
	Minimum int64 `json:"minimum,omitempty"`
	Maximum int64 `json:"maximum,omitempty"`
	// Buffer is the percentage kept in reserve.
	Buffer int64 `json:"buffer,omitempty"`
}

// Firmware is what the guest boots with.
type Firmware struct {
	BIOSGUID           string `json:"biosGUID,omitempty"`
	SecureBoot         bool   `json:"secureBoot,omitempty"`
	SecureBootTemplate string `json:"secureBootTemplate,omitempty"`
}

// NetworkAdapter is one network card.
type NetworkAdapter struct {
	Name string `json:"name"`
	// Address is the MAC address, 12 hexadecimal digits. Static tells that it is fixed in the settings.
	Address string `json:"address,omitempty"`
	Static  bool   `json:"static,omitempty"`
	// Switch is the name of the virtual switch, "" when not connected.
	Switch string `json:"switch,omitempty"`
	// Legacy is an emulated card, which only a VM of generation 1 can have: its guest needs no driver of Hyper-V for it, and can boot from the network.
	Legacy bool `json:"legacy,omitempty"`
}

// CheckpointKind tells whose a checkpoint is.
type CheckpointKind string

// The kinds of checkpoints (VirtualSystemType).
const (
	// CheckpointUser was made by a person or a tool for going back to.
	CheckpointUser CheckpointKind = "User"
	// CheckpointRecovery was made by a backup product.
	CheckpointRecovery CheckpointKind = "Recovery"
	// CheckpointOther belongs to Hyper-V Replica, or is missing its files.
	CheckpointOther CheckpointKind = "Other"
)

// CheckpointNode is one node of a VM's tree of checkpoints.
type CheckpointNode struct {
	ID      string         `json:"id"`
	Name    string         `json:"name"`
	Kind    CheckpointKind `json:"kind"`
	Created time.Time      `json:"created,omitzero"`
	// Parent is the ID of the checkpoint that this one follows, "" for a root.
	Parent string `json:"parent,omitempty"`
	// Automatic says that Hyper-V made it when the VM was started.
	Automatic bool `json:"automatic,omitempty"`
	// Tag is the task's, when the checkpoint is ours.
	Tag string `json:"tag,omitempty"`

	path string
}

// Operation is something that Hyper-V does with a VM and during which nothing else can be done.
type Operation string

// The operations (Msvm_ComputerSystem.OperationalStatus[1]).
const (
	CreatingCheckpoint Operation = "CreatingCheckpoint"
	ApplyingCheckpoint Operation = "ApplyingCheckpoint"
	DeletingCheckpoint Operation = "DeletingCheckpoint"
	WaitingToStart     Operation = "WaitingToStart"
	MergingDisks       Operation = "MergingDisks"
	Exporting          Operation = "Exporting"
	Migrating          Operation = "Migrating"
	// OtherOperation is one that we have no name for.
	OtherOperation Operation = "Other"
)

// recoveryCheckpoints lists those of backup products, of ours and of others.
func (vm VM) recoveryCheckpoints() []CheckpointNode {
	var out []CheckpointNode
	for _, node := range vm.Checkpoints {
		if node.Kind == CheckpointRecovery {
			out = append(out, node)
		}
	}
	return out
}

// Disk finds a disk by its key.
func (vm VM) Disk(key string) (Disk, bool) {
	for _, d := range vm.Disks {
		if d.Key == key {
			return d, true
		}
	}
	return Disk{}, false
}
