package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Conditions and reasons of a BackupImage.
const (
	// ConditionVerified is True when a verification read the whole image and found it sound, False when it found damage. Absent before the first one.
	ConditionVerified = "Verified"

	ReasonPublished          = "Published"
	ReasonExpiring           = "Expiring"
	ReasonDeleting           = "Deleting"
	ReasonDeleteFailed       = "DeleteFailed"
	ReasonVerified           = "Verified"
	ReasonDamaged            = "Damaged"
	ReasonVerificationFailed = "VerificationFailed"
	// ReasonDamageFound is Damaged, by the verification that goes over the whole repository in turn; ReasonRepaired that it was, and is not any more.
	ReasonDamageFound = "DamageFound"
	ReasonRepaired    = "Repaired"
	ReasonRetained    = "Retained"
	ReasonExpired     = "Expired"
)

// DeletionPolicy says what deleting a BackupImage object does.
// +kubebuilder:validation:Enum=Retain;Delete
type DeletionPolicy string

// What deleting a BackupImage object does.
const (
	// DeletionRetain leaves the data in the repository.
	DeletionRetain DeletionPolicy = "Retain"
	// DeletionDelete deletes the data from the repository too.
	DeletionDelete DeletionPolicy = "Delete"
)

// BackupImageSpec identifies a restore point. The manager writes it; people may change pinned, deletionPolicy and verifyRequest.
//
// +kubebuilder:validation:XValidation:rule="self.imageID == oldSelf.imageID && self.virtualMachine == oldSelf.virtualMachine && self.repositoryRef == oldSelf.repositoryRef && self.summary == oldSelf.summary && has(self.policyName) == has(oldSelf.policyName) && (!has(self.policyName) || self.policyName == oldSelf.policyName) && has(self.retention) == has(oldSelf.retention) && (!has(self.retention) || self.retention == oldSelf.retention)",message="an image records what was achieved: only pinned, deletionPolicy and verifyRequest can change"
type BackupImageSpec struct {
	// imageID identifies the image in its repository.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ImageID string `json:"imageID,omitempty"`

	// virtualMachine is what the image was taken of.
	// +required
	VirtualMachine ImageVirtualMachine `json:"virtualMachine,omitzero"`

	// repositoryRef names the repository that has the data.
	// +required
	RepositoryRef RepositoryReference `json:"repositoryRef,omitzero"`

	// policyName names the policy that asked for the image.
	// +optional
	// +kubebuilder:validation:MaxLength=40
	PolicyName string `json:"policyName,omitempty"`

	// retention that the image was taken under. While the policy exists its present retention counts; after it is gone only maxAge of this one.
	// +optional
	Retention *Retention `json:"retention,omitempty"`

	// summary is what the backup achieved.
	// +required
	Summary ImageSummary `json:"summary,omitzero"`

	// pinned keeps the image whatever the retention says.
	// +optional
	Pinned bool `json:"pinned,omitempty"`

	// deletionPolicy says what deleting this object does: Retain leaves the data in the repository, Delete deletes it too.
	// +optional
	// +kubebuilder:default=Retain
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// verifyRequest has the keeper read and check the whole image whenever it changes.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	VerifyRequest string `json:"verifyRequest,omitempty"`
}

// ImageVirtualMachine identifies the virtual machine of an image.
type ImageVirtualMachine struct {
	// id is the Hyper-V id.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	ID string `json:"id,omitempty"`
	// name as Hyper-V had it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name,omitempty"`
	// objectName of the VirtualMachine.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ObjectName string `json:"objectName,omitempty"`
	// hostName on which it ran.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	HostName string `json:"hostName,omitempty"`
}

// BackupImageStatus is what became of the image.
type BackupImageStatus struct {
	// conditions are Ready, Verified, Reconciling and Stalled.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation that the status is about.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// size is the virtual size of the image's disks, for people.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Size string `json:"size,omitempty"`

	// stored is what the repository grew by, for people.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Stored string `json:"stored,omitempty"`

	// expiry says when the image expires, or what keeps it, for people.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Expiry string `json:"expiry,omitempty"`

	// expireTime is the earliest time at which retention lets the image go. Absent when only a newer image can change that.
	// +optional
	ExpireTime *metav1.Time `json:"expireTime,omitempty"`

	// lastVerifyRequest is the verifyRequest that was answered last, and lastVerifyTime when.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	LastVerifyRequest string `json:"lastVerifyRequest,omitempty"`

	// lastVerifyTime is when a verification ended last.
	// +optional
	LastVerifyTime *metav1.Time `json:"lastVerifyTime,omitempty"`

	// damagedDisks are those that cannot be restored whole, by their keys. Verified says more.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=64
	DamagedDisks []string `json:"damagedDisks,omitempty"`
}

// BackupImage is one restore point of one virtual machine: the catalog's entry for what lies in the repository. It has no owner: deleting
// policies, jobs or namespaces deletes no data.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=hvimg,categories=hyperv
// +kubebuilder:printcolumn:name="VM",type=string,JSONPath=`.spec.virtualMachine.name`
// +kubebuilder:printcolumn:name="Time",type=string,JSONPath=`.spec.summary.snapshotTime`
// +kubebuilder:printcolumn:name="Type",type=string,JSONPath=`.spec.summary.type`
// +kubebuilder:printcolumn:name="Consistency",type=string,JSONPath=`.spec.summary.consistency`
// +kubebuilder:printcolumn:name="Size",type=string,JSONPath=`.status.size`
// +kubebuilder:printcolumn:name="Stored",type=string,JSONPath=`.status.stored`
// +kubebuilder:printcolumn:name="Expiry",type=string,JSONPath=`.status.expiry`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Verified",type=string,JSONPath=`.status.conditions[?(@.type=="Verified")].status`
// +kubebuilder:printcolumn:name="Repository",type=string,JSONPath=`.spec.repositoryRef.name`,priority=1
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.policyName`,priority=1
// +kubebuilder:printcolumn:name="Delete",type=string,JSONPath=`.spec.deletionPolicy`,priority=1
type BackupImage struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec identifies the restore point.
	// +required
	Spec BackupImageSpec `json:"spec,omitzero"`
	// status is what became of it.
	// +optional
	Status BackupImageStatus `json:"status,omitzero"`
}

// BackupImageList is a list of images.
// +kubebuilder:object:root=true
type BackupImageList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BackupImage `json:"items"`
}
