package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Progress of a transfer.
type Progress struct {
	// bytesTotal is the estimate made before the transfer: what will be read or written.
	// +optional
	// +kubebuilder:validation:Minimum=0
	BytesTotal int64 `json:"bytesTotal,omitempty"`
	// bytesDone is how much of bytesTotal is behind us.
	// +optional
	// +kubebuilder:validation:Minimum=0
	BytesDone int64 `json:"bytesDone,omitempty"`
	// bytesStored is what was added to the repository after deduplication and compression.
	// +optional
	// +kubebuilder:validation:Minimum=0
	BytesStored int64 `json:"bytesStored,omitempty"`
	// bytesPerSecond is the rate of the last half minute.
	// +optional
	// +kubebuilder:validation:Minimum=0
	BytesPerSecond int64 `json:"bytesPerSecond,omitempty"`
	// estimatedCompletionTime of the transfer at that rate.
	// +optional
	EstimatedCompletionTime *metav1.Time `json:"estimatedCompletionTime,omitempty"`
	// summary is all that in a few words, for people.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Summary string `json:"summary,omitempty"`
}

// Step of a task, in the order in which it happened.
type Step struct {
	// name of the step, such as Checkpoint or Transfer.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	Name string `json:"name,omitempty"`
	// startTime by the agent's clock.
	// +required
	StartTime metav1.Time `json:"startTime,omitzero"`
	// completionTime is absent while the step goes on.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// message says what was decided or found, and why.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}

// Warning is something that a person should know about a run that went on all the same.
type Warning struct {
	// reason in CamelCase.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// message says what it means and what to do.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// FailureAction says who must act after a failure.
// +kubebuilder:validation:Enum=Retry;Stall
type FailureAction string

// Who must act after a failure.
const (
	// FailureRetry may go away by itself: another attempt is worth it.
	FailureRetry FailureAction = "Retry"
	// FailureStall needs a person or a change of the spec.
	FailureStall FailureAction = "Stall"
)

// Failure of a run.
type Failure struct {
	// reason in CamelCase.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// message says what is wrong and what to do. It holds no secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	Message string `json:"message,omitempty"`
	// action says who must act: Retry or Stall.
	// +required
	Action FailureAction `json:"action,omitempty"`
}
