package emulator

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

var errResource = errors.New("the resource settings are refused")

// resourceChange applies one resource setting to a definition and returns the path of the object that it is about. It runs under Host.mu.
type resourceChange func(h *Host, v *vm, c *vmConfig, o wmi.Object) (string, error)

// applyResources applies resource settings one after the other.
func (h *Host) applyResources(v *vm, c *vmConfig, objects []wmi.Object, change resourceChange) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	results := []string{}
	for _, o := range objects {
		path, err := change(h, v, c, o)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.Class, err)
		}
		results = append(results, path)
	}
	return results, nil
}

func (c call) addResources() (wmi.Result, error) {
	c.host.mu.Lock()
	target, ok := c.object("AffectedConfiguration")
	c.host.mu.Unlock()
	if !ok || !target.isSettings() || target.settings.snapshot != nil {
		return refuse(codeInvalidParameter)
	}
	objects, _ := c.in["ResourceSettings"].([]wmi.Object)
	return c.changeResources(target.settings, objects, addResource)
}

func (c call) modifyResources() (wmi.Result, error) {
	objects, _ := c.in["ResourceSettings"].([]wmi.Object)
	owner := c.ownerOf(objects)
	if owner == nil {
		return refuse(codeInvalidParameter)
	}
	return c.changeResources(owner, objects, modifyResource)
}

func (c call) removeResources() (wmi.Result, error) {
	paths, _ := c.in["ResourceSettings"].([]string)
	var objects []wmi.Object
	for _, path := range paths {
		objects = append(objects, wmi.Object{Path: path})
	}
	owner := c.ownerOf(objects)
	if owner == nil {
		return refuse(codeInvalidParameter)
	}
	c.host.lastFirst(objects)
	result, err := c.changeResources(owner, objects, removeResource)
	delete(result.Out, "ResultingResourceSettings")
	return result, err
}

// lastFirst orders devices so that removing one leaves the places of those that follow.
func (h *Host) lastFirst(objects []wmi.Object) {
	h.mu.Lock()
	defer h.mu.Unlock()
	place := make(map[string]int, len(objects))
	for _, o := range objects {
		found, _ := h.find(o.Path)
		place[o.Path] = found.part.index
	}
	slices.SortStableFunc(objects, func(a, b wmi.Object) int { return place[b.Path] - place[a.Path] })
}

// ownerOf returns the settings whose parts all the objects are, or nil. Those of a checkpoint can be changed while it is planned.
func (c call) ownerOf(objects []wmi.Object) *settings {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	var owner *settings
	for _, o := range objects {
		found, ok := c.host.find(o.Path)
		switch {
		case !ok, found.settings == nil, owner != nil && owner.id() != found.settings.id():
			return nil
		case found.settings.snapshot != nil && found.settings.snapshot.Type != typePlannedSnapshot:
			return nil
		}
		owner = found.settings
	}
	return owner
}

func (c call) changeResources(owner *settings, objects []wmi.Object, change resourceChange) (wmi.Result, error) {
	v := owner.vm
	c.host.mu.Lock()
	code := uint32(codeInvalidState)
	if v.config.State == stateOff || v.planned || onlyServices(objects) {
		code = v.claim(opOther)
	}
	c.host.mu.Unlock()
	if code != codeDone {
		return refuse(code)
	}
	defer v.unclaim()
	v.op.Lock()
	defer v.op.Unlock()
	var results []string
	err := owner.edit(c.host.ctx, func(config *vmConfig) (err error) {
		results, err = c.host.applyResources(v, config, objects, change)
		return err
	})
	if err != nil {
		c.host.log.Info("resource settings were refused", "vm", v.folder, "error", err)
		if v.problem != nil {
			return refuse(codeFailed)
		}
		return refuse(codeInvalidParameter)
	}
	return wmi.Result{Out: map[string]any{"ResultingResourceSettings": results}}, nil
}

// onlyServices says whether a change is to integration services alone, which is allowed while the VM runs.
func onlyServices(objects []wmi.Object) bool {
	for _, o := range objects {
		if o.Class != "Msvm_VssComponentSettingData" {
			return false
		}
	}
	return true
}

