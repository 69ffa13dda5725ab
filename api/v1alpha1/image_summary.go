package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ImageType says how the data of an image was read. Every image restores alone, whatever its type.
// +kubebuilder:validation:Enum=Full;Incremental;ForcedRescan
type ImageType string

// Types of images.
const (
	ImageFull         ImageType = "Full"
	ImageIncremental  ImageType = "Incremental"
	ImageForcedRescan ImageType = "ForcedRescan"
)

// AchievedConsistency is what the checkpoint really was.
// +kubebuilder:validation:Enum=Application;Crash;Offline
type AchievedConsistency string

// What a checkpoint really was.
const (
	// ConsistencyApplication means that the guest quiesced.
	ConsistencyApplication AchievedConsistency = "Application"
	// ConsistencyCrash means that the disks are as after a loss of power.
	ConsistencyCrash AchievedConsistency = "Crash"
	// ConsistencyOffline means that the virtual machine was off: as good as Application.
	ConsistencyOffline AchievedConsistency = "Offline"
)

// BackupMethod is how the host froze the disks.
// +kubebuilder:validation:Enum=WMI;VSS
type BackupMethod string

// How a host can freeze disks.
const (
	// MethodWMI is a recovery checkpoint through WMI.
	MethodWMI BackupMethod = "WMI"
	// MethodVSS is shadow copies of the host's volumes through the Hyper-V VSS writer.
	MethodVSS BackupMethod = "VSS"
)

// MemoryCapture says whether an image has the memory of the virtual machine.
// +kubebuilder:validation:Enum=Captured;NotCaptured;None
type MemoryCapture string

// Whether an image has the memory.
const (
	// MemoryCaptured means that the configuration files hold the saved state.
	MemoryCaptured MemoryCapture = "Captured"
	// MemoryNotCaptured means that the virtual machine ran and its memory is not in the image.
	MemoryNotCaptured MemoryCapture = "NotCaptured"
	// MemoryNone means that the virtual machine was off.
	MemoryNone MemoryCapture = "None"
)

// ImageSummary is what one backup achieved: the same facts on the task, the job and the image.
type ImageSummary struct {
	// digest is the SHA-256 of the image's manifest, in hexadecimal, as the agent that published it told: the manifest names all content by its hash.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Digest string `json:"digest,omitempty"`
	// snapshotTime is the moment that the disks were frozen, by the host's clock.
	// +required
	SnapshotTime metav1.Time `json:"snapshotTime,omitzero"`
	// type says how the data was read: Incremental as soon as one disk was.
	// +required
	Type ImageType `json:"type,omitempty"`
	// consistency that was achieved.
	// +required
	Consistency AchievedConsistency `json:"consistency,omitempty"`
	// method that froze the disks.
	// +required
	Method BackupMethod `json:"method,omitempty"`
	// methodReason says why this method and no other, in CamelCase.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	MethodReason string `json:"methodReason,omitempty"`
	// methodMessage explains the reason.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	MethodMessage string `json:"methodMessage,omitempty"`
	// interruptionMilliseconds is how long the virtual machine was seen not to run for the snapshot. Absent when it was not seen to stop.
	// +optional
	// +kubebuilder:validation:Minimum=0
	InterruptionMilliseconds *int64 `json:"interruptionMilliseconds,omitempty"`
	// memory says whether the image has the memory of the virtual machine.
	// +optional
	Memory MemoryCapture `json:"memory,omitempty"`
	// memoryMessage says why the memory is not in the image.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	MemoryMessage string `json:"memoryMessage,omitempty"`
	// protectedBytes is the virtual size of the disks in the image.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ProtectedBytes int64 `json:"protectedBytes,omitempty"`
	// changedBytes is what Hyper-V reported as changed on disks that were read incrementally.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ChangedBytes int64 `json:"changedBytes,omitempty"`
	// readBytes is what was read from the disks.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ReadBytes int64 `json:"readBytes,omitempty"`
	// storedBytes is what the repository grew by, after deduplication and compression.
	// +optional
	// +kubebuilder:validation:Minimum=0
	StoredBytes int64 `json:"storedBytes,omitempty"`
	// optimizationPercent is 100 × (1 − readBytes / allocated bytes of the disks): 0 for a full read.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	OptimizationPercent int32 `json:"optimizationPercent,omitempty"`
	// disks of the virtual machine, the excluded ones too.
	// +optional
	// +listType=map
	// +listMapKey=key
	// +kubebuilder:validation:MaxItems=256
	Disks []DiskSummary `json:"disks,omitempty"`
}

// DiskReadPath is how the content of a disk is reached.
// +kubebuilder:validation:Enum=Files;Handle;Disk
type DiskReadPath string

// The ways to reach a disk.
const (
	// ReadPathFiles reads the disk's files.
	ReadPathFiles DiskReadPath = "Files"
	// ReadPathHandle lets the host attach the disk for the agent alone.
	ReadPathHandle DiskReadPath = "Handle"
	// ReadPathDisk lets the host attach the disk as one of its own.
	ReadPathDisk DiskReadPath = "Disk"
)

// DiskSummary is what happened to one disk.
type DiskSummary struct {
	// key is the disk's place in the virtual machine, such as SCSI-0-1.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Key string `json:"key,omitempty"`
	// included says whether the image has the disk's data.
	// +required
	// +kubebuilder:validation:Enum=Included;Excluded
	Included DiskInclusion `json:"included,omitempty"`
	// type says how the disk was read. Absent for an excluded disk.
	// +optional
	Type ImageType `json:"type,omitempty"`
	// reason for the type or the exclusion, in CamelCase.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// message explains the reason.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Message string `json:"message,omitempty"`
	// readPath says how the agent reached the disk's content: Files reads the files of the disk, Handle and Disk let the host attach it. Absent for an
	// excluded disk, and where the agent did not tell.
	// +optional
	ReadPath DiskReadPath `json:"readPath,omitempty"`
	// readPathReason says in CamelCase why it was reached so.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ReadPathReason string `json:"readPathReason,omitempty"`
	// readPathMessage explains readPathReason.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	ReadPathMessage string `json:"readPathMessage,omitempty"`
	// virtualBytes is the size of the disk as the guest sees it.
	// +optional
	// +kubebuilder:validation:Minimum=0
	VirtualBytes int64 `json:"virtualBytes,omitempty"`
	// changedBytes is what Hyper-V reported as changed.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ChangedBytes int64 `json:"changedBytes,omitempty"`
	// readBytes is what was read.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ReadBytes int64 `json:"readBytes,omitempty"`
}

// DiskInclusion says whether an image has the data of a disk.
type DiskInclusion string

// Whether an image has the data of a disk.
const (
	DiskIncluded DiskInclusion = "Included"
	DiskExcluded DiskInclusion = "Excluded"
)
