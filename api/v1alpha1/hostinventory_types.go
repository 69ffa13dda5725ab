package v1alpha1

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// InventoryPartSize is how many virtual machines one HostInventory holds at most; a larger host has several.
const InventoryPartSize = 64

// InventoryMaxAge is how long an agent may go without a look at its host that ends, by its own clock, before its inventory counts as out of date. Agents look
// three times as often.
const InventoryMaxAge = 45 * time.Minute

// HostFacts are what an agent says of its host.
type HostFacts struct {
	// computerName of the host.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	ComputerName string `json:"computerName,omitempty"`
	// operatingSystem for people, such as "Windows Server 2022".
	// +optional
	// +kubebuilder:validation:MaxLength=128
	OperatingSystem string `json:"operatingSystem,omitempty"`
	// build of the operating system.
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Build string `json:"build,omitempty"`
	// agentVersion of the agent.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	AgentVersion string `json:"agentVersion,omitempty"`
	// unsupportedReasons say why the host cannot be backed up. Empty on a supported one.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	UnsupportedReasons []Warning `json:"unsupportedReasons,omitempty"`
	// clusterName of the failover cluster that the host is a node of. Empty: none.
	// +optional
	// +kubebuilder:validation:MaxLength=256
	ClusterName string `json:"clusterName,omitempty"`
	// clusterFunctionalLevel such as 9 for Windows Server 2016.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ClusterFunctionalLevel int32 `json:"clusterFunctionalLevel,omitempty"`
	// volumes of the host.
	// +optional
	// +listType=map
	// +listMapKey=path
	// +kubebuilder:validation:MaxItems=128
	Volumes []HostVolume `json:"volumes,omitempty"`
}

// HostVolume is a volume of a host.
type HostVolume struct {
	// path such as D:\.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Path string `json:"path,omitempty"`
	// totalBytes of the volume.
	// +optional
	// +kubebuilder:validation:Minimum=0
	TotalBytes int64 `json:"totalBytes,omitempty"`
	// freeBytes of the volume.
	// +optional
	// +kubebuilder:validation:Minimum=0
	FreeBytes int64 `json:"freeBytes,omitempty"`
	// shared says that all nodes of the host's cluster have the volume.
	// +optional
	Shared bool `json:"shared,omitempty"`
}

// HostInventoryStatus is what one look at the host found.
type HostInventoryStatus struct {
	// scanID is common to the parts of one look. A virtual machine is gone when no part of a whole scan has it.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	ScanID string `json:"scanID,omitempty"`
	// scanTime by the agent's clock.
	// +optional
	ScanTime *metav1.Time `json:"scanTime,omitempty"`
	// part counts from 0, and parts is how many the scan has.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Part int32 `json:"part,omitempty"`
	// parts of the scan.
	// +optional
	// +kubebuilder:validation:Minimum=1
	Parts int32 `json:"parts,omitempty"`
	// sessionID of the agent that looked.
	// +optional
	// +kubebuilder:validation:MaxLength=64
	SessionID string `json:"sessionID,omitempty"`
	// error says why the host could not be looked at; the rest is then from the last look that worked.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Error string `json:"error,omitempty"`
	// host has the facts on the host itself, in part 0.
	// +optional
	Host *HostFacts `json:"host,omitempty"`
	// virtualMachines of this part.
	// +optional
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MaxItems=64
	VirtualMachines []VirtualMachineFacts `json:"virtualMachines,omitempty"`
}

// HostInventory is what an agent sees of its host, in the agent's namespace. The agent alone writes it; the manager projects it into HyperVHost and
// VirtualMachine objects. Part n of a host's inventory is named inventory-n.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=hvinv,categories=hyperv
// +kubebuilder:printcolumn:name="Of",type=integer,JSONPath=`.status.parts`
// +kubebuilder:printcolumn:name="Scanned",type=date,JSONPath=`.status.scanTime`
// +kubebuilder:printcolumn:name="Error",type=string,JSONPath=`.status.error`
type HostInventory struct {
	metav1.TypeMeta `json:",inline"`
	// metadata of the object.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitzero"`
	// status is what was found.
	// +optional
	Status HostInventoryStatus `json:"status,omitzero"`
}

// HostInventoryList is a list of inventories.
// +kubebuilder:object:root=true
type HostInventoryList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []HostInventory `json:"items"`
}
