package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Conditions and reasons of an AgentTask.
const (
	// ConditionClaimed is True once an agent works on the task.
	ConditionClaimed = "Claimed"
	// ConditionReleased says whether the host is clean again. Absent on tasks that touch no virtual machine.
	ConditionReleased = "Released"

	ReasonClaimed = "Claimed"
	ReasonFailed  = "Failed"
	// ReasonVSSServiceUnavailable means that the host's Volume Shadow Copy service cannot be started.
	ReasonVSSServiceUnavailable = "VSSServiceUnavailable"
	// ReasonVSSProviderNotFound means that the host does not have the VSS provider that its HyperVHost names.
	ReasonVSSProviderNotFound = "VSSProviderNotFound"
)

// TaskKind says what is delegated.
// +kubebuilder:validation:Enum=Backup;Restore;Release;Probe;DeleteImage;Verify;Maintain;SyncCatalog
type TaskKind string

// What is delegated: the first three to host agents, the others to keepers.
const (
	TaskBackup      TaskKind = "Backup"
	TaskRestore     TaskKind = "Restore"
	TaskRelease     TaskKind = "Release"
	TaskProbe       TaskKind = "Probe"
	TaskDeleteImage TaskKind = "DeleteImage"
	TaskVerify      TaskKind = "Verify"
	TaskMaintain    TaskKind = "Maintain"
	TaskSyncCatalog TaskKind = "SyncCatalog"
)

// AgentTaskSpec is one piece of work, fully resolved: the agent follows no reference but the credential in its own namespace. Only cancel can
// change: a payload comes and goes only with its kind, which cannot.
//
// +kubebuilder:validation:XValidation:rule="self.kind == oldSelf.kind && self.deadline == oldSelf.deadline && self.owner == oldSelf.owner",message="a task cannot be changed, only canceled"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",message="a canceled task stays canceled",fieldPath=".cancel"
// +kubebuilder:validation:XValidation:rule="has(self.backup) == (self.kind == 'Backup') && has(self.restore) == (self.kind == 'Restore') && has(self.release) == (self.kind == 'Release') && has(self.image) == (self.kind in ['DeleteImage', 'Verify']) && has(self.repository) == (self.kind != 'Release') && (!has(self.probe) || self.kind == 'Probe') && has(self.maintain) == (self.kind == 'Maintain') && has(self.catalog) == (self.kind == 'SyncCatalog')",message="the payload does not fit the kind"
type AgentTaskSpec struct {
	// kind of the work.
	// +required
	Kind TaskKind `json:"kind,omitempty"`
	// owner is the object that the task was made for.
	// +required
	Owner TaskOwner `json:"owner,omitzero"`
	// deadline after which the agent stops, releases the host and fails the task.
	// +required
	Deadline metav1.Time `json:"deadline,omitzero"`
	// cancel has the agent stop, release the host and fail the task.
	// +optional
	Cancel bool `json:"cancel,omitempty"`
	// repository to work with.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task cannot be changed, only canceled"
	Repository *TaskRepository `json:"repository,omitempty"`
	// backup is the payload of kind Backup.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task cannot be changed, only canceled"
	Backup *BackupTask `json:"backup,omitempty"`
	// restore is the payload of kind Restore.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task cannot be changed, only canceled"
	Restore *RestoreTask `json:"restore,omitempty"`
	// release is the payload of kind Release.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task cannot be changed, only canceled"
	Release *ReleaseTask `json:"release,omitempty"`
	// probe is the payload of kind Probe.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task cannot be changed, only canceled"
	Probe *ProbeTask `json:"probe,omitempty"`
	// image is the payload of kinds DeleteImage and Verify.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task cannot be changed, only canceled"
	Image *ImageTask `json:"image,omitempty"`
	// maintain is the payload of kind Maintain.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task cannot be changed, only canceled"
	Maintain *MaintainTask `json:"maintain,omitempty"`
	// catalog is the payload of kind SyncCatalog.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task cannot be changed, only canceled"
	Catalog *CatalogTask `json:"catalog,omitempty"`
}

// TaskOwner is the object that a task was made for.
type TaskOwner struct {
	// kind of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind,omitempty"`
	// namespace of the object. Empty for a cluster-scoped one.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// name of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
	// uid of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`
}

// TaskRepository is the repository of a task.
type TaskRepository struct {
	// name of the BackupRepository.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=40
	Name string `json:"name,omitempty"`
	// location of the bytes.
	// +required
	Location RepositoryLocation `json:"location,omitzero"`
	// repositoryID that is expected there. Nothing is done in another one: an empty folder where a share should be mounted is no repository. Only a probe
	// without it makes a repository.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	RepositoryID string `json:"repositoryID,omitempty"`
	// secretName names the credential in the task's own namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName,omitempty"`
	// bandwidth that the host is limited to. Absent means no limit.
	// +optional
	Bandwidth *BandwidthLimits `json:"bandwidth,omitempty"`
}

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
	// retention is recorded in the image.
	// +optional
	Retention *Retention `json:"retention,omitempty"`
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

// ProbeTask says what a probe does besides looking.
type ProbeTask struct {
	// testStorage has the storage tested for what backups rely on.
	// +optional
	TestStorage bool `json:"testStorage,omitempty"`
	// immutability that new images get.
	// +optional
	Immutability *Immutability `json:"immutability,omitempty"`
}

