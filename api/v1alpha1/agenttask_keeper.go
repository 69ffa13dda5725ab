package v1alpha1

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

// ScrubTask reads a share of what is stored.
type ScrubTask struct {
	// from and to are places among the packs of the repository, of which there are 65536: from is read, to is not.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65536
	From int32 `json:"from,omitempty"`
	// to is the place to stop at.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65536
	To int32 `json:"to,omitempty"`
	// again are packs that were damaged when they were read last.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=128
	Again []string `json:"again,omitempty"`
	// bandwidth that reading is limited to. Absent means no limit.
	// +optional
	Bandwidth *BandwidthLimits `json:"bandwidth,omitempty"`
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

// ScrubResult is what was read of a repository, and what of that is damaged.
type ScrubResult struct {
	// position up to which everything was read.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65536
	Position int32 `json:"position,omitempty"`
	// bytes that were read.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Bytes int64 `json:"bytes,omitempty"`
	// contents that were read: chunks of disks, and lists of chunks.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Contents int64 `json:"contents,omitempty"`
	// damaged counts the contents that are missing or fail their check.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Damaged int64 `json:"damaged,omitempty"`
	// damagedPacks are the blobs that should hold those; the first 256.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=128
	DamagedPacks []string `json:"damagedPacks,omitempty"`
	// images that need any of what is damaged; the first 500.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=500
	Images []DamagedImage `json:"images,omitempty"`
	// otherImages counts those that are not named.
	// +optional
	// +kubebuilder:validation:Minimum=0
	OtherImages int32 `json:"otherImages,omitempty"`
}

// DamagedImage is an image that cannot be restored whole.
type DamagedImage struct {
	// imageID of the image.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ImageID string `json:"imageID,omitempty"`
	// virtualMachineID that it was taken of.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	VirtualMachineID string `json:"virtualMachineID,omitempty"`
	// disks that are damaged, by their keys. Others and files may be restored.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=64
	Disks []string `json:"disks,omitempty"`
	// message says what is damaged.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
}
