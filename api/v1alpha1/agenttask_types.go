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
// +kubebuilder:validation:Enum=Backup;Restore;Release;Probe;DeleteImage;Verify;Scrub;Maintain;SyncCatalog;ChangePassword
type TaskKind string

// What is delegated: the first three to host agents, the others to keepers.
const (
	TaskBackup      TaskKind = "Backup"
	TaskRestore     TaskKind = "Restore"
	TaskRelease     TaskKind = "Release"
	TaskProbe       TaskKind = "Probe"
	TaskDeleteImage TaskKind = "DeleteImage"
	TaskVerify      TaskKind = "Verify"
	TaskScrub       TaskKind = "Scrub"
	TaskMaintain    TaskKind = "Maintain"
	TaskSyncCatalog TaskKind = "SyncCatalog"
	// TaskChangePassword has no payload: both passwords are in the credential.
	TaskChangePassword TaskKind = "ChangePassword"
)

// AgentTaskSpec is one piece of work, fully resolved: the agent follows no reference but the credential in its own namespace. Only cancel can
// change: a payload comes and goes only with its kind, which cannot.
//
// +kubebuilder:validation:XValidation:rule="self.kind == oldSelf.kind && self.deadline == oldSelf.deadline && self.owner == oldSelf.owner",message="a task cannot be changed, only canceled"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",message="a canceled task stays canceled",fieldPath=".cancel"
// +kubebuilder:validation:XValidation:rule="has(self.backup) == (self.kind == 'Backup') && has(self.restore) == (self.kind == 'Restore') && has(self.release) == (self.kind == 'Release') && has(self.image) == (self.kind in ['DeleteImage', 'Verify']) && has(self.repository) == (self.kind != 'Release') && (!has(self.probe) || self.kind == 'Probe') && has(self.scrub) == (self.kind == 'Scrub') && has(self.maintain) == (self.kind == 'Maintain') && has(self.catalog) == (self.kind == 'SyncCatalog')",message="the payload does not fit the kind"
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
	// scrub is the payload of kind Scrub.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a task cannot be changed, only canceled"
	Scrub *ScrubTask `json:"scrub,omitempty"`
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
	// scrubbed is what was read of a repository so far.
	// +optional
	Scrubbed *ScrubResult `json:"scrubbed,omitempty"`
	// damagedDisks are the disks that a verification found damaged, by their keys.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=64
	DamagedDisks []string `json:"damagedDisks,omitempty"`
	// maintained is what a maintenance did.
	// +optional
	Maintained *MaintainResult `json:"maintained,omitempty"`
	// catalog is the page that was asked for.
	// +optional
	Catalog *CatalogPage `json:"catalog,omitempty"`
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
