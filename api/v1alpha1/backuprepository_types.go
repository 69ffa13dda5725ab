package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Reasons of a BackupRepository. Its conditions are Ready, Reconciling, Stalled, Dependable, Maintained and Imported.
const (
	// ConditionImported says how the import that importRequest asks for went. Absent before the first.
	ConditionImported = "Imported"

	ReasonImporting             = "Importing"
	ReasonCatalogImported       = "CatalogImported"
	ReasonImagesUnplaced        = "ImagesUnplaced"
	ReasonImagesUnreadable      = "ImagesUnreadable"
	ReasonImportFailed          = "ImportFailed"
	ReasonNamespaceNotAllowed   = "NamespaceNotAllowed"
	ReasonNamespaceMissing      = "NamespaceNotFound"
	ReasonNameTaken             = "NameTaken"
	ReasonReachable             = "Reachable"
	ReasonSecretNotFound        = "SecretNotFound"
	ReasonSecretIncomplete      = "SecretIncomplete"
	ReasonProbing               = "Probing"
	ReasonKeeperUnreachable     = "KeeperUnreachable"
	ReasonRepositoryUnreachable = "RepositoryUnreachable"
	ReasonRepositoryUnusable    = "RepositoryUnusable"
	ReasonRepositoryFull        = "RepositoryFull"
	ReasonAccessDenied          = "AccessDenied"
	ReasonWrongPassword         = "WrongPassword"
	ReasonRepositoryReplaced    = "RepositoryReplaced"
	ReasonObjectLockMissing     = "ObjectLockMissing"
	// ReasonImageLocked is the failure of deleting an image that is immutable yet.
	ReasonImageLocked = "ImageLocked"
)

// ConditionDependable says whether the storage of a repository has what backups rely on. It is absent until the keeper has tested that.
const (
	ConditionDependable = "Dependable"

	ReasonTested = "Tested"
	ReasonLacks  = "Lacks"
)

// ConditionMaintained says whether the last maintenance of a repository succeeded. It is absent before the first.
const (
	ConditionMaintained = "Maintained"

	// ReasonClockDistrusted means that nothing is deleted because it may be earlier than the clocks say.
	ReasonClockDistrusted = "ClockDistrusted"
)

// ConditionPasswordChanged says how changing the password goes. It is absent unless the Secret has a previousPassword.
const (
	ConditionPasswordChanged = "PasswordChanged"

	ReasonPasswordChanged  = "PasswordChanged"
	ReasonChangingPassword = "ChangingPassword"
)

// Keys of the Secret that a repository names: the password, and what the kind of the location asks for.
const (
	SecretKeyPassword = "password"
	// SecretKeyPreviousPassword is there while the password is being changed.
	SecretKeyPreviousPassword  = "previousPassword"
	SecretKeyAccessKeyID       = "accessKeyID"
	SecretKeySecretAccessKey   = "secretAccessKey"
	SecretKeySASToken          = "sasToken"
	SecretKeyServiceAccountKey = "serviceAccountKey"
)

// SecretKeyKeeperPrefix starts the keys of what the keeper uses in place of what agents use: keeper.accessKeyID in place of accessKeyID. Agents
// never get those.
const SecretKeyKeeperPrefix = "keeper."

// RepositoryLocation says where the bytes are, in exactly one way.
// +kubebuilder:validation:ExactlyOneOf=filesystem;s3;azure;gcs
type RepositoryLocation struct {
	// filesystem is a folder: a local one, or a share that is mounted.
	// +optional
	Filesystem *FilesystemLocation `json:"filesystem,omitempty"`
	// s3 is a bucket of an S3-compatible store.
	// +optional
	S3 *S3Location `json:"s3,omitempty"`
	// azure is a container of Azure Blob Storage.
	// +optional
	Azure *AzureLocation `json:"azure,omitempty"`
	// gcs is a bucket of Google Cloud Storage.
	// +optional
	GCS *GCSLocation `json:"gcs,omitempty"`
}

// FilesystemLocation is a folder.
type FilesystemLocation struct {
	// path as the hosts see it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Path string `json:"path,omitempty"`
	// keeperPath is the same folder as the keeper sees it, where that differs.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	KeeperPath string `json:"keeperPath,omitempty"`
}

