package emulator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"
	"go.yaml.in/yaml/v3"
)

// vmConfig is vm.yaml: what a VM is. People write it; the emulator rewrites it when a VM is changed through WMI.
type vmConfig struct {
	Name       string   `yaml:"name,omitempty"`
	ID         string   `yaml:"id,omitempty"`
	Generation int64    `yaml:"generation,omitempty"`
	Version    string   `yaml:"version,omitempty"`
	State      vmState  `yaml:"state,omitempty"`
	Notes      []string `yaml:"notes,omitempty"`

	MemoryMiB     int64          `yaml:"memoryMiB,omitempty"`
	DynamicMemory *dynamicMemory `yaml:"dynamicMemory,omitempty"`
	Processors    int64          `yaml:"processors,omitempty"`
	SecureBoot    bool           `yaml:"secureBoot,omitempty"`

	IntegrationServices integrationServices `yaml:"integrationServices,omitempty"`
	Checkpoints         checkpointPolicy    `yaml:"checkpoints,omitempty"`
	Replica             replicaRole         `yaml:"replica,omitempty"`
	// ReplicationState is that of Hyper-V Replica; without one it is replicating for a VM that has a replica role.
	ReplicationState replicationState `yaml:"replicationState,omitempty"`
	// Troubles are what is wrong with the VM.
	Troubles []trouble `yaml:"troubles,omitempty"`
	// HiddenFromWriter leaves the VM out of the VSS writer's metadata, as seen on Windows Server 2025.
	HiddenFromWriter bool `yaml:"hiddenFromWriter,omitempty"`

	// SCSIControllers is how many there are; by default as many as the disks need, and one at least.
	SCSIControllers *int64          `yaml:"scsiControllers,omitempty"`
	Disks           []diskConfig    `yaml:"disks,omitempty"`
	DVDDrives       []dvdConfig     `yaml:"dvdDrives,omitempty"`
	NetworkAdapters []adapterConfig `yaml:"networkAdapters,omitempty"`
}

// dvdConfig is a DVD drive.
type dvdConfig struct {
	// Controller is the address, such as "SCSI 0:5".
	Controller string `yaml:"controller"`
	// Image is the Windows path of an ISO file; a drive without one is empty.
	Image string `yaml:"image,omitempty"`
}

type dynamicMemory struct {
	MinimumMiB int64 `yaml:"minimumMiB"`
	MaximumMiB int64 `yaml:"maximumMiB"`
}

// diskConfig is a VHDX file or a pass-through disk.
type diskConfig struct {
	// Path is a Windows path, or relative to the VM's folder. What is on a file server (`\\SERVER\SHARE\...`) is listed and not served.
	Path string `yaml:"path,omitempty"`
	// Controller is the address, such as "SCSI 0:1". By default the next free one.
	Controller string `yaml:"controller,omitempty"`
	// Shared marks a disk that several VMs use, which no checkpoint of a single VM can hold.
	Shared bool `yaml:"shared,omitempty"`
	// Empty is a drive without a disk.
	Empty bool `yaml:"empty,omitempty"`
	// PassThrough is the number of a physical drive that the VM uses instead of a file.
	PassThrough *int64 `yaml:"passThrough,omitempty"`
	// SizeBytes is the size of a pass-through disk.
	SizeBytes int64 `yaml:"sizeBytes,omitempty"`
}

type adapterConfig struct {
	Name   string `yaml:"name,omitempty"`
	Switch string `yaml:"switch,omitempty"`
	// MAC is a static address of 12 hexadecimal digits; empty means a dynamic one.
	MAC string `yaml:"mac,omitempty"`
	// Legacy is an emulated adapter, which guests without drivers of Hyper-V know.
	Legacy bool `yaml:"legacy,omitempty"`
}

type vmState string

const (
	stateRunning vmState = "running"
	stateOff     vmState = "off"
	stateSaved   vmState = "saved"
	statePaused  vmState = "paused"
)

// integrationServices is how the guest's backup component behaves.
type integrationServices string

