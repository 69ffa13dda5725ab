package emulator

import (
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
)

// groupVirtualMachine is MSCluster_ResourceGroup.GroupType of a VM. States: 0 is up or online, 1 is down or offline.
const groupVirtualMachine = 111

// inCluster builds the objects of a cluster, of which a host outside of one has none.
func inCluster(build func(h *Host, c clusterConfig) []object) func(*Host) []object {
	return func(h *Host) []object {
		if h.cluster == nil {
			return nil
		}
		config, err := h.cluster.config()
		if err != nil {
			h.log.Warn("the cluster cannot be read", "error", err)
			return nil
		}
		return build(h, config)
	}
}

func (h *Host) clusterItself(c clusterConfig) []object {
	return []object{{class: "MSCluster_Cluster", properties: map[string]any{
		"Name": c.Name, "Caption": c.Name, "ClusterFunctionalLevel": c.FunctionalLevel, "SharedVolumesRoot": `C:\ClusterStorage`, "BackupInProgress": int64(0),
		"EnableSharedVolumes": int64(1),
	}}}
}

func (h *Host) clusterNodes(c clusterConfig) []object {
	var out []object
	for _, name := range c.Nodes {
		state := int64(0)
		presence := flock.New(h.cluster.presencePath(name))
		if name != h.config.Name {
			if free, err := presence.TryLock(); err == nil && free {
				state = 1
				if err := presence.Unlock(); err != nil {
					h.log.Warn("look for a node", "node", name, "error", err)
				}
			}
		}
		out = append(out, object{class: "MSCluster_Node", properties: map[string]any{"Name": name, "Caption": name, "State": state, "Status": "OK"}})
	}
	return out
}

// clusteredVM is what every node knows of a VM.
type clusteredVM struct{ folder, name, id, owner string }

func (h *Host) clusteredVMs(c clusterConfig) []clusteredVM {
	var out []clusteredVM
	for _, folder := range h.cluster.folders() {
		v := clusteredVM{folder: folder, name: folder, owner: c.owner(folder)}
		dir := filepath.Join(h.cluster.dir, folder)
		if text, err := os.ReadFile(filepath.Join(dir, "vm.yaml")); err == nil {
			if config, err := parseVMConfig(text, folder, &h.config); err == nil {
				v.name, v.id = config.Name, config.ID
			}
		}
		if record, err := readRecord(filepath.Join(dir, privateFolder, "state.json")); err == nil && v.id == "" {
			v.id = record.ID
		}
		out = append(out, v)
	}
	return out
}

func (h *Host) resourceGroups(c clusterConfig) []object {
	var out []object
	for _, v := range h.clusteredVMs(c) {
		out = append(out, object{class: "MSCluster_ResourceGroup", properties: map[string]any{
			"Name": v.name, "Caption": v.name, "Id": derivedGUID("group", v.folder), "GroupType": int64(groupVirtualMachine), "OwnerNode": v.owner, "State": int64(0),
		}, clustered: v.folder})
	}
	return out
}

func (h *Host) resources(c clusterConfig) []object {
	var out []object
	for _, v := range h.clusteredVMs(c) {
		private := embed("MSCluster_Property", map[string]any{"VmID": v.id, "VmStoreRootPath": sharedVolume + `\` + v.folder})
		for _, kind := range []string{"Virtual Machine", "Virtual Machine Configuration"} {
			name := kind + " " + v.name
			out = append(out, object{class: "MSCluster_Resource", properties: map[string]any{
				"Name": name, "Caption": name, "Id": derivedGUID(kind, v.folder), "Type": kind, "OwnerGroup": v.name, "OwnerNode": v.owner, "State": int64(2),
				"PrivateProperties": private,
			}})
		}
	}
	return out
}

func (h *Host) sharedVolumes(c clusterConfig) []object {
	return []object{{class: "MSCluster_ClusterSharedVolume", properties: map[string]any{
		"Name": sharedVolume, "VolumeName": `\\?\Volume{` + derivedGUID("csv", c.Name) + `}\`, "BackupState": int64(0), "FaultState": int64(0),
	}}}
}
