package hyperv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Inventory is everything on a host that a backup needs to know, at one moment.
type Inventory struct {
	Host HostInfo `json:"host"`
	// VMs are in order of their ids.
	VMs []VM `json:"vms"`
}

// HostInfo describes the host itself.
type HostInfo struct {
	Name string `json:"name"`
	// OS is the product's name, Version like "10.0.20348".
	OS      string `json:"os"`
	Version string `json:"version"`
	Build   int    `json:"build"`
	// Desktop tells a client edition of Windows, Win32_OperatingSystem.ProductType 1.
	Desktop bool `json:"desktop"`
	// Time is the host's clock when it was asked.
	Time   time.Time `json:"time"`
	Booted time.Time `json:"booted"`
	// Cluster is the failover cluster that the host is a node of, nil for none.
	Cluster *Cluster `json:"cluster,omitempty"`
	// ClusterStopped says that the host is a node whose cluster service does not run, so that nobody here knows which node has a clustered VM.
	ClusterStopped bool     `json:"clusterStopped,omitempty"`
	Volumes        []Volume `json:"volumes,omitempty"`
}

// Volume is one fixed volume of the host, or one that the nodes of its cluster share. Sizes are in bytes.
type Volume struct {
	// Name is like "D:", or like `C:\ClusterStorage\Volume1`.
	Name   string `json:"name"`
	Free   int64  `json:"free"`
	Total  int64  `json:"total"`
	Shared bool   `json:"shared,omitempty"`
}

// Inventory describes the host and all of its VMs. The number of WMI queries does not depend on the number of VMs; each disk file is
// looked at once.
func (h *Host) Inventory(ctx context.Context) (Inventory, error) {
	info, err := h.Info(ctx)
	if err != nil {
		return Inventory{}, fmt.Errorf("inventory: %w", err)
	}
	facts, err := h.allFacts(ctx)
	if err != nil {
		return Inventory{}, fmt.Errorf("inventory: %w", err)
	}
	vms, err := h.describe(ctx, facts)
	if err != nil {
		return Inventory{}, fmt.Errorf("inventory: %w", err)
	}
	owners, err := h.ownerships(ctx, info)
	if err != nil {
		return Inventory{}, fmt.Errorf("inventory: %w", err)
	}
	for i := range vms {
		vms[i].judge(info, owners)
	}
	found := Inventory{Host: info, VMs: vms}
	found.compareDisks()
	return found, nil
}

// Refresh looks anew at the host itself and at the VMs with these ids, and at no other: its cost does not depend on how many the host has. A VM that
// the host does not have any more is dropped, one that is new is added. After an error the inventory is as it was.
func (h *Host) Refresh(ctx context.Context, i Inventory, ids []string) (Inventory, error) {
	info, err := h.Info(ctx)
	if err != nil {
		return i, fmt.Errorf("inventory: %w", err)
	}
	owners, err := h.ownerships(ctx, info)
	if err != nil {
		return i, fmt.Errorf("inventory: %w", err)
	}
	next := Inventory{Host: info, VMs: slices.Clone(i.VMs)}
	for _, id := range ids {
		vm, err := h.vm(ctx, id)
		at, known := slices.BinarySearchFunc(next.VMs, strings.ToUpper(id), func(vm VM, id string) int { return strings.Compare(vm.ID, id) })
		switch {
		case errors.Is(err, ErrVMNotFound) && known:
			next.VMs = slices.Delete(next.VMs, at, at+1)
			continue
		case errors.Is(err, ErrVMNotFound):
			continue
		case err != nil:
			return i, fmt.Errorf("inventory: read virtual machine %s: %w", id, err)
		}
		vm.judge(info, owners)
		if known {
			next.VMs[at] = vm
		} else {
			next.VMs = slices.Insert(next.VMs, at, vm)
		}
	}
	next.compareDisks()
	return next, nil
}

