package v1alpha1

// BackupSettings say how and whereto a virtual machine is backed up. A policy hands its own to each job, so that a later edit of the policy does
// not change a run.
//
// +kubebuilder:validation:XValidation:rule="!has(self.changeTracking) || !self.changeTracking.accelerator || self.changeTracking.blockLevelIncremental",message="accelerator needs blockLevelIncremental: set both, or neither",fieldPath=".changeTracking.accelerator"
type BackupSettings struct {
	// repositoryRef names the repository that the images go to. It must allow this namespace.
	// +required
	RepositoryRef RepositoryReference `json:"repositoryRef,omitzero"`

	// method says how the host freezes the disks: WMI by a recovery checkpoint, VSS by shadow copies of the host's volumes through the Hyper-V writer. Auto
	// takes WMI where the host can, and stays with VSS where the newest image of the virtual machine was taken by it.
	// +optional
	// +kubebuilder:default=Auto
	Method MethodChoice `json:"method,omitempty"`

	// onMethodIneligible says what happens when the host cannot do the method for a virtual machine: Fallback takes the other one and records why, Fail fails
	// the job.
	// +optional
	// +kubebuilder:default=Fallback
	OnMethodIneligible MethodIneligible `json:"onMethodIneligible,omitempty"`

	// consistency says what the guest is asked for before the checkpoint.
	// +optional
	// +kubebuilder:default={}
	Consistency ConsistencySettings `json:"consistency,omitzero"`

	// changeTracking says how unchanged data is left out.
	// +optional
	// +kubebuilder:default={}
	ChangeTracking ChangeTrackingSettings `json:"changeTracking,omitzero"`

	// unsupportedDisks says what happens to a virtual machine with a disk that no checkpoint covers, such as a pass-through disk.
	// ExcludeAndWarn backs the others up, lists the excluded disk on the image and sets Complete=False; Fail fails the job.
	// +optional
	// +kubebuilder:default=ExcludeAndWarn
	UnsupportedDisks UnsupportedDisks `json:"unsupportedDisks,omitempty"`

	// retention says when images expire. Without it they are kept for ever.
	// +optional
	Retention *Retention `json:"retention,omitempty"`
}

// MethodChoice is the method that a policy asks for.
// +kubebuilder:validation:Enum=Auto;WMI;VSS
type MethodChoice string

// The methods that a policy can ask for.
const (
	MethodChoiceAuto MethodChoice = "Auto"
	MethodChoiceWMI  MethodChoice = MethodChoice(MethodWMI)
	MethodChoiceVSS  MethodChoice = MethodChoice(MethodVSS)
)

// MethodIneligible is what to do where the host cannot do the method.
// +kubebuilder:validation:Enum=Fallback;Fail
type MethodIneligible string

// What to do where the host cannot do the method.
const (
	MethodIneligibleFallback MethodIneligible = "Fallback"
	MethodIneligibleFail     MethodIneligible = "Fail"
)

// ConsistencyLevel is what a policy asks for.
// +kubebuilder:validation:Enum=Application;ApplicationThenCrash;Crash
type ConsistencyLevel string

// Levels of consistency.
const (
	// LevelApplication asks the guest to quiesce, and fails the job when it cannot.
	LevelApplication ConsistencyLevel = "Application"
	// LevelApplicationThenCrash asks the guest, and goes on without when it cannot; the image records what was achieved.
	LevelApplicationThenCrash ConsistencyLevel = "ApplicationThenCrash"
	// LevelCrash never asks the guest.
	LevelCrash ConsistencyLevel = "Crash"
)

// GuestBackupType is what an application-consistent backup means for the logs of the guest's applications.
// +kubebuilder:validation:Enum=Copy;Full
type GuestBackupType string

// What an application-consistent backup means for the logs of the guest's applications.
const (
	// GuestBackupCopy leaves them alone.
	GuestBackupCopy GuestBackupType = "Copy"
	// GuestBackupFull lets the applications truncate them.
	GuestBackupFull GuestBackupType = "Full"
)

