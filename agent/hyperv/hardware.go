package hyperv

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Values of ResourceType (CIM_ResourceAllocationSettingData).
const (
	resourceSCSI    = 6
	resourceNetwork = 10
	resourceDrive   = 17
	resourceStorage = 31
)

// addDevice adds one device to a VM.
func (h *Host) addDevice(ctx context.Context, settings string, device wmi.Object) error {
	_, err := h.callService(ctx, managementService, "AddResourceSettings", wmi.Params{
		"AffectedConfiguration": settings, "ResourceSettings": []wmi.Object{device},
	})
	return err
}

// modifyDevices changes properties of devices that exist.
func (h *Host) modifyDevices(ctx context.Context, devices ...wmi.Object) error {
	_, err := h.callService(ctx, managementService, "ModifyResourceSettings", wmi.Params{"ResourceSettings": devices})
	return err
}

// applyProcessing sets memory and processors. Setting them again changes nothing.
func (h *Host) applyProcessing(ctx context.Context, settings string, d Definition) error {
	memory := map[string]any{"VirtualQuantity": d.Memory.Startup, "DynamicMemoryEnabled": d.Memory.Dynamic}
	if d.Memory.Dynamic {
		memory["Reservation"], memory["Limit"] = d.Memory.Minimum, d.Memory.Maximum
	}
	if d.Memory.Buffer != 0 {
		memory["TargetMemoryBuffer"] = d.Memory.Buffer
	}
	wanted := []struct {
		class      string
		properties map[string]any
	}{
		{classMemory, memory},
		{classProcessor, map[string]any{"VirtualQuantity": int64(d.Processors)}},
	}
	var devices []wmi.Object
	for _, w := range wanted {
		found, err := h.components(ctx, settings, w.class)
		if err != nil {
			return fmt.Errorf("read %s: %w", w.class, err)
		}
		for _, instance := range found {
			devices = append(devices, wmi.Object{Class: w.class, Path: instance.Path, Properties: w.properties})
		}
	}
	if err := h.modifyDevices(ctx, devices...); err != nil {
		return fmt.Errorf("set memory and processors: %w", err)
	}
	return nil
}

// ensureControllers adds the controllers that the places of disks need and the VM lacks. IDE controllers come with a VM of generation 1 and cannot be added.
func (h *Host) ensureControllers(ctx context.Context, settings string, wanted []Controller) error {
	have, err := h.storageOf(ctx, settings)
	if err != nil {
		return err
	}
	for _, c := range wanted {
		if c.Type != SCSI || c.Number < have.count(SCSI) {
			continue
		}
		err := h.addDevice(ctx, settings, wmi.Object{Class: classResource, Properties: map[string]any{
			"ResourceType": int64(resourceSCSI), "ResourceSubType": subTypeSCSI,
		}})
		if err != nil {
			return fmt.Errorf("add a SCSI controller: %w", err)
		}
		if have, err = h.storageOf(ctx, settings); err != nil {
			return err
		}
	}
	return nil
}

func (s storage) count(t ControllerType) int {
	n := 0
	for _, c := range s.controllers {
		if c.Type == t {
			n++
		}
	}
	return n
}

func (s storage) disk(key string) (Disk, bool) {
	at := slices.IndexFunc(s.disks, func(d Disk) bool { return d.Key == key })
	if at < 0 {
		return Disk{}, false
	}
	return s.disks[at], true
}

func (s storage) drive(key string) (drive, bool) {
	for _, d := range s.drives {
		if d.Key == key {
			return d, true
		}
	}
	return drive{}, false
}

// attach puts a disk file at a place of the VM: the drive, if there is none, and the file in it. A place that has the file already is left as it is;
// ErrDiskMismatch when it has another.
func (h *Host) attach(ctx context.Context, settings, key, path string) error {
	s, err := h.storageOf(ctx, settings)
	if err != nil {
		return err
	}
	if present, found := s.disk(key); found {
		if strings.EqualFold(present.Path, path) {
			return nil
		}
		return fmt.Errorf("%w: %s has %s", ErrDiskMismatch, key, present.Path)
	}
	at, found := s.drive(key)
	if !found {
		if err := h.addDrive(ctx, settings, s, key); err != nil {
			return err
		}
		if s, err = h.storageOf(ctx, settings); err != nil {
			return err
		}
		if at, found = s.drive(key); !found {
			return fmt.Errorf("%w: the drive at %s was added and is not there", ErrDiskMismatch, key)
		}
	}
	err = h.addDevice(ctx, settings, wmi.Object{Class: classAllocation, Properties: map[string]any{
		"ResourceType": int64(resourceStorage), "ResourceSubType": subTypeVirtualDisk, "Parent": at.path, "HostResource": []string{path},
	}})
	if err != nil {
		return fmt.Errorf("attach %s at %s: %w", path, key, err)
	}
	return nil
}

func (h *Host) addDrive(ctx context.Context, settings string, s storage, key string) error {
	kind, number, location, err := parseDiskKey(key)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(s.controllers, func(c Controller) bool { return c.Type == kind && c.Number == number })
	if at < 0 {
		return fmt.Errorf("%w: the virtual machine has no %s controller %d", ErrDiskMismatch, kind, number)
	}
	err = h.addDevice(ctx, settings, wmi.Object{Class: classResource, Properties: map[string]any{
		"ResourceType": int64(resourceDrive), "ResourceSubType": subTypeDrive,
		"Parent": s.controllers[at].path, "AddressOnParent": fmt.Sprint(location),
	}})
	if err != nil {
		return fmt.Errorf("add a drive at %s: %w", key, err)
	}
	return nil
}

// detach takes the disk file of a place out, and leaves the file and the drive. A place without a file is left as it is.
func (h *Host) detach(ctx context.Context, settings, key string) error {
	s, err := h.storageOf(ctx, settings)
	if err != nil {
		return err
	}
	present, found := s.disk(key)
	if !found {
		return nil
	}
	if _, err := h.callService(ctx, managementService, "RemoveResourceSettings", wmi.Params{"ResourceSettings": []string{present.path}}); err != nil {
		return fmt.Errorf("detach %s: %w", key, err)
	}
	return nil
}
