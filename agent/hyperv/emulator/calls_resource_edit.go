package emulator

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func modifyResource(h *Host, _ *vm, c *vmConfig, o wmi.Object) (string, error) {
	found, ok := h.find(o.Path)
	if !ok {
		return "", fmt.Errorf("%w: it is gone", errResource)
	}
	var err error
	switch found.part.kind {
	case partMemory:
		err = setMemory(c, o.Properties)
	case partProcessor:
		err = setProcessors(c, o.Properties)
	case partVSS:
		err = setVSS(c, o.Properties)
	case partPort:
		setPort(&c.NetworkAdapters[found.part.index], o.Properties)
	case partConnection:
		err = h.setConnection(&c.NetworkAdapters[found.part.index], o.Properties)
	case partDisk:
		i := slices.IndexFunc(c.Disks, func(d diskConfig) bool { return d.Controller == found.part.address.String() })
		err = h.setDisk(&c.Disks[i], o.Properties)
	default:
		err = fmt.Errorf("%w: nothing of a %s can be changed", errResource, found.part.kind)
	}
	return o.Path, err
}

func removeResource(h *Host, _ *vm, c *vmConfig, o wmi.Object) (string, error) {
	found, ok := h.find(o.Path)
	if !ok {
		return "", fmt.Errorf("%w: it is gone", errResource)
	}
	i := slices.IndexFunc(c.Disks, func(d diskConfig) bool { return d.Controller == found.part.address.String() })
	switch found.part.kind {
	case partDisk:
		c.Disks[i] = diskConfig{Controller: c.Disks[i].Controller, Empty: true}
	case partDrive:
		if c.Disks[i].Path != "" {
			return "", fmt.Errorf("%w: the drive at %s has a disk", errResource, c.Disks[i].Controller)
		}
		c.Disks = slices.Delete(c.Disks, i, i+1)
	case partPort:
		c.NetworkAdapters = slices.Delete(c.NetworkAdapters, found.part.index, found.part.index+1)
	case partConnection:
		c.NetworkAdapters[found.part.index].Switch = ""
	case partImage:
		c.DVDDrives[found.part.index].Image = ""
	default:
		return "", fmt.Errorf("%w: a %s cannot be removed", errResource, found.part.kind)
	}
	return o.Path, nil
}

func setMemory(c *vmConfig, properties map[string]any) error {
	memory := dynamicMemory{MinimumMiB: c.MemoryMiB, MaximumMiB: c.MemoryMiB}
	if c.DynamicMemory != nil {
		memory = *c.DynamicMemory
	}
	dynamic := c.DynamicMemory != nil
	for name, value := range properties {
		switch name {
		case "VirtualQuantity":
			c.MemoryMiB, _ = value.(int64)
		case "Reservation":
			memory.MinimumMiB, _ = value.(int64)
		case "Limit":
			memory.MaximumMiB, _ = value.(int64)
		case "DynamicMemoryEnabled":
			dynamic, _ = value.(bool)
		case "InstanceID", "ResourceType", "ResourceSubType", "AllocationUnits", "VirtualQuantityUnits", "ElementName":
		default:
			return fmt.Errorf("%w: %s of the memory cannot be set", errResource, name)
		}
	}
	c.DynamicMemory = nil
	if dynamic {
		c.DynamicMemory = &memory
	}
	return nil
}

func setProcessors(c *vmConfig, properties map[string]any) error {
	for name, value := range properties {
		switch name {
		case "VirtualQuantity":
			c.Processors, _ = value.(int64)
		case "InstanceID", "ResourceType", "ResourceSubType", "VirtualQuantityUnits", "ElementName":
		default:
			return fmt.Errorf("%w: %s of the processors cannot be set", errResource, name)
		}
	}
	return nil
}

func setVSS(c *vmConfig, properties map[string]any) error {
	switch properties["EnabledState"] {
	case int64(2):
		if c.IntegrationServices == servicesDisabled {
			c.IntegrationServices = servicesOK
		}
	case int64(3):
		c.IntegrationServices = servicesDisabled
	default:
		return fmt.Errorf("%w: EnabledState is neither 2 nor 3", errResource)
	}
	return nil
}

func setPort(a *adapterConfig, properties map[string]any) {
	if name, ok := properties["ElementName"].(string); ok {
		a.Name = name
	}
	if mac, ok := properties["Address"].(string); ok {
		a.MAC = mac
	}
	if static, ok := properties["StaticMacAddress"].(bool); ok && !static {
		a.MAC = ""
	}
}

// EnabledState of a connection that is cut.
const disconnected = 3

func (h *Host) setConnection(a *adapterConfig, properties map[string]any) error {
	if properties["EnabledState"] == int64(disconnected) {
		a.Switch = ""
		return nil
	}
	paths, ok := properties["HostResource"].([]string)
	if !ok {
		return nil
	}
	if len(paths) != 1 {
		return fmt.Errorf("%w: HostResource needs one switch", errResource)
	}
	found, ok := h.find(paths[0])
	if !ok || found.class != "Msvm_VirtualEthernetSwitch" {
		return fmt.Errorf("%w: HostResource is no switch of this host", errResource)
	}
	a.Switch, _ = found.properties["ElementName"].(string)
	return nil
}

// setDisk points a disk to a file, which must exist.
func (h *Host) setDisk(d *diskConfig, properties map[string]any) error {
	paths, ok := properties["HostResource"].([]string)
	if !ok || len(paths) != 1 {
		return fmt.Errorf("%w: HostResource needs one path", errResource)
	}
	d.Path = paths[0]
	if _, err := h.files.Stat(h.ctx, d.Path); err != nil {
		return fmt.Errorf("%w: %w", errResource, err)
	}
	if parent, name := splitPath(d.Path); strings.EqualFold(parent, "") && name != "" {
		return fmt.Errorf("%w: %q is no absolute path", errResource, d.Path)
	}
	return nil
}