// VM describes one VM and reads no other. ErrVMNotFound. Concerns that only all VMs together show, a disk id in two of them, are in
// Inventory only.
func (h *Host) VM(ctx context.Context, id string) (VM, error) {
	info, err := h.Info(ctx)
	if err != nil {
		return VM{}, fmt.Errorf("read virtual machine %s: %w", id, err)
	}
	vm, err := h.vm(ctx, id)
	if err != nil {
		return VM{}, fmt.Errorf("read virtual machine %s: %w", id, err)
	}
	owners, err := h.ownerships(ctx, info)
	if err != nil {
		return VM{}, fmt.Errorf("read virtual machine %s: %w", id, err)
	}
	vm.judge(info, owners)
	return vm, nil
}

// judge adds what the VM is not told by itself: whether the cluster has it here, and what is wrong with it on this host.
func (vm *VM) judge(info HostInfo, owners map[string]Ownership) {
	vm.Cluster = nil
	if owner, clustered := owners[vm.ID]; clustered {
		vm.Cluster = &owner
	}
	vm.Concerns = concerns(info, *vm)
}

func (h *Host) vm(ctx context.Context, id string) (VM, error) {
	found, err := h.factsOf(ctx, id)
	if err != nil {
		return VM{}, err
	}
	vms, err := h.describe(ctx, found)
	if err != nil {
		return VM{}, err
	}
	if len(vms) == 0 {
		return VM{}, ErrVMNotFound
	}
	return vms[0], nil
}

// Info describes the host without its VMs.
func (h *Host) Info(ctx context.Context) (HostInfo, error) {
	found, err := h.cim.Query(ctx, "SELECT * FROM Win32_OperatingSystem")
	if err != nil {
		return HostInfo{}, fmt.Errorf("read the operating system: %w", err)
	}
	if len(found) == 0 {
		return HostInfo{}, fmt.Errorf("read the operating system: %w", wmi.ErrNotFound)
	}
	r := &reader{Instance: found[0]}
	info := HostInfo{
		Name:    r.text("CSName"),
		OS:      strings.TrimSpace(r.text("Caption")),
		Version: r.text("Version"),
		Desktop: r.number("ProductType") == 1,
		Time:    r.time("LocalDateTime"),
		Booted:  r.time("LastBootUpTime"),
	}
	info.Build = r.build()
	if r.err != nil {
		return HostInfo{}, fmt.Errorf("read the operating system: %w", r.err)
	}
	if info.Volumes, err = h.volumes(ctx); err != nil {
		return HostInfo{}, err
	}
	if err := h.describeCluster(ctx, &info); err != nil {
		return HostInfo{}, err
	}
	return info, nil
}

// build is the build number of the host's Windows.
func (h *Host) build(ctx context.Context) (int, error) {
	found, err := h.cim.Query(ctx, "SELECT BuildNumber FROM Win32_OperatingSystem")
	if err == nil && len(found) == 0 {
		err = wmi.ErrNotFound
	}
	if err != nil {
		return 0, fmt.Errorf("read the operating system: %w", err)
	}
	r := &reader{Instance: found[0]}
	return r.build(), r.err
}

func (r *reader) build() int {
	build, err := strconv.Atoi(r.text("BuildNumber"))
	r.keep(err)
	return build
}

// volumes lists the host's fixed volumes that have a drive letter (Win32_LogicalDisk.DriveType 3).
func (h *Host) volumes(ctx context.Context) ([]Volume, error) {
	found, err := h.cim.Query(ctx, "SELECT * FROM Win32_LogicalDisk WHERE DriveType=3")
	if err != nil {
		return nil, fmt.Errorf("read the volumes: %w", err)
	}
	var out []Volume
	for _, instance := range found {
		r := &reader{Instance: instance}
		out = append(out, Volume{Name: strings.ToUpper(r.text("DeviceID")), Free: r.number("FreeSpace"), Total: r.number("Size")})
		if r.err != nil {
			return nil, fmt.Errorf("read the volumes: %w", r.err)
		}
	}
	slices.SortFunc(out, func(a, b Volume) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