// S3Location is a bucket.
type S3Location struct {
	// endpoint as host or host:port. No scheme.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.contains('/')",message="endpoint is host or host:port, without https:// and without a path"
	Endpoint string `json:"endpoint,omitempty"`
	// bucket that exists already.
	// +required
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=63
	Bucket string `json:"bucket,omitempty"`
	// prefix of all object names, such as hyperkeep/.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Prefix string `json:"prefix,omitempty"`
	// region of the bucket, where the store has regions.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Region string `json:"region,omitempty"`
	// transport is TLS or, for tests only, PlainText.
	// +optional
	// +kubebuilder:default=TLS
	// +kubebuilder:validation:Enum=TLS;PlainText
	Transport string `json:"transport,omitempty"`
}

// AzureLocation is a container of Azure Blob Storage.
type AzureLocation struct {
	// account is the name of the storage account.
	// +required
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=24
	// +kubebuilder:validation:Pattern=`^[a-z0-9]+$`
	Account string `json:"account,omitempty"`
	// container that exists already.
	// +required
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=63
	Container string `json:"container,omitempty"`
	// prefix of all blob names, such as hyperkeep/.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Prefix string `json:"prefix,omitempty"`
	// domain of the service, where it is not blob.core.windows.net.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="!self.contains('/')",message="domain is a host, without https:// and without a path"
	Domain string `json:"domain,omitempty"`
	// transport is TLS or, for tests only, PlainText.
	// +optional
	// +kubebuilder:default=TLS
	// +kubebuilder:validation:Enum=TLS;PlainText
	Transport string `json:"transport,omitempty"`
}

// GCSLocation is a bucket of Google Cloud Storage.
type GCSLocation struct {
	// bucket that exists already.
	// +required
	// +kubebuilder:validation:MinLength=3
	// +kubebuilder:validation:MaxLength=222
	Bucket string `json:"bucket,omitempty"`
	// prefix of all object names, such as hyperkeep/.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	Prefix string `json:"prefix,omitempty"`
}

// ImmutabilityMode says whom a lock stops.
// +kubebuilder:validation:Enum=Governance;Compliance
type ImmutabilityMode string

// Governance stops everybody but who has the store's special right to lift locks, Compliance everybody.
const (
	ImmutabilityGovernance ImmutabilityMode = "Governance"
	ImmutabilityCompliance ImmutabilityMode = "Compliance"
)

// Immutability locks images against everybody, whatever credential is stolen.
//
// +kubebuilder:validation:XValidation:rule="self.retentionDays >= oldSelf.retentionDays",message="immutability can be extended, never shortened",fieldPath=".retentionDays"
// +kubebuilder:validation:XValidation:rule="self.mode == 'Compliance' || oldSelf.mode == 'Governance'",message="Compliance cannot be weakened",fieldPath=".mode"
type Immutability struct {
	// retentionDays is for how long a new image cannot be deleted or changed.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3650
	RetentionDays int32 `json:"retentionDays,omitempty"`
	// mode of the locks.
	// +optional
	// +kubebuilder:default=Compliance
	Mode ImmutabilityMode `json:"mode,omitempty"`
}

// BackupRepositorySpec says where images live, and who may use them.
//
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.immutability) || has(self.immutability)",message="immutability can be extended, never removed",fieldPath=".immutability"
// +kubebuilder:validation:XValidation:rule="!has(self.immutability) || !has(self.location.filesystem)",message="files in a folder cannot be locked: use a bucket with object lock",fieldPath=".immutability"
// +kubebuilder:validation:XValidation:rule="self.location == oldSelf.location",message="the location of a repository cannot change: its images are there. Make another repository"
type BackupRepositorySpec struct {
	// location of the bytes.
	// +required
	Location RepositoryLocation `json:"location,omitzero"`

	// secretName names the Secret, in the manager's namespace, with the key password (it encrypts every image: without it nothing can be
	// restored) and, for s3, accessKeyID and secretAccessKey; for azure, sasToken; for gcs, serviceAccountKey. Agents get those. The keeper gets
	// the ones with keeper. before the name, where the Secret has them: then agents need no right to delete.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	SecretName string `json:"secretName,omitempty"`

	// allowedNamespaces may use this repository; "*" allows all. Who may write to a repository can read it: tenants who must not read each
	// other use different ones.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=1000
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=63
	AllowedNamespaces []string `json:"allowedNamespaces,omitempty"`

	// immutability locks images. The store must be able to: a bucket with object lock. It can be extended, never shortened.
	// +optional
	Immutability *Immutability `json:"immutability,omitempty"`

	// verification reads everything in the repository once in a while, a share each day. It reads all in 30 days where nothing is said.
	// +optional
	Verification *RepositoryVerification `json:"verification,omitempty"`

	// importRequest has BackupImages made of the images in the repository that have none, whenever it changes: of those whose namespace the repository allows.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	ImportRequest string `json:"importRequest,omitempty"`

	// probeIntervalSeconds is how often the keeper checks the repository.
	// +optional
	// +kubebuilder:default=300
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=86400
	ProbeIntervalSeconds int32 `json:"probeIntervalSeconds,omitempty"`
}

