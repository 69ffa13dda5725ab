package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Conditions and reasons of a BackupJob.
const (
	// ConditionComplete is True when the image holds all that was selected, and False with the disks that it lacks. Absent before publishing.
	ConditionComplete = "Complete"
	// ConditionCheckpointReleased is True once the host is clean again: the checkpoint gone, its files merged. It is an outcome of its own: a
	// green transfer does not hide a growing .avhdx. Absent before a checkpoint could exist.
	ConditionCheckpointReleased = "CheckpointReleased"

	ReasonQueued                  = "Queued"
	ReasonPlaced                  = "Placed"
	ReasonRunning                 = "Running"
	ReasonReleasing               = "Releasing"
	ReasonRetrying                = "Retrying"
	ReasonAllDisksIncluded        = "AllDisksIncluded"
	ReasonDisksExcluded           = "DisksExcluded"
	ReasonReleased                = "Released"
	ReasonMergePending            = "MergePending"
	ReasonReleaseFailed           = "ReleaseFailed"
	ReasonAbandoned               = "Abandoned"
	ReasonImagePublished          = "ImagePublished"
	ReasonVirtualMachineNotFound  = "VirtualMachineNotFound"
	ReasonForcedRescanUnavailable = "ForcedRescanUnavailable"
)

// JobTrigger says what started a job.
// +kubebuilder:validation:Enum=Schedule;RunNow;OnDemand
type JobTrigger string

// What started a job.
const (
	TriggerSchedule JobTrigger = "Schedule"
	TriggerRunNow   JobTrigger = "RunNow"
	TriggerOnDemand JobTrigger = "OnDemand"
)

// BackupJobSpec is one run for one virtual machine. Only cancel can change.
//
// +kubebuilder:validation:XValidation:rule="self.virtualMachineRef == oldSelf.virtualMachineRef && self.type == oldSelf.type && self.repositoryRef == oldSelf.repositoryRef && self.consistency == oldSelf.consistency && self.method == oldSelf.method && self.onMethodIneligible == oldSelf.onMethodIneligible && self.changeTracking == oldSelf.changeTracking && self.unsupportedDisks == oldSelf.unsupportedDisks && self.startDeadlineSeconds == oldSelf.startDeadlineSeconds && self.runDeadlineSeconds == oldSelf.runDeadlineSeconds && self.attempts == oldSelf.attempts && has(self.retention) == has(oldSelf.retention) && (!has(self.retention) || self.retention == oldSelf.retention) && has(self.origin) == has(oldSelf.origin) && (!has(self.origin) || self.origin == oldSelf.origin)",message="a job cannot be changed, only canceled: create another one"
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",message="a canceled job stays canceled: create another one",fieldPath=".cancel"
// +kubebuilder:validation:XValidation:rule="self.type != 'ForcedRescan' || (has(self.changeTracking) && self.changeTracking.accelerator)",message="type ForcedRescan needs changeTracking.accelerator: without it every run reads everything already",fieldPath=".type"
type BackupJobSpec struct {
	BackupSettings `json:",inline"`

	// virtualMachineRef names the virtual machine.
	// +required
	VirtualMachineRef VirtualMachineReference `json:"virtualMachineRef,omitzero"`

	// type of the run.
	// +optional
	// +kubebuilder:default=Auto
	Type RunType `json:"type,omitempty"`

	// origin says which policy made the job, and why. Absent for a job that a person made.
	// +optional
	Origin *JobOrigin `json:"origin,omitempty"`

	// startDeadlineSeconds is how long the job may wait to be placed, from its creation.
	// +optional
	// +kubebuilder:default=21600
	// +kubebuilder:validation:Minimum=10
	// +kubebuilder:validation:Maximum=604800
	StartDeadlineSeconds int32 `json:"startDeadlineSeconds,omitempty"`

	// runDeadlineSeconds is how long an attempt may take once it was placed.
	// +optional
	// +kubebuilder:default=86400
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=604800
	RunDeadlineSeconds int32 `json:"runDeadlineSeconds,omitempty"`

	// attempts is how often the job tries when the failure may go away by itself.
	// +optional
	// +kubebuilder:default=3
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	Attempts int32 `json:"attempts,omitempty"`

	// cancel stops the job: what is on the host is released, no image appears.
	// +optional
	Cancel bool `json:"cancel,omitempty"`
}

// JobOrigin says where a job comes from.
type JobOrigin struct {
	// policyRef names the policy.
	// +required
	PolicyRef PolicyReference `json:"policyRef,omitzero"`
	// trigger is Schedule or RunNow.
	// +required
	Trigger JobTrigger `json:"trigger,omitempty"`
	// name of the schedule, or the runNow token.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
	// time at which the run was due.
	// +required
	Time metav1.Time `json:"time,omitzero"`
}

// BackupJobStatus is how the run goes, and what it achieved.
type BackupJobStatus struct {
	RunStatus `json:",inline"`

	// image is what was achieved. Absent before publishing.
	// +optional
	Image *ImageSummary `json:"image,omitempty"`

	// imageRef names the image that the job published.
	// +optional
	ImageRef *ImageReference `json:"imageRef,omitempty"`
}

// BackupJob is one run for one virtual machine: disposable, and no owner of the image that it made.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=hvbj,categories=hyperv
// +kubebuilder:printcolumn:name="VM",type=string,JSONPath=`.spec.virtualMachineRef.name`
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.status.image.type`
// +kubebuilder:printcolumn:name="Method",type=string,JSONPath=`.status.image.method`
// +kubebuilder:printcolumn:name="Consistency",type=string,JSONPath=`.status.image.consistency`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Progress",type=string,JSONPath=`.status.progress.summary`
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.status.hostName`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Succeeded")].reason`
// +kubebuilder:printcolumn:name="Complete",type=string,JSONPath=`.status.conditions[?(@.type=="Complete")].status`,priority=1
// +kubebuilder:printcolumn:name="Released",type=string,JSONPath=`.status.conditions[?(@.type=="CheckpointReleased")].status`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="the name of a job has at most 63 characters"
type BackupJob struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec is what is wanted.
	// +required
	Spec BackupJobSpec `json:"spec,omitzero"`
	// status is what was done.
	// +optional
	Status BackupJobStatus `json:"status,omitzero"`
}

// BackupJobList is a list of jobs.
// +kubebuilder:object:root=true
type BackupJobList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BackupJob `json:"items"`
}
