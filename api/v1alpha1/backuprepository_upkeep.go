package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// MaintenanceStatus is how a repository is kept.
type MaintenanceStatus struct {
	// lastQuickTime is when the index was kept short last, by a full maintenance too.
	// +optional
	LastQuickTime *metav1.Time `json:"lastQuickTime,omitempty"`
	// lastFullTime is when space was freed last.
	// +optional
	LastFullTime *metav1.Time `json:"lastFullTime,omitempty"`
	// freedBytes were deleted from the storage by the last full maintenance.
	// +optional
	// +kubebuilder:validation:Minimum=0
	FreedBytes int64 `json:"freedBytes,omitempty"`
	// unusedBytes are used by no image and wait to be freed, a day or two.
	// +optional
	// +kubebuilder:validation:Minimum=0
	UnusedBytes int64 `json:"unusedBytes,omitempty"`
	// indexBlobs slow every look-up down in proportion. Beyond some hundred, maintenance does not keep up.
	// +optional
	// +kubebuilder:validation:Minimum=0
	IndexBlobs int32 `json:"indexBlobs,omitempty"`
	// nextTime is when it is maintained next.
	// +optional
	NextTime *metav1.Time `json:"nextTime,omitempty"`
}

// RepositoryVerification says how often everything is read.
type RepositoryVerification struct {
	// every is how long a round takes: everything is read once in it. At least a day.
	// +optional
	// +kubebuilder:default="30d"
	Every Age `json:"every,omitempty"`

	// suspend stops it, where reading costs too much.
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// bandwidth that the keeper reads with. Absent means no limit.
	// +optional
	Bandwidth *BandwidthLimits `json:"bandwidth,omitempty"`
}

// VerificationStatus is how far everything has been read.
type VerificationStatus struct {
	// startTime is when the present round began.
	// +required
	StartTime metav1.Time `json:"startTime,omitzero"`
	// position of the present round among 65536 places.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65536
	Position int32 `json:"position,omitempty"`
	// bytes that the present round has read.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Bytes int64 `json:"bytes,omitempty"`
	// lastShareTime is when the last share ended.
	// +optional
	LastShareTime *metav1.Time `json:"lastShareTime,omitempty"`
	// bytesPerSecond of the last share.
	// +optional
	// +kubebuilder:validation:Minimum=0
	BytesPerSecond int64 `json:"bytesPerSecond,omitempty"`
	// nextTime is when the next share is due.
	// +optional
	NextTime *metav1.Time `json:"nextTime,omitempty"`
	// lastRoundTime is when the last whole round ended.
	// +optional
	LastRoundTime *metav1.Time `json:"lastRoundTime,omitempty"`
	// lastRoundBytes were read in it.
	// +optional
	// +kubebuilder:validation:Minimum=0
	LastRoundBytes int64 `json:"lastRoundBytes,omitempty"`
	// damaged counts the stored pieces that are known to be damaged, and damagedImages the images that need them.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Damaged int64 `json:"damaged,omitempty"`
	// damagedImages counts the images that need what is damaged.
	// +optional
	// +kubebuilder:validation:Minimum=0
	DamagedImages int32 `json:"damagedImages,omitempty"`
	// damagedPacks are the blobs that hold it. They are looked at again each day, for backups repair what they come by.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=128
	DamagedPacks []string `json:"damagedPacks,omitempty"`
}