// StorageAbility is something that backups rely on, or that makes them safer.
// +kubebuilder:validation:Enum=ReadAfterWrite;ListAfterWrite;ConditionalCreate;DurableNames;Clock;ObjectLock;SeparateCredentials
type StorageAbility string

// What a storage may lack.
const (
	// AbilityReadAfterWrite: what was written, overwritten or deleted is seen so at once.
	AbilityReadAfterWrite StorageAbility = "ReadAfterWrite"
	// AbilityListAfterWrite: what was written is in the next listing.
	AbilityListAfterWrite StorageAbility = "ListAfterWrite"
	// AbilityConditionalCreate: the storage creates without ever overwriting.
	AbilityConditionalCreate StorageAbility = "ConditionalCreate"
	// AbilityDurableNames: a new file's name survives a power cut once it was synced.
	AbilityDurableNames StorageAbility = "DurableNames"
	// AbilityClock: the clocks of storage and keeper agree.
	AbilityClock StorageAbility = "Clock"
	// AbilityObjectLock: what is written can be locked.
	AbilityObjectLock StorageAbility = "ObjectLock"
	// AbilitySeparateCredentials: agents have another credential than the keeper.
	AbilitySeparateCredentials StorageAbility = "SeparateCredentials"
)

// StorageFacts is what a test of the storage showed.
type StorageFacts struct {
	// testTime is when it was tested.
	// +required
	TestTime metav1.Time `json:"testTime,omitzero"`
	// lacks are the abilities that it does not have.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=16
	Lacks []StorageAbility `json:"lacks,omitempty"`
	// clockDriftSeconds is how far the storage's clock is ahead of the keeper's.
	// +optional
	ClockDriftSeconds int64 `json:"clockDriftSeconds,omitempty"`
}

// BackupRepositoryStatus is what the keeper found.
type BackupRepositoryStatus struct {
	// conditions are Ready, Reconciling, Stalled, Dependable, Maintained, Verified, PasswordChanged and Imported.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation that the status is about.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// storage is what the keeper's last test of the storage showed.
	// +optional
	Storage *StorageFacts `json:"storage,omitempty"`

	// repositoryID identifies the repository itself. When it changes, somebody put another one in its place.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	RepositoryID string `json:"repositoryID,omitempty"`

	// images counts those in the repository.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Images *int32 `json:"images,omitempty"`

	// storedBytes is the size of the repository.
	// +optional
	// +kubebuilder:validation:Minimum=0
	StoredBytes int64 `json:"storedBytes,omitempty"`

	// freeBytes of the volume, where the store tells.
	// +optional
	// +kubebuilder:validation:Minimum=0
	FreeBytes *int64 `json:"freeBytes,omitempty"`

	// stored and free are those sizes for people.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Stored string `json:"stored,omitempty"`

	// free is the free space for people.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Free string `json:"free,omitempty"`

	// lastProbeTime is when the keeper looked last.
	// +optional
	LastProbeTime *metav1.Time `json:"lastProbeTime,omitempty"`

	// maintenance is what the keeper's last maintenance did. Absent before the first.
	// +optional
	Maintenance *MaintenanceStatus `json:"maintenance,omitempty"`

	// verification is how far the keeper has verified what is stored. Absent before the first share.
	// +optional
	Verification *VerificationStatus `json:"verification,omitempty"`

	// catalogImport is the import that was asked for last.
	// +optional
	CatalogImport *CatalogImport `json:"catalogImport,omitempty"`
}

// BackupRepository is where images live. What is in it is encrypted with its password.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=hvrepo,categories=hyperv
// +kubebuilder:printcolumn:name="Images",type=integer,JSONPath=`.status.images`
// +kubebuilder:printcolumn:name="Stored",type=string,JSONPath=`.status.stored`
// +kubebuilder:printcolumn:name="Free",type=string,JSONPath=`.status.free`
// +kubebuilder:printcolumn:name="Probed",type=date,JSONPath=`.status.lastProbeTime`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 40",message="the name of a repository has at most 40 characters"
type BackupRepository struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec is what is wanted.
	// +required
	Spec BackupRepositorySpec `json:"spec,omitzero"`
	// status is what was found.
	// +optional
	Status BackupRepositoryStatus `json:"status,omitzero"`
}

// BackupRepositoryList is a list of repositories.
// +kubebuilder:object:root=true
type BackupRepositoryList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []BackupRepository `json:"items"`
}
