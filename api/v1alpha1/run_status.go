package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RunStatus is how a run goes: what the status of a BackupJob and that of a RestoreJob have in common.
type RunStatus struct {
	// conditions are Succeeded, Reconciling, Stalled and, on a BackupJob, Complete and CheckpointReleased.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation that the status is about.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// phase is derived from the conditions, for people.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Phase string `json:"phase,omitempty"`

	// hostName is where the run was placed last.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	HostName string `json:"hostName,omitempty"`

	// attempt counts the tasks that were made for this run.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Attempt int32 `json:"attempt,omitempty"`

	// taskRef names the task of this attempt.
	// +optional
	TaskRef *TaskReference `json:"taskRef,omitempty"`

	// startTime is when the first task was placed.
	// +optional
	StartTime *metav1.Time `json:"startTime,omitempty"`

	// retryTime is when the next attempt may be placed.
	// +optional
	RetryTime *metav1.Time `json:"retryTime,omitempty"`

	// completionTime is when the verdict fell.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`

	// progress of the transfer, copied from the task.
	// +optional
	Progress *Progress `json:"progress,omitempty"`

	// steps of the task, in the order in which they happened.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Steps []Step `json:"steps,omitempty"`

	// warnings do not fail a run, and are not to be overlooked.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Warnings []Warning `json:"warnings,omitempty"`

	// failure of the last attempt.
	// +optional
	Failure *Failure `json:"failure,omitempty"`
}
