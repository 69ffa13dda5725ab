package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Conditions and reasons of a HyperVHost.
const (
	// ConditionSupported says whether the host can be backed up at all. Absent before its first inventory.
	ConditionSupported = "Supported"

	ReasonAgentAlive         = "AgentAlive"
	ReasonAgentNeverSeen     = "AgentNeverSeen"
	ReasonAgentLost          = "AgentLost"
	ReasonSupported          = "Supported"
	ReasonUnsupported        = "Unsupported"
	ReasonNamespaceTaken     = "NamespaceTaken"
	ReasonNamespaceNotFound  = "VirtualMachineNamespaceNotFound"
	ReasonNamespaceDeleting  = "NamespaceTerminating"
	ReasonInventoryOutOfDate = "InventoryOutOfDate"
)

// HyperVHostSpec says how a host is used.
type HyperVHostSpec struct {
	// unschedulable keeps new work from the host. What runs there goes on.
	// +optional
	Unschedulable bool `json:"unschedulable,omitempty"`

	// maxParallelJobs is how many backups and restores the host runs at once.
	// +optional
	// +kubebuilder:default=2
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=64
	MaxParallelJobs int32 `json:"maxParallelJobs,omitempty"`

	// bandwidth limits what the host sends to repositories. Running backups keep the limits they began with until the next task starts.
	// +optional
	Bandwidth *BandwidthLimits `json:"bandwidth,omitempty"`

	// virtualMachineNamespace is where the host's VirtualMachine objects appear, unless a placement rule says otherwise. It must exist.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	VirtualMachineNamespace string `json:"virtualMachineNamespace,omitempty"`

	// placement puts virtual machines into other namespaces by their name in Hyper-V; the first rule that matches counts.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Placement []PlacementRule `json:"placement,omitempty"`

	// vssProvider makes the shadow copies of backups by VSS. The one that Windows chooses without it.
	// +optional
	VSSProvider *VSSProvider `json:"vssProvider,omitempty"`
}

// VSSProviderType says who makes a shadow copy.
// +kubebuilder:validation:Enum=Software;Hardware
type VSSProviderType string

// Who makes a shadow copy.
const (
	// VSSProviderSoftware is a driver of the host.
	VSSProviderSoftware VSSProviderType = "Software"
	// VSSProviderHardware is the storage itself.
	VSSProviderHardware VSSProviderType = "Hardware"
)

// VSSProvider is a VSS provider that is installed on the host.
type VSSProvider struct {
	// id of the provider, without braces, as vssadmin list providers shows it.
	// +required
	// +kubebuilder:validation:Pattern=`^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$`
	// +kubebuilder:validation:MinLength=36
	// +kubebuilder:validation:MaxLength=36
	ID string `json:"id,omitempty"`
	// type says whether the host makes the shadow copies (Software), or its storage (Hardware). By Software the nodes of a cluster back the virtual machines on
	// a shared volume up one at a time.
	// +optional
	// +kubebuilder:default=Software
	Type VSSProviderType `json:"type,omitempty"`
}

// PlacementRule puts virtual machines into a namespace.
type PlacementRule struct {
	// namePattern is compared with the whole name in Hyper-V, without regard to case; * stands for any text, ? for one character.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	NamePattern string `json:"namePattern,omitempty"`
	// namespace that must exist.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
}

// HyperVHostStatus is what the host's agent says, and whether it lives.
type HyperVHostStatus struct {
	// conditions are Ready, Supported, Reconciling and Stalled.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=32
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation that the status is about.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// agentNamespace is the namespace in which the host's agent works.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	AgentNamespace string `json:"agentNamespace,omitempty"`

	// sessionID is the present life of the agent: a new one means that it was started anew.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	SessionID string `json:"sessionID,omitempty"`

	// facts that the agent states.
	// +optional
	Facts *HostFacts `json:"facts,omitempty"`

	// virtualMachines counts those on the host.
	// +optional
	// +kubebuilder:validation:Minimum=0
	VirtualMachines *int32 `json:"virtualMachines,omitempty"`

	// inventoryTime is when the agent looked last.
	// +optional
	InventoryTime *metav1.Time `json:"inventoryTime,omitempty"`
}

// HyperVHost is one Hyper-V host. Applying it makes the namespace, account and rights of its agent.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=hvh,categories=hyperv
// +kubebuilder:printcolumn:name="OS",type=string,JSONPath=`.status.facts.operatingSystem`
// +kubebuilder:printcolumn:name="VMs",type=integer,JSONPath=`.status.virtualMachines`
// +kubebuilder:printcolumn:name="Max Jobs",type=integer,JSONPath=`.spec.maxParallelJobs`
// +kubebuilder:printcolumn:name="Unschedulable",type=boolean,JSONPath=`.spec.unschedulable`
// +kubebuilder:printcolumn:name="Agent",type=string,JSONPath=`.status.facts.agentVersion`
// +kubebuilder:printcolumn:name="Inventory",type=date,JSONPath=`.status.inventoryTime`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 40",message="the name of a host has at most 40 characters, so that the name of its agent's namespace fits"
// +kubebuilder:validation:XValidation:rule="!self.metadata.name.contains('.')",message="the name of a host has no dots, for it becomes part of a namespace's name: use hv01, not hv01.example.com"
type HyperVHost struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// spec is what is wanted.
	// +required
	Spec HyperVHostSpec `json:"spec,omitzero"`
	// status is what was found.
	// +optional
	Status HyperVHostStatus `json:"status,omitzero"`
}

// HyperVHostList is a list of hosts.
// +kubebuilder:object:root=true
type HyperVHostList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []HyperVHost `json:"items"`
}
