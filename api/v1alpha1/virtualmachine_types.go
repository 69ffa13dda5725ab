package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Conditions and reasons of a VirtualMachine.
const (
	// ConditionPresent is False when no host has the virtual machine any more. Its images stay.
	ConditionPresent = "Present"
	// ConditionProtected says whether a policy selects the virtual machine.
	ConditionProtected = "Protected"

	ReasonFound        = "Found"
	ReasonNotFound     = "NotFound"
	ReasonDuplicateID  = "DuplicateID"
	ReasonExempt       = "Exempt"
	ReasonSelected     = "Selected"
	ReasonUnprotected  = "Unprotected"
	ReasonNoObjective  = "NoObjective"
	ReasonMovedAway    = "MovedToOtherNamespace"
	ReasonUnidentified = "Unidentified"
)

// VirtualMachineSpec is what people may say of a virtual machine. Its labels are theirs too: policies select by them.
type VirtualMachineSpec struct {
	// exemption says why no policy need protect this virtual machine. Policies that select all leave it out.
	// +optional
	Exemption *Exemption `json:"exemption,omitempty"`
}

// Exemption from protection.
type Exemption struct {
	// reason in a person's own words.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Reason string `json:"reason,omitempty"`
}

// VirtualMachineStatus is what the hosts say, and how well the virtual machine is protected.
type VirtualMachineStatus struct {
	// conditions are Present, Protected, RPOMet and Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation that the status is about.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// hostName of the HyperVHost that has the virtual machine, or had it last.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	HostName string `json:"hostName,omitempty"`

	// facts that the host states.
	// +optional
	Facts *VirtualMachineFacts `json:"facts,omitempty"`

	// policies that select the virtual machine.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=40
	Policies []string `json:"policies,omitempty"`

	// rpo is the strictest objective of those policies.
	// +optional
	RPO *Age `json:"rpo,omitempty"`

	// lastRestorePoint is the newest usable image.
	// +optional
	LastRestorePoint *RestorePoint `json:"lastRestorePoint,omitempty"`

	// images counts the restore points of this virtual machine in this namespace.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Images int32 `json:"images,omitempty"`
}

// RestorePoint is one image, in short.
type RestorePoint struct {
	// imageRef names it.
	// +required
	ImageRef ImageReference `json:"imageRef,omitzero"`
	// time at which its disks were frozen.
	// +required
	Time metav1.Time `json:"time,omitzero"`
	// consistency that was achieved.
	// +required
	Consistency AchievedConsistency `json:"consistency,omitempty"`
	// method that it was taken by. The method Auto of a policy stays with VSS.
	// +optional
	Method BackupMethod `json:"method,omitempty"`
}

// VirtualMachine is one virtual machine of a host, by its Hyper-V id. The manager makes it from the hosts' inventories and keeps it, with
// Present=False, when the virtual machine is gone.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=hvvm,categories=hyperv
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.status.hostName`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.facts.state`
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.status.policies[*]`
// +kubebuilder:printcolumn:name="Last Point",type=date,JSONPath=`.status.lastRestorePoint.time`
// +kubebuilder:printcolumn:name="RPO",type=string,JSONPath=`.status.rpo`
// +kubebuilder:printcolumn:name="RPO Met",type=string,JSONPath=`.status.conditions[?(@.type=="RPOMet")].status`
// +kubebuilder:printcolumn:name="Present",type=string,JSONPath=`.status.conditions[?(@.type=="Present")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="RPOMet")].reason`,priority=1
// +kubebuilder:printcolumn:name="Consistency",type=string,JSONPath=`.status.lastRestorePoint.consistency`,priority=1
// +kubebuilder:printcolumn:name="Concerns",type=string,JSONPath=`.status.facts.concerns[*].reason`,priority=1
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63",message="the name of a virtual machine has at most 63 characters"
type VirtualMachine struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec is what people say.
	// +optional
	Spec VirtualMachineSpec `json:"spec,omitzero"`
	// status is what is observed.
	// +optional
	Status VirtualMachineStatus `json:"status,omitzero"`
}

// VirtualMachineList is a list of virtual machines.
// +kubebuilder:object:root=true
type VirtualMachineList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []VirtualMachine `json:"items"`
}