const (
	servicesOK       integrationServices = "ok"
	servicesDisabled integrationServices = "disabled" // switched off in the VM's settings
	servicesMissing  integrationServices = "missing"  // not installed in the guest, or not running
	servicesFailing  integrationServices = "failing"  // answers, and a writer in the guest times out
	servicesHanging  integrationServices = "hanging"  // never answers
	servicesRefusing integrationServices = "refusing" // answers that it will not, and never will
	// Two states of Msvm_VssComponent in which nobody is asked.
	servicesIncompatible integrationServices = "incompatible" // of a version that the host does not speak to
	servicesLost         integrationServices = "lost"         // was there, and is gone
)

type checkpointPolicy string

const (
	checkpointsDisabled   checkpointPolicy = "disabled"
	checkpointsProduction checkpointPolicy = "production"
	checkpointsOnly       checkpointPolicy = "productionOnly"
	checkpointsStandard   checkpointPolicy = "standard"
)

type replicaRole string

const (
	replicaNone    replicaRole = "none"
	replicaPrimary replicaRole = "primary"
	replicaReplica replicaRole = "replica"
	replicaTest    replicaRole = "test"
	// replicaExtended is a replica that is replicated once more.
	replicaExtended replicaRole = "extended"
)

// parseVMConfig reads vm.yaml. Unknown fields and values are errors that name them: a wrong word must not silently become a default.
func parseVMConfig(text []byte, folder string, host *hostConfig) (vmConfig, error) {
	var c vmConfig
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return vmConfig{}, err
	}
	c.setDefaults(folder, host)
	return c, c.check()
}

func (c *vmConfig) setDefaults(folder string, host *hostConfig) {
	setDefault(&c.Name, folder)
	setDefault(&c.Generation, 2)
	setDefault(&c.Version, host.newest())
	setDefault(&c.State, stateOff)
	setDefault(&c.MemoryMiB, 1024)
	setDefault(&c.Processors, 1)
	setDefault(&c.IntegrationServices, servicesOK)
	setDefault(&c.Checkpoints, checkpointsProduction)
	setDefault(&c.Replica, replicaNone)
	c.ID = strings.ToUpper(c.ID)
	taken := make(map[address]bool)
	for _, d := range c.Disks {
		if a, err := parseAddress(d.Controller); err == nil {
			taken[a] = true
		}
	}
	for i := range c.Disks {
		if c.Disks[i].Controller == "" {
			a := c.freeAddress(taken)
			taken[a] = true
			c.Disks[i].Controller = a.String()
		}
	}
	if c.SCSIControllers == nil {
		n := int64(1)
		for a := range taken {
			if a.kind == scsi {
				n = max(n, int64(a.controller)+1)
			}
		}
		c.SCSIControllers = &n
	}
}

func count(conditions ...bool) int {
	n := 0
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *vmConfig) check() error {
	if c.ID != "" {
		if _, err := uuid.Parse(c.ID); err != nil {
			return fmt.Errorf("id: %q is no GUID", c.ID)
		}
	}
	if c.Generation != 1 && c.Generation != 2 {
		return fmt.Errorf("generation: %d is neither 1 nor 2", c.Generation)
	}
	if !regexp.MustCompile(`^\d+\.\d+$`).MatchString(c.Version) {
		return fmt.Errorf("version: %q is no configuration version such as \"10.0\"", c.Version)
	}
	if c.MemoryMiB < 32 || c.Processors < 1 {
		return fmt.Errorf("memoryMiB needs at least 32 and processors at least 1")
	}
	if n := *c.SCSIControllers; n < 0 || n > int64(maxControllers[scsi]) {
		return fmt.Errorf("scsiControllers: a VM has at most %d", maxControllers[scsi])
	}
	if m := c.DynamicMemory; m != nil && (m.MinimumMiB > c.MemoryMiB || m.MaximumMiB < c.MemoryMiB) {
		return fmt.Errorf("dynamicMemory: memoryMiB %d lies outside of [%d, %d]", c.MemoryMiB, m.MinimumMiB, m.MaximumMiB)
	}
	if err := errors.Join(
		oneOf("state", c.State, stateRunning, stateOff, stateSaved, statePaused),
		oneOf("integrationServices", c.IntegrationServices, servicesOK, servicesDisabled, servicesMissing, servicesFailing, servicesHanging,
			servicesRefusing, servicesIncompatible, servicesLost),
		oneOf("checkpoints", c.Checkpoints, checkpointsDisabled, checkpointsProduction, checkpointsOnly, checkpointsStandard),
		oneOf("replica", c.Replica, replicaNone, replicaPrimary, replicaReplica, replicaTest, replicaExtended),
	); err != nil {
		return err
	}
	return errors.Join(c.checkReplication(), c.checkTroubles(), c.checkDisks(), c.checkDVDDrives(), c.checkAdapters())
}

