package emulator

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Resource types and sub types (CIM_ResourceAllocationSettingData).
const (
	subController   = "Microsoft:Hyper-V:Synthetic SCSI Controller"
	subIDE          = "Microsoft:Hyper-V:Emulated IDE Controller"
	subPMEM         = "Microsoft:Hyper-V:Persistent Memory Controller"
	subDrive        = "Microsoft:Hyper-V:Synthetic Disk Drive"
	subPhysical     = "Microsoft:Hyper-V:Physical Disk Drive"
	subHardDisk     = "Microsoft:Hyper-V:Virtual Hard Disk"
	subDVD          = "Microsoft:Hyper-V:Synthetic DVD Drive"
	subImage        = "Microsoft:Hyper-V:Virtual CD/DVD Disk"
	subPort         = "Microsoft:Hyper-V:Synthetic Ethernet Port"
	subLegacyPort   = "Microsoft:Hyper-V:Emulated Ethernet Port"
	subConnection   = "Microsoft:Hyper-V:Ethernet Connection"
	subMemory       = "Microsoft:Hyper-V:Memory"
	subProcessor    = "Microsoft:Hyper-V:Processor"
	typeProcessor   = 3
	typeMemory      = 4
	typeIDE         = 5
	typeSCSI        = 6
	typePort        = 10
	typeDVD         = 16
	typeDrive       = 17
	typeHardDisk    = 31
	typeConnection  = 33
	typePMEM        = 32771
	typeVSSSettings = 1 // other
)

// userSnapshotTypes are Msvm_VirtualSystemSettingData.UserSnapshotType.
var userSnapshotTypes = map[checkpointPolicy]int64{
	checkpointsDisabled: 2, checkpointsProduction: 3, checkpointsOnly: 4, checkpointsStandard: 5,
}

