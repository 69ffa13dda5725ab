package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Reasons of a RestoreJob. Its conditions are Succeeded, Complete, Reconciling and Stalled.
const (
	ReasonRestored            = "Restored"
	ReasonNoImage             = "NoImage"
	ReasonImageNotReady       = "ImageNotReady"
	ReasonOverwriteNotAllowed = "OverwriteNotAllowed"
	// ReasonImageOfAnotherNamespace means that the image says of itself that it was taken for another namespace than that of the restore.
	ReasonImageOfAnotherNamespace = "ImageOfAnotherNamespace"
)

// Overwrite says whether a restore may replace the original.
// +kubebuilder:validation:Enum=Never;Replace
type Overwrite string

// Whether a restore may replace the original.
const (
	OverwriteNever   Overwrite = "Never"
	OverwriteReplace Overwrite = "Replace"
)

// RestoredState is the state that a restored virtual machine is brought to, before it may be started.
// +kubebuilder:validation:Enum=AsRecorded;Off;Saved
type RestoredState string

// The states of a restored virtual machine.
const (
	// RestoredAsRecorded is the state that the image records: off, or saved where the virtual machine was saved or paused, or was saved for the backup.
	RestoredAsRecorded RestoredState = "AsRecorded"
	// RestoredOff drops a saved state: the guest starts anew.
	RestoredOff RestoredState = "Off"
	// RestoredSaved wants the saved state, and warns where the image has none.
	RestoredSaved RestoredState = "Saved"
)

// Blocks says how much of a disk a restore writes.
// +kubebuilder:validation:Enum=All;Changed
type Blocks string

// How much of a disk a restore writes.
const (
	BlocksAll     Blocks = "All"
	BlocksChanged Blocks = "Changed"
)

// RestoreJobSpec is one restore. Only cancel can change.
//
// +kubebuilder:validation:XValidation:rule="self.source == oldSelf.source && self.overwrite == oldSelf.overwrite && self.state == oldSelf.state && self.startDeadlineSeconds == oldSelf.startDeadlineSeconds && self.runDeadlineSeconds == oldSelf.runDeadlineSeconds && self.attempts == oldSelf.attempts && has(self.target) == has(oldSelf.target) && (!has(self.target) || self.target == oldSelf.target) && has(self.switches) == has(oldSelf.switches) && (!has(self.switches) || self.switches == oldSelf.switches) && has(self.powerOn) == has(oldSelf.powerOn) && (!has(self.powerOn) || self.powerOn == oldSelf.powerOn) && has(self.disks) == has(oldSelf.disks) && (!has(self.disks) || self.disks == oldSelf.disks) && self.blocks == oldSelf.blocks",message="a restore cannot be changed, only canceled: create another one"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",message="a canceled restore stays canceled: create another one",fieldPath=".cancel"
// +kubebuilder:validation:XValidation:rule="self.overwrite != 'Replace' || !has(self.target) || (!has(self.target.name) && !has(self.target.folder) && !has(self.target.hostName))",message="overwrite Replace restores in place, where the virtual machine is: leave target.hostName, target.name and target.folder out",fieldPath=".target"
// +kubebuilder:validation:XValidation:rule="self.blocks != 'Changed' || self.overwrite == 'Replace'",message="blocks Changed rolls the original back: set overwrite to Replace",fieldPath=".blocks"
// +kubebuilder:validation:XValidation:rule="!has(self.disks) || self.overwrite == 'Replace' || !has(self.powerOn) || !self.powerOn",message="disks alone are restored to files, and there is nothing to start: leave powerOn out, or set overwrite to Replace",fieldPath=".powerOn"
// +kubebuilder:validation:XValidation:rule="!has(self.source.repositoryRef) || (self.overwrite == 'Never' && has(self.target) && has(self.target.hostName) && has(self.target.name))",message="an image that is named by its repository is restored as a new virtual machine: give target.hostName and target.name, and leave overwrite out",fieldPath=".target"
type RestoreJobSpec struct {
	// source is the restore point.
	// +required
	Source RestoreSource `json:"source,omitzero"`

	// target says where the new virtual machine goes.
	// +optional
	Target *RestoreTarget `json:"target,omitempty"`

	// overwrite is Never (a new virtual machine with a new id, disconnected and off) or Replace (in place of the original, which is turned off
	// and kept aside until the restore succeeded).
	// +optional
	// +kubebuilder:default=Never
	Overwrite Overwrite `json:"overwrite,omitempty"`

	// disks restores these disks of the image only, by their keys or names: to files in a new folder, and no virtual machine is made; or with overwrite
	// Replace in place of those of the original, which keeps everything else. All disks and the virtual machine without it.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=256
	Disks []string `json:"disks,omitempty"`

	// blocks is All (the disks are written anew, beside those that they replace) or Changed (with overwrite Replace: the original is turned off, its disks are
	// compared with the image, and only what differs is written).
	// +optional
	// +kubebuilder:default=All
	Blocks Blocks `json:"blocks,omitempty"`

	// switches says which virtual switch of the host the network adapters get that were connected to another. What is not named here: a new virtual
	// machine is not connected, a replaced one gets the switch that it had, or else one of the same name.
	// +optional
	// +listType=map
	// +listMapKey=from
	// +kubebuilder:validation:MaxItems=32
	Switches []SwitchMapping `json:"switches,omitempty"`

	// state that the virtual machine is brought to: AsRecorded, Off, which drops a saved state, or Saved.
	// +optional
	// +kubebuilder:default=AsRecorded
	State RestoredState `json:"state,omitempty"`

	// powerOn starts the virtual machine at the end: one that is saved resumes, one that is off boots. Without it, it stays in its state.
	// +optional
	PowerOn bool `json:"powerOn,omitempty"`

	// startDeadlineSeconds is how long the restore may wait for its host, from its creation.
	// +optional
	// +kubebuilder:default=86400
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=604800
	StartDeadlineSeconds int32 `json:"startDeadlineSeconds,omitempty"`

	// runDeadlineSeconds is how long an attempt may take once it was placed.
	// +optional
	// +kubebuilder:default=86400
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=604800
	RunDeadlineSeconds int32 `json:"runDeadlineSeconds,omitempty"`

	// attempts is how often the restore tries when the failure may go away by itself.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	Attempts int32 `json:"attempts,omitempty"`

	// cancel stops the restore and removes what it made.
	// +optional
	Cancel bool `json:"cancel,omitempty"`
}

