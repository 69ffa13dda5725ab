package hyperv

// Definition is what is needed to define a VM again, on any host: a portable document that an image keeps beside the raw configuration files. What it
// does not carry: the content of a virtual TPM, UEFI variables, and settings that no field names.
type Definition struct {
	// ID is that of the VM that was backed up. A VM defined from it gets a new one.
	ID                   string           `json:"id"`
	Name                 string           `json:"name"`
	Generation           int              `json:"generation"`
	ConfigurationVersion string           `json:"configurationVersion"`
	Notes                []string         `json:"notes,omitempty"`
	Processors           int              `json:"processors"`
	Memory               Memory           `json:"memory"`
	Firmware             Firmware         `json:"firmware"`
	CheckpointType       CheckpointType   `json:"checkpointType"`
	Controllers          []Controller     `json:"controllers,omitempty"`
	Disks                []DefinedDisk    `json:"disks,omitempty"`
	Networks             []NetworkAdapter `json:"networks,omitempty"`
}

// DefinedDisk is a disk of a definition.
type DefinedDisk struct {
	Key         string         `json:"key"`
	Controller  ControllerType `json:"controller"`
	Number      int            `json:"number"`
	Location    int            `json:"location"`
	Kind        DiskKind       `json:"kind"`
	Path        string         `json:"path,omitempty"`
	VirtualSize int64          `json:"virtualSize,omitempty"`
}

// Definition describes the VM so that it can be defined again.
func (vm VM) Definition() Definition {
	d := Definition{
		ID: vm.ID, Name: vm.Name, Generation: vm.Generation, ConfigurationVersion: vm.ConfigurationVersion, Notes: vm.Notes,
		Processors: vm.Processors, Memory: vm.Memory, Firmware: vm.Firmware, CheckpointType: vm.CheckpointType,
		Controllers: vm.Controllers, Networks: vm.Networks,
	}
	for _, disk := range vm.Disks {
		d.Disks = append(d.Disks, DefinedDisk{
			Key: disk.Key, Controller: disk.Controller, Number: disk.Number, Location: disk.Location,
			Kind: disk.Kind, Path: disk.Path, VirtualSize: disk.VirtualSize,
		})
	}
	return d
}
