package hyperv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// facts are the WMI instances that describe VMs, of one or of all, not yet understood.
type facts struct {
	// systems are the Msvm_ComputerSystem by VM id.
	systems map[string]wmi.Instance
	// settings are the Msvm_VirtualSystemSettingData, active ones and checkpoints, by VM id.
	settings map[string][]wmi.Instance
	// devices are the settings of devices by class, then by the InstanceID of the settings object that they belong to.
	devices map[string]map[string][]wmi.Instance
	// backup are the running Msvm_VssComponent by VM id.
	backup map[string]wmi.Instance
	// guests are what running guests say of themselves, by VM id.
	guests map[string]Guest
	// points count reference points by VM id.
	points map[string]int
	// switches are the names of virtual switches by their id.
	switches map[string]string
}

// The values of VirtualSystemType that we tell apart.
const (
	typeRealized         = "Microsoft:Hyper-V:System:Realized"
	typeRecoverySnapshot = "Microsoft:Hyper-V:Snapshot:Recovery"
	typeUserSnapshot     = "Microsoft:Hyper-V:Snapshot:Realized"
	typeSnapshotPrefix   = "Microsoft:Hyper-V:Snapshot:"
)

// The classes of device settings that a VM is described by.
const (
	classSettings      = "Msvm_VirtualSystemSettingData"
	classSystem        = "Msvm_ComputerSystem"
	classAllocation    = "Msvm_StorageAllocationSettingData"
	classResource      = "Msvm_ResourceAllocationSettingData"
	classMemory        = "Msvm_MemorySettingData"
	classProcessor     = "Msvm_ProcessorSettingData"
	classBackupService = "Msvm_VssComponentSettingData"
	// classBackupComponent is the running counterpart of classBackupService, a device of the VM.
	classBackupComponent = "Msvm_VssComponent"
	classNetworkPort     = "Msvm_SyntheticEthernetPortSettingData"
	classLegacyPort      = "Msvm_EmulatedEthernetPortSettingData"
	classNetworkBinding  = "Msvm_EthernetPortAllocationSettingData"
)

var deviceClasses = []string{
	classAllocation, classResource, classMemory, classProcessor, classBackupService, classNetworkPort, classLegacyPort, classNetworkBinding,
}

// allFacts reads all VMs with one query per class.
func (h *Host) allFacts(ctx context.Context) (facts, error) {
	return h.readFacts(ctx, "", func(class string) ([]wmi.Instance, error) {
		return h.virt.Query(ctx, "SELECT * FROM "+class)
	})
}

// factsOf reads one VM. They are empty when the host does not have it.
func (h *Host) factsOf(ctx context.Context, id string) (facts, error) {
	id = strings.ToUpper(id)
	active, found, err := h.one(ctx, fmt.Sprintf("SELECT * FROM %s WHERE VirtualSystemIdentifier=%s AND VirtualSystemType=%s",
		classSettings, wmi.Quote(id), wmi.Quote(typeRealized)))
	if err != nil || !found {
		return facts{}, err
	}
	return h.readFacts(ctx, id, func(class string) ([]wmi.Instance, error) { return h.components(ctx, active.Path, class) })
}

// components are the device settings of one settings object, of a VM or a checkpoint.
func (h *Host) components(ctx context.Context, settings, class string) ([]wmi.Instance, error) {
	return h.virt.Associators(ctx, settings, "Msvm_VirtualSystemSettingDataComponent", class)
}

// devicesOf reads the devices of some classes of one settings object, for the functions that describe them.
func (h *Host) devicesOf(ctx context.Context, settings string, classes ...string) (func(class string) []wmi.Instance, error) {
	found := map[string][]wmi.Instance{}
	for _, class := range classes {
		var err error
		if found[class], err = h.components(ctx, settings, class); err != nil {
			return nil, fmt.Errorf("read %s: %w", class, err)
		}
	}
	return func(class string) []wmi.Instance { return found[class] }, nil
}

// readFacts reads the objects of one VM, or of all with id "", and its devices through the function given.
func (h *Host) readFacts(ctx context.Context, id string, devices func(class string) ([]wmi.Instance, error)) (facts, error) {
	f := facts{settings: map[string][]wmi.Instance{}, devices: map[string]map[string][]wmi.Instance{}, points: map[string]int{}, switches: map[string]string{}}
	all, err := h.keyed(ctx, classSettings, "VirtualSystemIdentifier", id)
	if err != nil {
		return facts{}, err
	}
	for _, k := range all {
		f.settings[k.id] = append(f.settings[k.id], k.instance)
	}
	if f.systems, err = h.keyedOnce(ctx, classSystem, "Name", id); err != nil {
		return facts{}, err
	}
	if f.backup, err = h.keyedOnce(ctx, classBackupComponent, "SystemName", id); err != nil {
		return facts{}, err
	}
	if f.guests, err = h.guests(ctx, id); err != nil {
		return facts{}, err
	}
	points, err := h.keyed(ctx, classReferencePoint, "VirtualSystemIdentifier", id)
	if err != nil && !errors.Is(err, wmi.ErrInvalidClass) { // hosts before Windows Server 2016 have none
		return facts{}, err
	}
	for _, k := range points {
		f.points[k.id]++
	}
	if err := f.readDevices(devices); err != nil {
		return facts{}, err
	}
	switches, err := h.keyedOnce(ctx, "Msvm_VirtualEthernetSwitch", "Name", "")
	for id, instance := range switches {
		name, err := instance.String("ElementName")
		if err != nil {
			return facts{}, err
		}
		f.switches[id] = name
	}
	return f, err
}

func (f facts) readDevices(devices func(class string) ([]wmi.Instance, error)) error {
	for _, class := range slices.Concat(deviceClasses, traitClasses) {
		found, err := devices(class)
		if slices.Contains(traitClasses, class) {
			found, err = unlessAbsent(found, err)
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", class, err)
		}
		if f.devices[class], err = byOwner(found); err != nil {
			return err
		}
	}
	return nil
}

type keyedInstance struct {
	id       string
	instance wmi.Instance
}

// keyed reads a class with the property that holds the id of a VM, in upper case: all instances, or those of one VM.
func (h *Host) keyed(ctx context.Context, class, property, id string) ([]keyedInstance, error) {
	wql := "SELECT * FROM " + class
	if id != "" {
		wql += fmt.Sprintf(" WHERE %s=%s", property, wmi.Quote(id))
	}
	found, err := h.virt.Query(ctx, wql)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", class, err)
	}
	out := make([]keyedInstance, 0, len(found))
	for _, instance := range found {
		key, err := instance.String(property)
		if err != nil {
			return nil, err
		}
		out = append(out, keyedInstance{strings.ToUpper(key), instance})
	}
	return out, nil
}

// keyedOnce is keyed for classes with at most one instance per id.
func (h *Host) keyedOnce(ctx context.Context, class, property, id string) (map[string]wmi.Instance, error) {
	all, err := h.keyed(ctx, class, property, id)
	if err != nil {
		return nil, err
	}
	out := make(map[string]wmi.Instance, len(all))
	for _, k := range all {
		out[k.id] = k.instance
	}
	return out, nil
}

func byOwner(devices []wmi.Instance) (map[string][]wmi.Instance, error) {
	out := map[string][]wmi.Instance{}
	for _, device := range devices {
		id, err := device.String("InstanceID")
		if err != nil {
			return nil, err
		}
		out[owner(id)] = append(out[owner(id)], device)
	}
	return out, nil
}
