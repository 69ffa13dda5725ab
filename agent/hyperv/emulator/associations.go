package emulator

import (
	"slices"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/schema"
)

// associations say whether an association class ties a to b. They are asked both ways round, under Host.mu.
var associations = map[string]func(h *Host, a, b object) bool{
	"Msvm_SettingsDefineState": func(_ *Host, a, b object) bool {
		return a.isVM() && b.isSettings() && b.vm == a.vm && b.settings.snapshot == nil
	},
	"Msvm_SnapshotOfVirtualSystem": func(_ *Host, a, b object) bool {
		return a.isVM() && b.isSettings() && b.vm == a.vm && b.settings.snapshot != nil
	},
	"Msvm_SettingsDefineCapabilities": func(_ *Host, a, b object) bool {
		return a.class == "Msvm_VirtualSystemManagementCapabilities" && b.class == "Msvm_VirtualSystemSettingData" && b.settings == nil
	},
	"Msvm_MostCurrentSnapshotInBranch": lastSnapshot,
	"Msvm_LastAppliedSnapshot":         lastSnapshot,
	"Msvm_VirtualSystemSettingDataComponent": func(_ *Host, a, b object) bool {
		return a.isSettings() && b.part.kind != partNone && a.vm == b.vm && a.settings.id() == b.settings.id()
	},
	"Msvm_ReferencePointOfVirtualSystem": deviceOf("Msvm_VirtualSystemReferencePoint"),
	"Msvm_SystemDevice":                  deviceOf("Msvm_VssComponent"),
	"Msvm_SystemReplicationRelationship": deviceOf("Msvm_ReplicationRelationship"),
	"Msvm_AffectedJobElement": func(h *Host, a, b object) bool {
		if a.class != "Msvm_ConcreteJob" {
			return false
		}
		id, _ := a.properties["InstanceID"].(string)
		path := h.path(b.class, b.properties)
		return slices.ContainsFunc(h.jobs.affectedBy(id), func(p string) bool { return schema.SamePath(p, path) })
	},
}

// isVM says whether an object is a VM, also one that is only planned.
func (o object) isVM() bool {
	return (o.class == "Msvm_ComputerSystem" || o.class == "Msvm_PlannedComputerSystem") && o.vm != nil
}

func (o object) isSettings() bool {
	return o.class == "Msvm_VirtualSystemSettingData" && o.settings != nil
}

func deviceOf(class string) func(*Host, object, object) bool {
	return func(_ *Host, a, b object) bool { return a.isVM() && b.class == class && b.vm == a.vm }
}

// lastSnapshot ties a VM to the checkpoint that its disks build upon.
func lastSnapshot(_ *Host, a, b object) bool {
	if !a.isVM() || !b.isSettings() || b.vm != a.vm || b.settings.snapshot == nil {
		return false
	}
	return b.settings.snapshot.ID == a.vm.record.Current
}