func oneOf[T ~string](field string, value T, allowed ...T) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%s: %q is none of %q", field, value, allowed)
}

func (c *vmConfig) checkDisks() error {
	addresses, paths := make(map[address]bool), make(map[string]bool)
	for i, d := range c.Disks {
		a, err := parseAddress(d.Controller)
		switch {
		case err != nil:
			return fmt.Errorf("disks[%d].controller: %w", i, err)
		case c.Generation == 2 && a.kind == ide:
			return fmt.Errorf("disks[%d].controller: a generation 2 VM has no IDE controller", i)
		case c.Generation == 1 && a.kind == pmem:
			return fmt.Errorf("disks[%d].controller: a generation 1 VM has no controller for persistent memory", i)
		case addresses[a]:
			return fmt.Errorf("disks[%d].controller: %s is taken", i, d.Controller)
		case count(d.Path != "", d.PassThrough != nil, d.Empty) != 1:
			return fmt.Errorf("disks[%d]: give one of path, passThrough and empty", i)
		case a.kind == scsi && int64(a.controller) >= *c.SCSIControllers:
			return fmt.Errorf("disks[%d].controller: %s does not exist; scsiControllers is %d", i, d.Controller, *c.SCSIControllers)
		case d.Path != "" && d.SizeBytes != 0:
			return fmt.Errorf("disks[%d].sizeBytes belongs to a pass-through disk; a file knows its size", i)
		case d.Path != "" && paths[strings.ToLower(d.Path)]:
			return fmt.Errorf("disks[%d].path: %s is attached twice", i, d.Path)
		}
		addresses[a], paths[strings.ToLower(d.Path)] = true, true
	}
	return nil
}

func (c *vmConfig) checkDVDDrives() error {
	taken := make(map[string]bool)
	for _, d := range c.Disks {
		taken[d.Controller] = true
	}
	for i, d := range c.DVDDrives {
		a, err := parseAddress(d.Controller)
		switch {
		case err != nil:
			return fmt.Errorf("dvdDrives[%d].controller: %w", i, err)
		case taken[a.String()] || a.kind == scsi && int64(a.controller) >= *c.SCSIControllers || a.kind == ide && c.Generation == 2:
			return fmt.Errorf("dvdDrives[%d].controller: %s is taken, or does not exist", i, d.Controller)
		}
		taken[a.String()] = true
	}
	return nil
}

var macPattern = regexp.MustCompile(`^[0-9A-Fa-f]{12}$`)

// maxLegacyAdapters is how many legacy network adapters a VM of generation 1 has at most.
const maxLegacyAdapters = 4

func (c *vmConfig) checkAdapters() error {
	legacy := 0
	for i, a := range c.NetworkAdapters {
		if a.MAC != "" && !macPattern.MatchString(a.MAC) {
			return fmt.Errorf("networkAdapters[%d].mac: %q is not 12 hexadecimal digits", i, a.MAC)
		}
		if a.Legacy {
			legacy++
		}
	}
	if legacy > maxLegacyAdapters || legacy > 0 && c.Generation != 1 {
		return fmt.Errorf("networkAdapters: a generation 1 VM has at most %d legacy ones, another none", maxLegacyAdapters)
	}
	return nil
}