// SwitchMapping gives the network adapters of one virtual switch another.
type SwitchMapping struct {
	// from is the name of the virtual switch in the image.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	From string `json:"from,omitempty"`
	// to is the name of a virtual switch of the host. Without it, or when the host has none of that name, the adapters are not connected.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	To string `json:"to,omitempty"`
}

// RestoreSource names the restore point, in exactly one way.
// +kubebuilder:validation:ExactlyOneOf=imageRef;virtualMachine;repositoryRef
// +kubebuilder:validation:XValidation:rule="has(self.repositoryRef) == has(self.imageID)",message="repositoryRef and imageID name an image together"
type RestoreSource struct {
	// imageRef names the image.
	// +optional
	ImageRef *ImageReference `json:"imageRef,omitempty"`
	// virtualMachine takes the newest image of a virtual machine, which need not exist any more.
	// +optional
	VirtualMachine *VirtualMachineSource `json:"virtualMachine,omitempty"`
	// repositoryRef names the repository of an image that need not have a BackupImage. The image must have been taken for the namespace of the restore.
	// +optional
	RepositoryRef *RepositoryReference `json:"repositoryRef,omitempty"`
	// imageID of the image in that repository.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ImageID string `json:"imageID,omitempty"`
}

// VirtualMachineSource takes the newest image of a virtual machine.
type VirtualMachineSource struct {
	// name of the VirtualMachine object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
	// asOf takes the newest image that is not younger than this. The newest of all without it.
	// +optional
	AsOf *metav1.Time `json:"asOf,omitempty"`
}

