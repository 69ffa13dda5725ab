package hyperv

import (
	"context"
	"errors"
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// FrozenDisk is one disk of a checkpoint: the file that the VM wrote until then, which nobody writes while the checkpoint exists. It is a plain
// value that can be stored.
type FrozenDisk struct {
	Key string `json:"key"`
	// Path is the frozen file, the topmost of its chain.
	Path        string `json:"path"`
	VirtualSize int64  `json:"virtualSize"`
	SectorSize  int64  `json:"sectorSize"`
	DiskID      string `json:"diskID"`
	// Tracked says that RCT follows this disk. RCTID is the id that the checkpoint sealed, "" when the host does not tell it before the conversion.
	Tracked bool   `json:"tracked"`
	RCTID   string `json:"rctID,omitempty"`
	// LivePath is the file that the VM writes since the checkpoint, "" when the disk is not attached any more. Of a disk in a shadow copy it is the file that
	// was copied.
	LivePath string `json:"livePath,omitempty"`
	// Lineage is what the disk was built on, by which a later checkpoint can tell whether it still is. A disk in a shadow copy has none.
	Lineage Lineage `json:"lineage,omitzero"`
	// Chain are the files of a disk in a shadow copy, topmost first. Otherwise it is empty, and the host is asked.
	Chain []string `json:"chain,omitempty"`
	// Place is what the disk's InstanceID ends in, in the VM and in its checkpoints. Reference points name disks by it.
	Place string `json:"place"`
}

// ExcludedDisk is a disk of the VM that a checkpoint does not hold, or whose content we cannot read.
type ExcludedDisk struct {
	Key    string        `json:"key"`
	Path   string        `json:"path,omitempty"`
	Kind   DiskKind      `json:"kind"`
	Reason ConcernReason `json:"reason"`
	// Message says why, and what to do.
	Message string `json:"message"`
}

// NotInCheckpoint is the reason of a disk that was attached after the checkpoint, or that Hyper-V left out of it.
const NotInCheckpoint ConcernReason = "NotInCheckpoint"

// Disks lists the frozen disks of a checkpoint, and the VM's other disks with the reason for each. ErrCheckpointNotFound. A frozen file
// that cannot be opened is an error: it would be missing in the image.
func (h *Host) Disks(ctx context.Context, cp Checkpoint) ([]FrozenDisk, []ExcludedDisk, error) {
	frozen, excluded, err := h.checkpointDisks(ctx, cp)
	if err != nil {
		return nil, nil, fmt.Errorf("list the disks of checkpoint %s: %w", cp.ID, err)
	}
	return frozen, excluded, nil
}

func (h *Host) checkpointDisks(ctx context.Context, cp Checkpoint) ([]FrozenDisk, []ExcludedDisk, error) {
	settings, err := h.checkpointSettings(ctx, cp)
	if err != nil {
		return nil, nil, err
	}
	inCheckpoint, err := h.storageOf(ctx, settings.Path)
	if errors.Is(err, wmi.ErrNotFound) {
		err = ErrCheckpointNotFound // released in between
	}
	if err != nil {
		return nil, nil, err
	}
	vm, err := h.vm(ctx, cp.VMID)
	if err != nil {
		return nil, nil, err
	}
	var frozen []FrozenDisk
	var excluded []ExcludedDisk
	held, before := map[string]bool{}, vm.before(cp.ID)
	for _, d := range inCheckpoint.disks {
		if d.Kind != DiskVHDX {
			continue // listed below, as a disk of the VM
		}
		f, err := h.freeze(ctx, d, vm, before)
		if err != nil {
			return nil, nil, err
		}
		held[f.Place] = true
		frozen = append(frozen, f)
	}
	for _, d := range vm.Disks {
		if d.Kind != DiskVHDX || !held[place(d.instanceID)] {
			excluded = append(excluded, exclusion(d))
		}
	}
	return frozen, excluded, nil
}

// freeze describes one disk of a checkpoint that follows others.
func (h *Host) freeze(ctx context.Context, d Disk, vm VM, before []string) (FrozenDisk, error) {
	info, err := h.disks.Info(ctx, d.Path)
	if err != nil {
		return FrozenDisk{}, fmt.Errorf("inspect %s: %w", d.Path, err)
	}
	f := FrozenDisk{
		Key: d.Key, Path: d.Path, VirtualSize: info.VirtualSize, SectorSize: info.SectorSize, DiskID: info.DiskID,
		Tracked: info.TrackingEnabled, RCTID: info.MostRecentID, Place: place(d.instanceID),
	}
	live := ""
	for _, active := range vm.Disks {
		if place(active.instanceID) == f.Place {
			live = active.Path
		}
	}
	f.Lineage, f.LivePath, err = h.lineage(ctx, d.Path, live, before)
	return f, err
}

func exclusion(d Disk) ExcludedDisk {
	out := ExcludedDisk{Key: d.Key, Path: d.Path, Kind: d.Kind}
	if c, found := diskConcern(d); found {
		out.Reason, out.Message = c.Reason, c.Message
		return out
	}
	out.Reason = NotInCheckpoint
	out.Message = fmt.Sprintf("Disk %s (%s) is not part of the checkpoint: it was attached after it, or Hyper-V left it out. The next backup will try again.", d.Key, d.Path)
	return out
}

// checkpointSettings gets the settings object of a checkpoint. ErrCheckpointNotFound.
func (h *Host) checkpointSettings(ctx context.Context, cp Checkpoint) (wmi.Instance, error) {
	settings, found, err := h.settingsByID(ctx, cp.ID)
	if err == nil && !found {
		err = ErrCheckpointNotFound
	}
	return settings, err
}

// settingsByID finds a settings object, of a VM or of a checkpoint.
func (h *Host) settingsByID(ctx context.Context, id string) (settings wmi.Instance, found bool, err error) {
	return h.one(ctx, fmt.Sprintf("SELECT * FROM %s WHERE InstanceID=%s", classSettings, wmi.Quote(id)))
}

// storageOf reads the storage devices of one settings object, of a VM or of a checkpoint. It opens no file.
func (h *Host) storageOf(ctx context.Context, settings string) (storage, error) {
	devices, err := h.devicesOf(ctx, settings, classResource, classAllocation)
	if err != nil {
		return storage{}, err
	}
	errs := &reader{}
	s := describeStorage(devices, errs)
	return s, errs.err
}
