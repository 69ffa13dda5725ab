package v1alpha1

// RepositoryReference names a BackupRepository.
type RepositoryReference struct {
	// name of the BackupRepository.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=40
	Name string `json:"name,omitempty"`
}

// VirtualMachineReference names a VirtualMachine of the same namespace.
type VirtualMachineReference struct {
	// name of the VirtualMachine object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
}

// PolicyReference names a BackupPolicy of the same namespace.
type PolicyReference struct {
	// name of the BackupPolicy.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=40
	Name string `json:"name,omitempty"`
}

// ImageReference names a BackupImage of the same namespace.
type ImageReference struct {
	// name of the BackupImage.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
}

// TaskReference names the AgentTask that carries a run out.
type TaskReference struct {
	// namespace of the agent.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace,omitempty"`
	// name of the AgentTask.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}