// RestoreTarget says where a new virtual machine goes.
type RestoreTarget struct {
	// hostName of the HyperVHost. The host that the image came from without it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=40
	HostName string `json:"hostName,omitempty"`
	// name of the new virtual machine in Hyper-V. The original name with "-restored" without it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=100
	Name string `json:"name,omitempty"`
	// folder on the host, such as D:\VMs, in which a folder for the new virtual machine is made. The host's default without it.
	// +optional
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=200
	// +kubebuilder:validation:Pattern=`^[A-Za-z]:\\[^*?"<>|:]*$`
	Folder string `json:"folder,omitempty"`
}

// RestoreJobStatus is how the restore goes, and what it made.
type RestoreJobStatus struct {
	RunStatus `json:",inline"`

	// imageRef names the image that was chosen.
	// +optional
	ImageRef *ImageReference `json:"imageRef,omitempty"`

	// restored is what the restore made.
	// +optional
	Restored *RestoredVirtualMachine `json:"restored,omitempty"`
}

// RestoreMethod is the way by which Hyper-V got to know a restored virtual machine.
// +kubebuilder:validation:Enum=Import;Define;SwapDisks;RollBack;Files
type RestoreMethod string

// The ways of a restore.
const (
	// RestoreImport lets Hyper-V import its own configuration files out of the image: every setting comes back, and the guest's UEFI variables.
	RestoreImport RestoreMethod = "Import"
	// RestoreDefine defines a new virtual machine after the image's portable definition.
	RestoreDefine RestoreMethod = "Define"
	// RestoreSwapDisks keeps the virtual machine that is replaced, and gives it the restored disks, memory and processors.
	RestoreSwapDisks RestoreMethod = "SwapDisks"
	// RestoreRollBack keeps the virtual machine and its disks, and writes to them what differs from the image.
	RestoreRollBack RestoreMethod = "RollBack"
	// RestoreFiles restores disks to files and makes no virtual machine.
	RestoreFiles RestoreMethod = "Files"
)

// RestoredVirtualMachine is what a restore made.
type RestoredVirtualMachine struct {
	// id is the Hyper-V id. None when only files were restored.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id,omitempty"`
	// name in Hyper-V. None when only files were restored.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name,omitempty"`
	// method is the way by which Hyper-V got to know the virtual machine.
	// +optional
	Method RestoreMethod `json:"method,omitempty"`
	// methodReason says why it was not imported.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	MethodReason string `json:"methodReason,omitempty"`
	// paths of the restored disks on the host.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=1024
	Paths []string `json:"paths,omitempty"`
	// writtenBytes is what was written to the disks.
	// +optional
	// +kubebuilder:validation:Minimum=0
	WrittenBytes int64 `json:"writtenBytes,omitempty"`
	// comparedBytes of the original's disks were compared with the image, to find out what had to be written.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ComparedBytes int64 `json:"comparedBytes,omitempty"`
	// checkpoints says what became of the checkpoints of the virtual machine's user that the image has. None when it has none.
	// +optional
	Checkpoints *RestoredCheckpoints `json:"checkpoints,omitempty"`
}

// RestoredCheckpoints is what a restore made of a tree of checkpoints.
type RestoredCheckpoints struct {
	// restored is how many of them the restored virtual machine has.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Restored int32 `json:"restored,omitempty"`
	// inImage is how many the image has.
	// +required
	// +kubebuilder:validation:Minimum=1
	InImage int32 `json:"inImage,omitempty"`
	// reason says why not all were restored.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`
}

// RestoreJob brings one virtual machine back from one image.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=hvrj,categories=hyperv
// +kubebuilder:printcolumn:name="Image",type=string,JSONPath=`.status.imageRef.name`
// +kubebuilder:printcolumn:name="Overwrite",type=string,JSONPath=`.spec.overwrite`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Progress",type=string,JSONPath=`.status.progress.summary`
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.status.hostName`
// +kubebuilder:printcolumn:name="Restored",type=string,JSONPath=`.status.restored.name`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Succeeded")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="the name of a restore has at most 63 characters"
type RestoreJob struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec is what is wanted.
	// +required
	Spec RestoreJobSpec `json:"spec,omitzero"`
	// status is what was done.
	// +optional
	Status RestoreJobStatus `json:"status,omitzero"`
}

// RestoreJobList is a list of restores.
// +kubebuilder:object:root=true
type RestoreJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RestoreJob `json:"items"`
}