func (h *Host) settingData() []object {
	var out []object
	for _, version := range configurationVersions[h.config.OSVersion] { // the definitions of what the host can run
		out = append(out, object{class: "Msvm_VirtualSystemSettingData", properties: map[string]any{
			"InstanceID": `Microsoft:Definition\` + derivedGUID("version", version) + `\Default`, "Version": version, "VirtualSystemType": "Microsoft:Definition",
			"Notes": []string{},
		}})
	}
	return append(out, eachVM(h, func(h *Host, v *vm) []object {
		var out []object
		for _, s := range v.allSettings() {
			o := object{class: "Msvm_VirtualSystemSettingData", vm: v, settings: s, properties: h.settingProperties(s)}
			parent := v.record.Current
			if s.snapshot != nil {
				parent = s.snapshot.Parent
			}
			if parent != "" {
				o.properties["Parent"] = h.settingsPath(parent)
			}
			out = append(out, o)
		}
		return out
	})...)
}

func (h *Host) settingsPath(id string) string {
	return h.path("Msvm_VirtualSystemSettingData", map[string]any{"InstanceID": "Microsoft:" + id})
}

func (h *Host) settingProperties(s *settings) map[string]any {
	v, c := s.vm, s.config
	root, kind := v.windowsPath(), typeRealized
	if v.planned {
		root, kind = importedRoot, typePlanned
		if asked, ok := v.record.Settings["ConfigurationDataRoot"].(string); ok {
			root = asked
		}
	}
	p := map[string]any{}
	for name, value := range v.record.Settings {
		p[name] = value
	}
	for name, value := range map[string]any{
		"InstanceID": s.instanceID(), "ElementName": c.Name, "Caption": "Virtual Machine Settings", "VirtualSystemIdentifier": v.record.ID,
		"VirtualSystemType": kind, "VirtualSystemSubType": fmt.Sprintf("Microsoft:Hyper-V:SubType:%d", c.Generation), "Version": c.Version,
		"CreationTime": datetime(v.record.Created), "Notes": append([]string{}, c.Notes...), "ConfigurationID": s.id(), "ConfigurationDataRoot": root,
		"ConfigurationFile": machineFolder + `\` + c.definitionFile(s.id()), "SnapshotDataRoot": root, "SuspendDataRoot": root, "SwapFileDataRoot": root,
		"LogDataRoot": root, "UserSnapshotType": userSnapshotTypes[c.Checkpoints], "SecureBootEnabled": c.SecureBoot,
		"IsSaved": c.State == stateSaved, "IsAutomaticSnapshot": false, "AutomaticSnapshotsEnabled": false, "IncrementalBackupEnabled": false,
	} {
		p[name] = value
	}
	if _, set := p["BIOSGUID"]; !set {
		p["BIOSGUID"] = biosGUID(v.record.ID)
	}
	if c.hasGuestState() {
		p["GuestStateDataRoot"], p["GuestStateFile"] = root, machineFolder+`\`+s.id()+".vmgs"
	}
	if s.snapshot != nil {
		describeSnapshot(p, s.snapshot)
	}
	return p
}

func describeSnapshot(p map[string]any, s *snapshotRecord) {
	p["ElementName"], p["VirtualSystemType"], p["CreationTime"] = s.Name, s.Type, datetime(s.Created)
	p["Notes"] = append([]string{}, s.Notes...)
	p["ConfigurationFile"] = snapshotFolder + `\` + s.Config.definitionFile(s.ID)
	if s.Config.hasGuestState() {
		p["GuestStateFile"] = snapshotFolder + `\` + s.ID + ".vmgs"
	}
}

// devices are the parts of a definition.
func (h *Host) devices(s *settings) []object {
	memory := map[string]any{
		"InstanceID": s.instanceID(derivedGUID(s.vm.record.ID, "memory")), "ElementName": "Memory", "ResourceType": int64(typeMemory), "ResourceSubType": subMemory,
		"VirtualQuantity": s.config.MemoryMiB, "Reservation": s.config.MemoryMiB, "Limit": s.config.MemoryMiB,
		"AllocationUnits": "byte * 2^20", "VirtualQuantityUnits": "byte * 2^20", "DynamicMemoryEnabled": false,
	}
	if m := s.config.DynamicMemory; m != nil {
		memory["DynamicMemoryEnabled"], memory["Reservation"], memory["Limit"] = true, m.MinimumMiB, m.MaximumMiB
	}
	enabled := int64(2)
	if s.config.IntegrationServices == servicesDisabled {
		enabled = 3
	}
	out := []object{
		s.part(partMemory, "Msvm_MemorySettingData", memory),
		s.part(partProcessor, "Msvm_ProcessorSettingData", map[string]any{
			"InstanceID": s.instanceID(derivedGUID(s.vm.record.ID, "processor")), "ElementName": "Processor", "ResourceType": int64(typeProcessor),
			"ResourceSubType": subProcessor, "VirtualQuantity": s.config.Processors, "VirtualQuantityUnits": "count",
		}),
		s.part(partVSS, "Msvm_VssComponentSettingData", map[string]any{
			"InstanceID": s.instanceID(derivedGUID(s.vm.record.ID, "vss")), "ElementName": "Backup (volume checkpoint)", "Caption": "Backup (volume checkpoint)",
			"ResourceType": int64(typeVSSSettings), "EnabledState": enabled,
		}),
	}
	out = append(out, h.controllers(s)...)
	for _, d := range s.config.Disks {
		out = append(out, h.drive(s, d)...)
	}
	for i, d := range s.config.DVDDrives {
		out = append(out, h.dvdDrive(s, i, d)...)
	}
	for i, a := range s.config.NetworkAdapters {
		out = append(out, h.adapter(s, i, a)...)
	}
	return out
}

func (s *settings) part(kind partKind, class string, properties map[string]any) object {
	return object{class: class, vm: s.vm, settings: s, part: part{kind: kind}, properties: properties}
}

func (h *Host) controllers(s *settings) []object {
	var out []object
	add := func(kind controllerKind, n int, resourceType int64, subType string) {
		o := s.part(partController, "Msvm_ResourceAllocationSettingData", map[string]any{
			"InstanceID": s.controllerID(kind, n), "ElementName": fmt.Sprintf("%s Controller %d", kind, n), "ResourceType": resourceType,
			"ResourceSubType": subType, "Address": strconv.Itoa(n),
		})
		o.part.address, o.part.index = address{kind: kind, controller: n}, n
		out = append(out, o)
	}
	if s.config.Generation == 1 {
		for n := range maxControllers[ide] {
			add(ide, n, typeIDE, subIDE)
		}
	}
	for n := range int(*s.config.SCSIControllers) {
		add(scsi, n, typeSCSI, subController)
	}
	if slices.ContainsFunc(s.config.Disks, diskConfig.persistent) {
		add(pmem, 0, typePMEM, subPMEM)
	}
	return out
}

// controllerID is the same in a VM and in its checkpoints but for the first part, and so are the ids of drives and disks below it.
func (s *settings) controllerID(kind controllerKind, n int) string {
	return s.instanceID(derivedGUID(s.vm.record.ID, string(kind), strconv.Itoa(n)), strconv.Itoa(n))
}

func (s *settings) diskID(a address, suffix string) string {
	return strings.Join([]string{s.controllerID(a.kind, a.controller), strconv.Itoa(a.slot), suffix}, `\`)
}

func (h *Host) resourcePath(class, instanceID string) string {
	return h.path(class, map[string]any{"InstanceID": instanceID})
}

// slot is a drive of any kind at its place on a controller.
func (h *Host) slot(s *settings, kind partKind, a address, properties map[string]any) object {
	const rasd = "Msvm_ResourceAllocationSettingData"
	properties["InstanceID"] = s.diskID(a, "D")
	properties["Parent"] = h.resourcePath(rasd, s.controllerID(a.kind, a.controller))
	properties["AddressOnParent"] = strconv.Itoa(a.slot)
	return s.part(kind, rasd, properties)
}

// drive is a drive and, unless it is empty or passed through, the disk in it.
func (h *Host) drive(s *settings, d diskConfig) []object {
	a, err := parseAddress(d.Controller)
	if err != nil {
		return nil // a vm.yaml that was refused
	}
	const rasd, sasd = "Msvm_ResourceAllocationSettingData", "Msvm_StorageAllocationSettingData"
	drive := h.slot(s, partDrive, a, map[string]any{"ElementName": "Hard Drive", "ResourceType": int64(typeDrive), "ResourceSubType": subDrive})
	drive.part.address = a
	if d.PassThrough != nil {
		drive.properties["ResourceSubType"] = subPhysical
		drive.properties["HostResource"] = []string{h.path("Msvm_DiskDrive", h.diskDriveKey(*d.PassThrough))}
	}
	if d.Path == "" {
		return []object{drive}
	}
	file := s.file(d)
	if file == "" { // a disk that the checkpoint does not hold
		return []object{drive}
	}
	disk := s.part(partDisk, sasd, map[string]any{
		"InstanceID": s.diskID(a, "L"), "ElementName": "Hard Disk Image", "ResourceType": int64(typeHardDisk), "ResourceSubType": subHardDisk,
		"Parent": h.resourcePath(rasd, s.diskID(a, "D")), "HostResource": []string{file}, "PersistentReservationsSupported": d.Shared,
		"CachingMode": int64(0), "IgnoreFlushes": false, "IOPSLimit": int64(0), "IOPSReservation": int64(0), "Access": int64(3),
	})
	disk.part.address = a
	return []object{drive, disk}
}

// dvdDrive is a DVD drive and, unless it is empty, the image in it.
func (h *Host) dvdDrive(s *settings, i int, d dvdConfig) []object {
	a, err := parseAddress(d.Controller)
	if err != nil {
		return nil // a vm.yaml that was refused
	}
	const rasd, sasd = "Msvm_ResourceAllocationSettingData", "Msvm_StorageAllocationSettingData"
	drive := h.slot(s, partDVD, a, map[string]any{"ElementName": "DVD Drive", "ResourceType": int64(typeDVD), "ResourceSubType": subDVD})
	if d.Image == "" {
		return []object{drive}
	}
	image := s.part(partImage, sasd, map[string]any{
		"InstanceID": s.diskID(a, "L"), "ElementName": "ISO Disk Image", "ResourceType": int64(typeHardDisk), "ResourceSubType": subImage,
		"Parent": h.resourcePath(rasd, s.diskID(a, "D")), "HostResource": []string{d.Image}, "PersistentReservationsSupported": false,
	})
	image.part.index = i
	return []object{drive, image}
}

// file is where a disk of the definition is: the frozen file of a checkpoint, or the one that the guest writes.
func (s *settings) file(d diskConfig) string {
	path := s.vm.diskPath(d)
	if s.snapshot != nil && s.vm.planned { // its own settings name it until it is realized
		return path
	}
	if s.snapshot != nil {
		if sd := s.snapshot.disk(path); sd != nil {
			return sd.Frozen
		}
		return ""
	}
	if r := s.vm.record.disk(path); r != nil {
		return r.Leaf
	}
	return path
}

func (h *Host) adapter(s *settings, i int, a adapterConfig) []object {
	id := s.instanceID(derivedGUID(s.vm.record.ID, "adapter", strconv.Itoa(i)))
	mac := strings.ToUpper(a.MAC)
	if mac == "" {
		mac = "00155D" + derivedGUID(s.vm.record.ID, "mac", strconv.Itoa(i))[:6]
	}
	name := a.Name
	if name == "" {
		name = "Network Adapter"
	}
	properties := map[string]any{
		"InstanceID": id, "ElementName": name, "ResourceType": int64(typePort), "ResourceSubType": subLegacyPort, "Address": mac, "StaticMacAddress": a.MAC != "",
	}
	class := "Msvm_EmulatedEthernetPortSettingData"
	if !a.Legacy {
		class = "Msvm_SyntheticEthernetPortSettingData"
		properties["ResourceSubType"], properties["VirtualSystemIdentifiers"] = subPort, []string{"{" + derivedGUID(id) + "}"}
	}
	port := s.part(partPort, class, properties)
	port.part.index = i
	if a.Switch == "" {
		return []object{port}
	}
	resource := []string{}
	if o, found := h.switchOf(a.Switch); found {
		resource = append(resource, h.path(o.class, o.properties))
	}
	connection := s.part(partConnection, "Msvm_EthernetPortAllocationSettingData", map[string]any{
		"InstanceID": id + `\C`, "ElementName": "Ethernet Connection", "ResourceType": int64(typeConnection), "ResourceSubType": subConnection,
		"Parent": h.resourcePath(class, id), "HostResource": resource, "EnabledState": int64(2),
		"LastKnownSwitchName": a.Switch,
	})
	connection.part.index = i
	return []object{port, connection}
}

// templates are the default instances of a class, which clients copy to add a device.
func templates(class string) []object {
	var out []object
	for _, t := range []struct {
		class, subType string
		resourceType   int64
	}{
		{"Msvm_ResourceAllocationSettingData", subController, typeSCSI},
		{"Msvm_ResourceAllocationSettingData", subDrive, typeDrive},
		{"Msvm_ResourceAllocationSettingData", subPhysical, typeDrive},
		{"Msvm_StorageAllocationSettingData", subHardDisk, typeHardDisk},
		{"Msvm_SyntheticEthernetPortSettingData", subPort, typePort},
		{"Msvm_EmulatedEthernetPortSettingData", subLegacyPort, typePort},
		{"Msvm_EthernetPortAllocationSettingData", subConnection, typeConnection},
		{"Msvm_MemorySettingData", subMemory, typeMemory},
		{"Msvm_ProcessorSettingData", subProcessor, typeProcessor},
	} {
		if t.class == class {
			out = append(out, object{class: class, properties: map[string]any{
				"InstanceID": `Microsoft:Definition\` + derivedGUID("definition", t.subType) + `\Default`, "ResourceType": t.resourceType, "ResourceSubType": t.subType,
			}})
		}
	}
	return out
}
