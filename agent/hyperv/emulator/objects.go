package emulator

import (
	"cmp"
	"strconv"
	"time"
)

// builders make the objects of each class. They run under h.mu.
var builders = map[string]func(*Host) []object{
	"Msvm_ComputerSystem":           (*Host).computerSystems,
	"Msvm_PlannedComputerSystem":    (*Host).plannedSystems,
	"Msvm_VirtualSystemSettingData": (*Host).settingData,
	"Msvm_VirtualSystemManagementCapabilities": func(h *Host) []object {
		return []object{{class: "Msvm_VirtualSystemManagementCapabilities", properties: map[string]any{
			"InstanceID": "Microsoft:" + h.config.Name, "ElementName": "Virtual System Management Capabilities",
		}}}
	},
	"Msvm_VssComponent": (*Host).vssComponents,
	"Msvm_VirtualSystemReferencePoint": func(h *Host) []object {
		return eachVM(h, (*Host).referencePoints)
	},
	"Msvm_ReplicationRelationship": (*Host).replications,
	"Msvm_VirtualEthernetSwitch":   (*Host).switches,
	"Msvm_DiskDrive":               (*Host).diskDrives,
	"Msvm_ConcreteJob": func(h *Host) []object {
		var out []object
		for _, p := range h.jobs.properties() {
			out = append(out, object{class: "Msvm_ConcreteJob", properties: p})
		}
		return out
	},
	"Msvm_ResourceAllocationSettingData":     deviceBuilder("Msvm_ResourceAllocationSettingData"),
	"Msvm_StorageAllocationSettingData":      deviceBuilder("Msvm_StorageAllocationSettingData"),
	"Msvm_MemorySettingData":                 deviceBuilder("Msvm_MemorySettingData"),
	"Msvm_ProcessorSettingData":              deviceBuilder("Msvm_ProcessorSettingData"),
	"Msvm_SyntheticEthernetPortSettingData":  deviceBuilder("Msvm_SyntheticEthernetPortSettingData"),
	"Msvm_EmulatedEthernetPortSettingData":   deviceBuilder("Msvm_EmulatedEthernetPortSettingData"),
	"Msvm_EthernetPortAllocationSettingData": deviceBuilder("Msvm_EthernetPortAllocationSettingData"),
	"Msvm_VssComponentSettingData":           deviceBuilder("Msvm_VssComponentSettingData"),

	"Msvm_VirtualSystemManagementService":     service("Msvm_VirtualSystemManagementService", "vmms"),
	"Msvm_VirtualSystemSnapshotService":       service("Msvm_VirtualSystemSnapshotService", "vssnapsvc"),
	"Msvm_VirtualSystemReferencePointService": service("Msvm_VirtualSystemReferencePointService", "vsrefpointsvc"),
	"Msvm_ImageManagementService":             service("Msvm_ImageManagementService", "vhdsvc"),
	"Msvm_VirtualSystemManagementServiceSettingData": func(h *Host) []object {
		return []object{{class: "Msvm_VirtualSystemManagementServiceSettingData", properties: map[string]any{
			"InstanceID": "Microsoft:" + h.config.Name, "ElementName": h.config.Name,
			"DefaultExternalDataRoot": vmVolume, "DefaultVirtualHardDiskPath": vmVolume,
		}}}
	},

	"MSCluster_Cluster":             inCluster((*Host).clusterItself),
	"MSCluster_Node":                inCluster((*Host).clusterNodes),
	"MSCluster_ResourceGroup":       inCluster((*Host).resourceGroups),
	"MSCluster_Resource":            inCluster((*Host).resources),
	"MSCluster_ClusterSharedVolume": inCluster((*Host).sharedVolumes),

	"Win32_OperatingSystem": (*Host).operatingSystem,
	"Win32_ComputerSystem":  (*Host).win32ComputerSystem,
	"Win32_LogicalDisk":     (*Host).logicalDisks,
	"Win32_Service":         (*Host).win32Services,
}

// objects returns the objects of a class itself, without those of derived classes.
func (h *Host) objects(class string) []object {
	build := builders[class]
	if build == nil {
		return nil // an association, or a class that exists only inside of calls
	}
	return build(h)
}

func eachVM(h *Host, build func(*Host, *vm) []object) []object {
	var out []object
	for _, v := range h.sortedVMs() {
		if v.record != nil {
			out = append(out, build(h, v)...)
		}
	}
	return out
}