// ConsistencySettings say what the guest is asked for.
type ConsistencySettings struct {
	// level is Application (the guest must quiesce, else the job fails), ApplicationThenCrash (fall back after quiesceAttempts, and record
	// it) or Crash (never ask the guest).
	// +optional
	// +kubebuilder:default=Application
	Level ConsistencyLevel `json:"level,omitempty"`

	// quiesceAttempts is how often an application-consistent checkpoint is tried.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=5
	QuiesceAttempts int32 `json:"quiesceAttempts,omitempty"`

	// quiesceTimeoutSeconds bounds one attempt.
	// +optional
	// +kubebuilder:default=600
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	QuiesceTimeoutSeconds int32 `json:"quiesceTimeoutSeconds,omitempty"`

	// guestBackupType says what an application-consistent backup means for the logs of the guest's applications. Copy leaves them alone, for guests whose logs
	// another product truncates; Full lets applications truncate them, as soon as the disks are frozen and before there is an image. Without it a backup is a
	// Copy; but with the method WMI on Windows Server 2016, whose Hyper-V knows no copies, it is Full and warns. Copy fails there, unless level allows Crash.
	// +optional
	GuestBackupType GuestBackupType `json:"guestBackupType,omitempty"`

	// allowSavedState lets the method VSS save a running virtual machine that cannot quiesce for the moment of the snapshot, below the level Application. The
	// image then holds its memory, and its users wait meanwhile. Without it such a machine is not touched and the image is crash consistent.
	// +optional
	// +kubebuilder:default=false
	AllowSavedState *bool `json:"allowSavedState,omitempty"`
}

// ChangeTrackingSettings say how unchanged data is left out.
type ChangeTrackingSettings struct {
	// blockLevelIncremental keeps a reference point between runs, so that the next one reads only what Hyper-V's resilient change tracking
	// reports as changed. Without it every run reads all allocated blocks and leaves no reference point.
	// +optional
	// +kubebuilder:default=true
	BlockLevelIncremental *bool `json:"blockLevelIncremental,omitempty"`

	// accelerator makes runs of type Full read only changed blocks too, and link the rest from the previous image. Only then there is
	// something for ForcedRescan to do.
	// +optional
	// +kubebuilder:default=false
	Accelerator *bool `json:"accelerator,omitempty"`
}

// UnsupportedDisks is what to do about disks that no checkpoint covers.
// +kubebuilder:validation:Enum=ExcludeAndWarn;Fail
type UnsupportedDisks string

// What to do about disks that no checkpoint covers.
const (
	UnsupportedDisksExcludeAndWarn UnsupportedDisks = "ExcludeAndWarn"
	UnsupportedDisksFail           UnsupportedDisks = "Fail"
)

// Retention says when the images of one virtual machine, policy and repository expire: once neither rule keeps them. The newest image never
// expires by itself.
//
// +kubebuilder:validation:XValidation:rule="has(self.keepLast) || has(self.maxAge)",message="retention needs keepLast, maxAge, or both"
type Retention struct {
	// keepLast keeps the newest images, whatever their age.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	KeepLast *int32 `json:"keepLast,omitempty"`

	// maxAge keeps images until they are this old, whatever their number.
	// +optional
	MaxAge *Age `json:"maxAge,omitempty"`
}

// RunType is the kind of run that is asked for.
// +kubebuilder:validation:Enum=Auto;Full;ForcedRescan
type RunType string

// Types of runs.
const (
	// RunAuto reads changed blocks where there is a base, else everything allocated.
	RunAuto RunType = "Auto"
	// RunFull makes a full image. With the accelerator on it reads only changed blocks.
	RunFull RunType = "Full"
	// RunForcedRescan reads everything allocated and sets a new baseline.
	RunForcedRescan RunType = "ForcedRescan"
)
