package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CatalogPageSize is how many images one page of a catalog has at most.
const CatalogPageSize = 100

// CatalogTask reads one page of what a repository says of its images.
type CatalogTask struct {
	// after is the place in the catalog that the page before ended at. Absent for the first page.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	After string `json:"after,omitempty"`
}

// CatalogPage is one page of what a repository says of its images.
type CatalogPage struct {
	// images of the page.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=100
	Images []CatalogEntry `json:"images,omitempty"`
	// unreadable counts the images of the page that are damaged, or that no agent made.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Unreadable int32 `json:"unreadable,omitempty"`
	// total counts all images in the repository.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Total int32 `json:"total,omitempty"`
	// next is where the next page begins. Absent on the last one.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Next string `json:"next,omitempty"`
}

// CatalogEntry is what a repository says of one image: all that its BackupImage was made of.
type CatalogEntry struct {
	// imageID of the image.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	ImageID string `json:"imageID,omitempty"`
	// namespace that the image was taken for.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// virtualMachine that the image was taken of.
	// +required
	VirtualMachine ImageVirtualMachine `json:"virtualMachine,omitzero"`
	// policyName of the policy, if any.
	// +optional
	// +kubebuilder:validation:MaxLength=40
	PolicyName string `json:"policyName,omitempty"`
	// retention that the image was taken under.
	// +optional
	Retention *Retention `json:"retention,omitempty"`
	// summary of what was achieved.
	// +required
	Summary ImageSummary `json:"summary,omitzero"`
}

// CatalogImport is how far an import of a repository's catalog is. Every image has its BackupImage afterwards, but for those that are unplaced.
type CatalogImport struct {
	// request is the importRequest that it answers.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Request string `json:"request,omitempty"`
	// startTime is when it began.
	// +required
	StartTime metav1.Time `json:"startTime,omitzero"`
	// completionTime is when it ended.
	// +optional
	CompletionTime *metav1.Time `json:"completionTime,omitempty"`
	// after is the place in the catalog that was come to.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	After string `json:"after,omitempty"`
	// failures counts the times in a row that the next page could not be read.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failures int32 `json:"failures,omitempty"`
	// total counts the images in the repository.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Total int32 `json:"total,omitempty"`
	// made counts the BackupImages that were missing, and present those that were there.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Made int32 `json:"made,omitempty"`
	// present counts the BackupImages that were there.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Present int32 `json:"present,omitempty"`
	// unreadable counts the images that are damaged, or that no agent made.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Unreadable int32 `json:"unreadable,omitempty"`
	// unplaced are the images that have no BackupImage, by the namespaces that they are for; the first 32.
	// +optional
	// +listType=map
	// +listMapKey=namespace
	// +kubebuilder:validation:MaxItems=32
	Unplaced []UnplacedImages `json:"unplaced,omitempty"`
}

// UnplacedImages are images whose BackupImages cannot be made in the namespace that they are for.
type UnplacedImages struct {
	// namespace that the images are for.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// reason why: NamespaceNotAllowed, NamespaceNotFound or NameTaken.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// images counts them.
	// +required
	// +kubebuilder:validation:Minimum=1
	Images int32 `json:"images,omitempty"`
}