func deviceBuilder(class string) func(*Host) []object {
	return func(h *Host) []object {
		out := templates(class)
		return append(out, eachVM(h, func(h *Host, v *vm) []object {
			var out []object
			for _, s := range v.allSettings() {
				for _, o := range h.devices(s) {
					if o.class == class {
						out = append(out, o)
					}
				}
			}
			return out
		})...)
	}
}

func service(class, name string) func(*Host) []object {
	return func(h *Host) []object {
		return []object{{class: class, properties: map[string]any{
			"CreationClassName": class, "Name": name, "SystemCreationClassName": "Msvm_ComputerSystem", "SystemName": h.config.Name,
			"ElementName": name, "EnabledState": int64(2), "HealthState": int64(5), "OperationalStatus": []int64{2}, "Started": true, "StartMode": "Automatic",
		}}}
	}
}

// enabledStates are Msvm_ComputerSystem.EnabledState of a VM, and the critical variant of each.
var enabledStates = map[vmState][2]int64{
	stateRunning: {2, 32785}, stateOff: {3, 32786}, stateSaved: {6, 32788}, statePaused: {9, 32789},
}

var replicationModes = map[replicaRole]int64{replicaNone: 0, replicaPrimary: 1, replicaReplica: 2, replicaTest: 3, replicaExtended: 4}

func (h *Host) computerSystems() []object {
	host := object{class: "Msvm_ComputerSystem", properties: map[string]any{
		"CreationClassName": "Msvm_ComputerSystem", "Name": h.config.Name, "ElementName": h.config.Name,
		"Caption": "Hosting Computer System", "Description": "Microsoft Hosting Computer System", "EnabledState": int64(2), "HealthState": int64(5),
		"OperationalStatus": []int64{2},
	}}
	return append([]object{host}, eachVM(h, (*Host).computerSystem)...)
}

func (h *Host) computerSystem(v *vm) []object {
	if v.planned {
		return nil
	}
	states := enabledStates[v.config.State]
	p := map[string]any{
		"CreationClassName": "Msvm_ComputerSystem", "Name": v.record.ID, "ElementName": v.config.Name,
		"Caption": "Virtual Machine", "Description": "Microsoft Virtual Machine", "InstallDate": datetime(v.record.Created),
		"EnabledState": states[0], "RequestedState": int64(12), "HealthState": int64(5), "OperationalStatus": v.operationalStatus(),
		"StatusDescriptions": []string{"Operating normally"}, "OnTimeInMilliseconds": int64(0), "NumberOfNumaNodes": int64(1),
		"ReplicationMode":               replicationModes[v.config.Replica],
		"TimeOfLastConfigurationChange": datetime(v.stamp.modified),
	}
	if v.running {
		p["OnTimeInMilliseconds"] = int64(h.now().Sub(v.started) / time.Millisecond)
	}
	p["ReplicationState"], p["ReplicationHealth"] = v.config.replication()
	if !v.record.LastBackup.IsZero() {
		p["LastSuccessfulBackupTime"] = datetime(v.record.LastBackup)
	}
	if v.problem != nil {
		p["EnabledState"], p["HealthState"], p["OperationalStatus"] = states[1], int64(25), []int64{6}
		p["StatusDescriptions"] = []string{v.problem.Error()}
	}
	return []object{{class: "Msvm_ComputerSystem", properties: p, vm: v}}
}

func (h *Host) plannedSystems() []object {
	return eachVM(h, func(_ *Host, v *vm) []object {
		if !v.planned {
			return nil
		}
		return []object{{class: "Msvm_PlannedComputerSystem", vm: v, properties: map[string]any{
			"CreationClassName": "Msvm_PlannedComputerSystem", "Name": v.record.ID, "ElementName": v.config.Name, "Caption": "Virtual Machine",
			"InstallDate": datetime(v.record.Created), "EnabledState": enabledStates[v.config.State][0], "HealthState": int64(5),
			"OperationalStatus": v.operationalStatus(),
		}}}
	})
}

// operationalStatus has a second element while something is done to the VM. The caller holds Host.mu.
func (v *vm) operationalStatus() []int64 {
	switch {
	case v.busy > 0:
		return []int64{11, int64(v.busy)}
	case len(v.record.Merges) > 0:
		return []int64{11, int64(opMerging)}
	}
	return []int64{2}
}