// ImageTask is about one image.
type ImageTask struct {
	// imageID of the image.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ImageID string `json:"imageID,omitempty"`
	// virtualMachineID that the image was taken of, as it was recorded when the image was published.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	VirtualMachineID string `json:"virtualMachineID,omitempty"`
	// digest of the image's manifest, as it was recorded when the image was published. Another image is refused.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Digest string `json:"digest,omitempty"`
}

// MaintainMode says how thorough maintenance is.
// +kubebuilder:validation:Enum=Quick;Full
type MaintainMode string

// Quick keeps the index short, Full also frees what no image uses any more.
const (
	MaintainQuick MaintainMode = "Quick"
	MaintainFull  MaintainMode = "Full"
)

// MaintainTask maintains a repository.
type MaintainTask struct {
	// mode of the maintenance.
	// +required
	Mode MaintainMode `json:"mode,omitempty"`
}

// AgentTaskStatus is how the work goes. The agent of the namespace alone writes it.
type AgentTaskStatus struct {
	// conditions are Claimed, Succeeded and Released.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// observedGeneration is the generation that the status is about.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// sessionID of the agent that claimed the task. It changes when the agent was started anew and took the task up again.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	SessionID string `json:"sessionID,omitempty"`
	// completionTime is when the verdict fell.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// progress of the transfer.
	// +optional
	Progress *Progress `json:"progress,omitempty"`
	// steps in the order in which they happened.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Steps []Step `json:"steps,omitempty"`
	// warnings do not fail the task.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Warnings []Warning `json:"warnings,omitempty"`
	// failure says why the task failed.
	// +optional
	Failure *Failure `json:"failure,omitempty"`
	// image is what a backup achieved. It appears when the image was published.
	// +optional
	Image *ImageSummary `json:"image,omitempty"`
	// restored is what a restore made.
	// +optional
	Restored *RestoredVirtualMachine `json:"restored,omitempty"`
	// probe is what a probe found.
	// +optional
	Probe *ProbeResult `json:"probe,omitempty"`
	// maintained is what a maintenance did.
	// +optional
	Maintained *MaintainResult `json:"maintained,omitempty"`
	// catalog is the page that was asked for.
	// +optional
	Catalog *CatalogPage `json:"catalog,omitempty"`
}

// MaintainResult is what a maintenance did.
type MaintainResult struct {
	// freedBytes were deleted from the storage.
	// +optional
	// +kubebuilder:validation:Minimum=0
	FreedBytes int64 `json:"freedBytes,omitempty"`
	// unusedBytes are used by no image and wait to be freed.
	// +optional
	// +kubebuilder:validation:Minimum=0
	UnusedBytes int64 `json:"unusedBytes,omitempty"`
	// recoveredBytes were marked as deleted although an image needs them, and are not any more.
	// +optional
	// +kubebuilder:validation:Minimum=0
	RecoveredBytes int64 `json:"recoveredBytes,omitempty"`
	// indexBlobs are left in the index.
	// +optional
	// +kubebuilder:validation:Minimum=0
	IndexBlobs int32 `json:"indexBlobs,omitempty"`
}

// ProbeResult is what a probe found in a repository.
type ProbeResult struct {
	// repositoryID identifies the repository itself.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	RepositoryID string `json:"repositoryID,omitempty"`
	// images counts those in the repository.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Images int32 `json:"images,omitempty"`
	// storedBytes is the size of the repository.
	// +optional
	// +kubebuilder:validation:Minimum=0
	StoredBytes int64 `json:"storedBytes,omitempty"`
	// freeBytes of the volume, where the store tells.
	// +optional
	// +kubebuilder:validation:Minimum=0
	FreeBytes *int64 `json:"freeBytes,omitempty"`
	// storage is what the test showed, if there was one.
	// +optional
	Storage *StorageFacts `json:"storage,omitempty"`
}

// AgentTask is one piece of work for the agent in whose namespace it lies: the delegation between the manager, which writes the spec, and that
// agent, which alone writes the status.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=hvtask,categories=hyperv
// +kubebuilder:printcolumn:name="Kind",type=string,JSONPath=`.spec.kind`
// +kubebuilder:printcolumn:name="For",type=string,JSONPath=`.spec.owner.name`
// +kubebuilder:printcolumn:name="Claimed",type=string,JSONPath=`.status.conditions[?(@.type=="Claimed")].status`
// +kubebuilder:printcolumn:name="Step",type=string,JSONPath=`.status.steps[-1:].name`
// +kubebuilder:printcolumn:name="Progress",type=string,JSONPath=`.status.progress.summary`
// +kubebuilder:printcolumn:name="Succeeded",type=string,JSONPath=`.status.conditions[?(@.type=="Succeeded")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Succeeded")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AgentTask struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec is what is wanted.
	// +required
	Spec AgentTaskSpec `json:"spec,omitzero"`
	// status is what was done.
	// +optional
	Status AgentTaskStatus `json:"status,omitzero"`
}

// AgentTaskList is a list of tasks.
// +kubebuilder:object:root=true
type AgentTaskList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AgentTask `json:"items"`
}
