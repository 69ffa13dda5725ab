package v1alpha1

// BackupTask backs one virtual machine up.
type BackupTask struct {
	// virtualMachine to back up.
	// +required
	VirtualMachine ImageVirtualMachine `json:"virtualMachine,omitzero"`
	// imageID that the image gets: the same for every attempt of a job, so that a repeated one finds what an earlier one published.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ImageID string `json:"imageID,omitempty"`
	// namespace and policyName are recorded in the image.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// policyName of the policy, if any.
	// +optional
	// +kubebuilder:validation:MaxLength=40
	PolicyName string `json:"policyName,omitempty"`
	// type of the run.
	// +required
	Type RunType `json:"type,omitempty"`
	// method that is asked for.
	// +optional
	// +kubebuilder:default=Auto
	Method MethodChoice `json:"method,omitempty"`
	// onMethodIneligible says what to do where the host cannot do the method.
	// +optional
	// +kubebuilder:default=Fallback
	OnMethodIneligible MethodIneligible `json:"onMethodIneligible,omitempty"`
	// vssProviderID is the provider that makes the shadow copies of the method VSS. The one that Windows chooses without it.
	// +optional
	// +kubebuilder:validation:MaxLength=36
	VSSProviderID string `json:"vssProviderID,omitempty"`
	// sharedVolumes are the cluster shared volumes from which no other backup is taken meanwhile, on whatever node.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MaxLength=256
	SharedVolumes []string `json:"sharedVolumes,omitempty"`
	// lastMethod is that of the newest image of the virtual machine. Absent without an image.
	// +optional
	LastMethod BackupMethod `json:"lastMethod,omitempty"`
	// consistency that is asked for.
	// +required
	Consistency ConsistencySettings `json:"consistency,omitzero"`
	// changeTracking that is asked for.
	// +optional
	ChangeTracking ChangeTrackingSettings `json:"changeTracking,omitzero"`
	// unsupportedDisks says what to do about disks that no checkpoint covers.
	// +required
	UnsupportedDisks UnsupportedDisks `json:"unsupportedDisks,omitempty"`
	// repair is set when the newest image is damaged in the repository: what is read then is stored anew where that is damaged.
	// +optional
	Repair *Repair `json:"repair,omitempty"`
	// retention is recorded in the image.
	// +optional
	Retention *Retention `json:"retention,omitempty"`
}

// Repair says what a backup stores anew. Files of the configuration always belong to it.
type Repair struct {
	// disks that are read in full, by their keys.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=64
	Disks []string `json:"disks,omitempty"`
}

// RestoreTask brings one virtual machine back.
type RestoreTask struct {
	// imageID of the image.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ImageID string `json:"imageID,omitempty"`
	// virtualMachineID that the image was taken of, as it was recorded when the image was published. Absent where no record of the image was asked.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	VirtualMachineID string `json:"virtualMachineID,omitempty"`
	// digest of the image's manifest, as it was recorded when the image was published. Another image is refused.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Digest string `json:"digest,omitempty"`
	// namespace that the image must have been taken for. Any without it.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// overwrite says whether the original is replaced.
	// +required
	Overwrite Overwrite `json:"overwrite,omitempty"`
	// name of the new virtual machine.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name,omitempty"`
	// folder on the host in which its folder is made. The host's default without it.
	// +optional
	// +kubebuilder:validation:MaxLength=200
	Folder string `json:"folder,omitempty"`
	// disks restores these disks only, by their keys or names: to files, or in place of the original's. All, and the virtual machine, without it.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=256
	Disks []string `json:"disks,omitempty"`
	// blocks says whether disks in place are written anew, or only what differs from the image. All without it.
	// +optional
	Blocks Blocks `json:"blocks,omitempty"`
	// switches maps the virtual switches of the image to those of the host.
	// +optional
	// +listType=map
	// +listMapKey=from
	// +kubebuilder:validation:MaxItems=32
	Switches []SwitchMapping `json:"switches,omitempty"`
	// state that the virtual machine is brought to.
	// +optional
	// +kubebuilder:default=AsRecorded
	State RestoredState `json:"state,omitempty"`
	// powerOn starts the virtual machine at the end.
	// +optional
	PowerOn bool `json:"powerOn,omitempty"`
	// restoreID marks what the restore makes: the same for every attempt.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	RestoreID string `json:"restoreID,omitempty"`
}

// ReleaseTask cleans up what an earlier task left on the host.
type ReleaseTask struct {
	// virtualMachineID of the virtual machine.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	VirtualMachineID string `json:"virtualMachineID,omitempty"`
	// tag that the checkpoint carries.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Tag string `json:"tag,omitempty"`
}