func (h *Host) referencePoints(v *vm) []object {
	var out []object
	for _, r := range v.record.ReferencePoints {
		disks, ids := []string{}, []string{}
		for _, d := range r.Disks {
			disks = append(disks, d.InstanceID)
			if d.TrackingID != "" {
				ids = append(ids, d.TrackingID)
			}
		}
		out = append(out, object{class: "Msvm_VirtualSystemReferencePoint", vm: v, properties: map[string]any{
			"InstanceID": r.ID, "VirtualSystemIdentifier": v.record.ID, "ElementName": "Reference point", "ReferencePointType": int64(2),
			"ConsistencyLevel": r.Consistency, "HasAssociatedData": true, "VirtualDiskIdentifiers": disks, "ResilientChangeTrackingIdentifiers": ids,
		}})
	}
	return out
}

func (h *Host) vssComponents() []object {
	return eachVM(h, func(h *Host, v *vm) []object {
		if !v.running { // a device of a running VM
			return nil
		}
		enabled, status := int64(2), int64(2)
		switch v.config.IntegrationServices {
		case servicesDisabled:
			enabled, status = 3, 10
		case servicesMissing:
			status = 12
		case servicesIncompatible:
			status = 7
		case servicesLost:
			status = 13
		}
		return []object{{class: "Msvm_VssComponent", vm: v, properties: map[string]any{
			"CreationClassName": "Msvm_VssComponent", "SystemCreationClassName": "Msvm_ComputerSystem", "SystemName": v.record.ID,
			"DeviceID": "Microsoft:" + v.record.ID + `\` + derivedGUID(v.record.ID, "vss"), "ElementName": "Backup (volume checkpoint)",
			"EnabledState": enabled, "OperationalStatus": []int64{status}, "HealthState": int64(5),
		}}}
	})
}

func (h *Host) replications() []object {
	return eachVM(h, func(h *Host, v *vm) []object {
		if v.config.Replica == replicaNone || v.planned {
			return nil
		}
		state, health := v.config.replication()
		return []object{{class: "Msvm_ReplicationRelationship", vm: v, properties: map[string]any{
			"InstanceID": "Microsoft:" + v.record.ID + `\HVR\0`, "ElementName": v.config.Name, "ReplicationState": state, "ReplicationHealth": health,
		}}}
	})
}

func (h *Host) switches() []object {
	var out []object
	for _, name := range h.config.Switches {
		out = append(out, object{class: "Msvm_VirtualEthernetSwitch", properties: map[string]any{
			"CreationClassName": "Msvm_VirtualEthernetSwitch", "Name": h.switchID(name), "ElementName": name,
			"EnabledState": int64(2), "HealthState": int64(5), "OperationalStatus": []int64{2},
		}})
	}
	return out
}

// switchID is the id of a switch by its present name, or by one that it had before.
func (h *Host) switchID(name string) string {
	return derivedGUID(h.config.Name, "switch", cmp.Or(h.config.RenamedSwitches[name], name))
}

// switchOf finds the switch that a VM's definition names.
func (h *Host) switchOf(name string) (object, bool) {
	for _, o := range h.switches() {
		if o.properties["Name"] == h.switchID(name) {
			return o, true
		}
	}
	return object{}, false
}

func (h *Host) diskDrives() []object {
	return eachVM(h, func(h *Host, v *vm) []object {
		var out []object
		for _, d := range v.config.Disks {
			if d.PassThrough != nil && !v.planned { // a planned VM may come from a host with other disks
				out = append(out, object{class: "Msvm_DiskDrive", properties: h.diskDriveKey(*d.PassThrough)})
				p := out[len(out)-1].properties
				p["DriveNumber"], p["ElementName"], p["MaxMediaSize"] = *d.PassThrough, "Disk "+strconv.FormatInt(*d.PassThrough, 10), d.SizeBytes/1024
			}
		}
		return out
	})
}

func (h *Host) diskDriveKey(number int64) map[string]any {
	return map[string]any{
		"CreationClassName": "Msvm_DiskDrive", "SystemCreationClassName": "Msvm_ComputerSystem", "SystemName": h.config.Name,
		"DeviceID": "Microsoft:" + derivedGUID(h.config.Name, "drives") + `\` + strconv.FormatInt(number, 10),
	}
}