func addResource(h *Host, v *vm, c *vmConfig, o wmi.Object) (string, error) {
	current := &settings{vm: v, config: *c}
	subType, _ := o.Properties["ResourceSubType"].(string)
	switch {
	case o.Path != "":
		return "", fmt.Errorf("%w: an instance that exists cannot be added", errResource)
	case o.Class == "Msvm_MemorySettingData":
		return "", setMemory(c, o.Properties)
	case o.Class == "Msvm_ProcessorSettingData":
		return "", setProcessors(c, o.Properties)
	case subType == subController:
		*c.SCSIControllers++
		return h.resourcePath(o.Class, current.controllerID(scsi, int(*c.SCSIControllers)-1)), nil
	case subType == subDrive || subType == subPhysical:
		return h.addDrive(current, c, o, subType == subPhysical)
	case subType == subHardDisk:
		return h.addDisk(current, c, o)
	case subType == subPort, subType == subLegacyPort:
		c.NetworkAdapters = append(c.NetworkAdapters, adapterConfig{Legacy: subType == subLegacyPort})
		index := len(c.NetworkAdapters) - 1
		setPort(&c.NetworkAdapters[index], o.Properties)
		return h.path(o.Class, h.adapter(&settings{vm: v, config: *c}, index, c.NetworkAdapters[index])[0].properties), nil
	case subType == subConnection:
		port, err := h.partOf(v, o, partPort)
		if err != nil {
			return "", err
		}
		a := &c.NetworkAdapters[port.index]
		if err := h.setConnection(a, o.Properties); err != nil || a.Switch == "" {
			return "", err
		}
		return h.path(o.Class, h.adapter(current, port.index, *a)[1].properties), nil
	}
	return "", fmt.Errorf("%w: a resource of the sub type %q cannot be added", errResource, subType)
}

// partOf resolves the Parent of a resource to a device of this VM.
func (h *Host) partOf(v *vm, o wmi.Object, kind partKind) (part, error) {
	path, _ := o.Properties["Parent"].(string)
	found, ok := h.find(path)
	if !ok || found.vm != v || found.part.kind != kind || found.settings.snapshot != nil {
		return part{}, fmt.Errorf("%w: its Parent is no %s of this VM", errResource, kind)
	}
	return found.part, nil
}

func (h *Host) addDrive(s *settings, c *vmConfig, o wmi.Object, physical bool) (string, error) {
	controller, err := h.partOf(s.vm, o, partController)
	if err != nil {
		return "", err
	}
	text, _ := o.Properties["AddressOnParent"].(string)
	slot, err := strconv.Atoi(text)
	if err != nil {
		return "", fmt.Errorf("%w: AddressOnParent %q is no slot", errResource, text)
	}
	a := controller.address
	a.slot = slot
	d := diskConfig{Controller: a.String(), Empty: !physical}
	if physical {
		number, err := h.driveNumber(o.Properties["HostResource"])
		if err != nil {
			return "", err
		}
		d.PassThrough = &number
	}
	c.Disks = append(c.Disks, d)
	return h.resourcePath(o.Class, s.diskID(a, "D")), nil
}

func (h *Host) driveNumber(hostResource any) (int64, error) {
	if paths, ok := hostResource.([]string); ok && len(paths) == 1 {
		if drive, ok := h.find(paths[0]); ok && drive.class == "Msvm_DiskDrive" {
			number, _ := drive.properties["DriveNumber"].(int64)
			return number, nil
		}
	}
	return 0, fmt.Errorf("%w: HostResource is no Msvm_DiskDrive", errResource)
}

func (h *Host) addDisk(s *settings, c *vmConfig, o wmi.Object) (string, error) {
	drive, err := h.partOf(s.vm, o, partDrive)
	if err != nil {
		return "", err
	}
	for i := range c.Disks {
		d := &c.Disks[i]
		if d.Controller != drive.address.String() {
			continue
		}
		if !d.Empty {
			return "", fmt.Errorf("%w: the drive at %s has a disk", errResource, d.Controller)
		}
		if err := h.setDisk(d, o.Properties); err != nil {
			return "", err
		}
		d.Empty = false
		return h.resourcePath(o.Class, s.diskID(drive.address, "L")), nil
	}
	return "", fmt.Errorf("%w: the drive is gone", errResource)
}
