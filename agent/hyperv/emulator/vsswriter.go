package emulator

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// build2012R2 is the version of Windows at which the writer changed.
const build2012R2 = 9600

// writerInstance changes with each start of the host.
func (h *Host) writerInstance() string {
	return derivedGUID(h.config.Name, "writer", strconv.FormatInt(h.booted.UnixNano(), 10))
}

// components are what the writer offers, without their files, and the VM of each. The caller holds Host.mu.
func (h *Host) components() ([]vss.Component, []*vm) {
	out, vms := []vss.Component{}, []*vm{}
	for _, v := range h.sortedVMs() {
		if v.record == nil || v.problem != nil || v.config.HiddenFromWriter {
			continue
		}
		out = append(out, vss.Component{Writer: h.writerInstance(), Type: vss.FileGroup, Name: v.record.ID, Caption: h.caption(v), Files: []vss.FileSpec{}})
		vms = append(vms, v)
	}
	return out, vms
}

// modern tells a host from Windows Server 2012 R2 on, which need not save a VM that cannot quiesce.
func (h *Host) modern() bool {
	build, _ := strconv.Atoi(builds[h.config.OSVersion])
	return build >= build2012R2
}

func (h *Host) caption(v *vm) string {
	online, offline := `Online\`, `Offline\`
	if !h.modern() {
		online, offline = `Backup Using Child Partition Snapshot\`, `Backup Using Saved State\`
	}
	if v.quiescible() {
		return online + v.config.Name
	}
	return offline + v.config.Name
}

// quiescible tells whether the writer offers the VM online: whether the guest then really quiesces shows only in the backup. The caller holds Host.mu.
func (v *vm) quiescible() bool {
	c := v.config
	switch {
	case c.State != stateRunning, c.Replica.onReplicaSide():
		return false
	case c.IntegrationServices == servicesDisabled, c.IntegrationServices == servicesMissing:
		return false
	}
	return c.Checkpoints == checkpointsProduction || c.Checkpoints == checkpointsOnly
}

// filesOf lists all that belongs to a VM: its configuration, its disks with their chains, and those of its user's checkpoints. Disks that are shared or
// passed through do not.
func (h *Host) filesOf(v *vm) []string {
	h.mu.Lock()
	var leaves, remote []string
	id, legacy := v.record.ID, v.config.legacy()
	for _, d := range v.record.Disks {
		leaves = append(leaves, d.Leaf)
	}
	for _, s := range v.record.Snapshots { // those of other branches are in no disk's chain
		for _, d := range s.Disks {
			leaves = append(leaves, d.Frozen)
		}
	}
	for _, d := range v.config.Disks {
		if d.remote() {
			remote = append(remote, v.diskPath(d))
		}
	}
	h.mu.Unlock()
	out := remote
	add := func(path string) {
		if !slices.ContainsFunc(out, func(p string) bool { return strings.EqualFold(p, path) }) {
			out = append(out, path)
		}
	}
	for _, folder := range []string{machineFolder, snapshotFolder} {
		entries, err := os.ReadDir(filepath.Join(v.dir, folder))
		if err != nil {
			continue // a VM without checkpoints has no folder for them
		}
		for _, e := range entries {
			if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
				add(v.windowsPath(folder, e.Name()))
			}
		}
	}
	if legacy { // what a saved VM has, listed whether it is there or not
		add(v.windowsPath(machineFolder, id+".bin"))
		add(v.windowsPath(machineFolder, id+".vsv"))
	}
	for _, leaf := range leaves {
		for _, path := range h.chainOf(leaf) {
			add(path)
		}
	}
	return out
}

// chainOf lists the files of a disk by the names that they give their parents, as far as they can be read.
func (h *Host) chainOf(leaf string) []string {
	var out []string
	for path := leaf; path != "" && len(out) < maxChain; {
		out = append(out, path)
		local, err := h.files.LocalPath(path)
		if err != nil {
			return out
		}
		path = parentOf(h, path, local)
	}
	return out
}

func parentOf(h *Host, path, local string) string {
	f, err := os.Open(local)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }() // read only
	var info fs.FileInfo
	if info, err = f.Stat(); err != nil {
		return ""
	}
	disk, err := vhdx.Open(f, info.Size())
	if err != nil || disk.Kind() != vhdx.Differencing {
		return ""
	}
	return parentPath(h.files.Mapping(), path, disk)
}
