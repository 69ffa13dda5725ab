package emulator

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// applySnapshot takes the VM back to a checkpoint of its user's.
func (c call) applySnapshot() (wmi.Result, error) {
	v, s, code := c.snapshot("Snapshot", opApplyingSnapshot)
	if code != codeDone {
		return refuse(code)
	}
	if v.planned || s.Type != typeSnapshot || len(v.record.Merges) > 0 {
		v.unclaim()
		return refuse(codeInvalidState)
	}
	return c.job(jobTypeApply, v, nil, func(ctx context.Context) ([]string, error) {
		return nil, v.applySnapshot(ctx, s)
	})
}

// applySnapshot gives every disk of the checkpoint a new, empty file above the frozen one. The VM is off then, or saved where the checkpoint has its memory,
// and nobody knows what changed. The caller holds op.
func (v *vm) applySnapshot(ctx context.Context, s *snapshotRecord) error {
	if err := v.edit(ctx, func(c *vmConfig) error { c.State = stateOff; return nil }); err != nil {
		return err
	}
	leaves, seen := make(map[string]string), make(map[string]seal)
	for _, d := range s.Disks {
		leaves[d.Path] = childPath(d.Frozen, newGUID())
		if err := v.commit(func(r *vmRecord) { r.Garbage = append(r.Garbage, leaves[d.Path]) }); err != nil {
			return err
		}
		var err error
		if seen[d.Path], err = v.host.createLeaf(ctx, leaves[d.Path], d.Frozen); err != nil {
			return errors.Join(err, v.removeGarbage())
		}
	}
	err := v.commit(func(r *vmRecord) {
		r.Garbage = nil
		for _, d := range s.Disks {
			record := r.disk(d.Path)
			r.Garbage = append(r.Garbage, record.Leaf)
			record.Leaf, record.Seen = leaves[d.Path], seen[d.Path]
			if !v.has(troubleTrackingKept) {
				record.Tracking = nil
			}
		}
		r.Current = s.ID
	})
	v.dropBitmaps()
	if err := errors.Join(err, v.removeGarbage(), v.writeTree()); err != nil || s.Config.State != stateSaved {
		return err
	}
	return v.takeMemory(ctx, s)
}

// takeMemory makes the VM a saved one with the memory of a checkpoint.
func (v *vm) takeMemory(ctx context.Context, s *snapshotRecord) error {
	memory, err := os.ReadFile(filepath.Join(v.dir, snapshotFolder, s.Config.runtimeFile(s.ID)))
	if err == nil {
		err = writeFile(filepath.Join(v.dir, machineFolder, v.config.runtimeFile(v.record.ID)), memory)
	}
	if err != nil {
		return err
	}
	return v.edit(ctx, func(c *vmConfig) error { c.State = stateSaved; return nil })
}

// createLeaf makes an empty differencing file, and tells by what it is known again.
func (h *Host) createLeaf(ctx context.Context, path, parent string) (known seal, err error) {
	below, err := openMember(ctx, h.files, parent)
	if err != nil {
		return seal{}, err
	}
	f, err := h.files.Create(ctx, path)
	if err != nil {
		return seal{}, errors.Join(err, below.close())
	}
	ref, info := parentRef(path, below), below.vhdx.Info()
	_, err = vhdx.Create(f, vhdx.Options{
		VirtualSize: info.VirtualSize, LogicalSectorSize: info.LogicalSectorSize, PhysicalSectorSize: info.PhysicalSectorSize,
		VirtualDiskID: info.VirtualDiskID, Parent: &ref,
	})
	if err := errors.Join(err, f.Close(), below.close()); err != nil {
		return seal{}, err
	}
	leaf, err := openMember(ctx, h.files, path)
	if err != nil {
		return seal{}, err
	}
	made := leaf.vhdx.Info()
	return seal{DataWriteID: made.DataWriteID, FileWriteID: made.FileWriteID}, leaf.close()
}

// clearSnapshotState drops the saved state of a checkpoint: the VM that is made of it boots.
func (c call) clearSnapshotState() (wmi.Result, error) {
	v, s, code := c.snapshot("SnapshotSettingData", opOther)
	if code != codeDone {
		return refuse(code)
	}
	return c.job(jobTypeClearState, v, nil, func(context.Context) ([]string, error) {
		if err := v.commit(func(*vmRecord) { s.Config.State = stateOff }); err != nil {
			return nil, err
		}
		return nil, v.writeSnapshotFiles(s)
	})
}

// Types of CreateReferencePoint. The class says 2 of what the method calls 1.
const referencePointRCT = 1

// createReferencePoint marks a moment that nobody can read.
func (c call) createReferencePoint() (wmi.Result, error) {
	c.host.mu.Lock()
	target, ok := c.object("AffectedSystem")
	if !ok || !target.isVM() || target.vm.planned || c.in["ReferencePointType"] != int64(referencePointRCT) {
		c.host.mu.Unlock()
		return refuse(codeInvalidParameter)
	}
	v := target.vm
	code := v.claim(opOther)
	c.host.mu.Unlock()
	if code != codeDone {
		return refuse(code)
	}
	return c.job(jobTypeCreateReference, v, nil, func(ctx context.Context) ([]string, error) {
		s, err := v.createSnapshot(ctx, typeRecoverySnapshot, v.config.Name, consistencyCrash)
		if err != nil {
			return nil, err
		}
		p := v.referencePointOf(s)
		if err := v.removeSnapshots([]*snapshotRecord{s}, p); err != nil {
			return nil, err
		}
		return []string{c.host.path("Msvm_VirtualSystemReferencePoint", map[string]any{"InstanceID": p.ID, "VirtualSystemIdentifier": v.record.ID})}, nil
	})
}

// diskChanges is QueryChangesVirtualDisk for clients on other hosts.
func (c call) diskChanges() (wmi.Result, error) {
	path, _ := c.in["Path"].(string)
	id, _ := c.in["LimitId"].(string)
	offset, _ := c.in["ByteOffset"].(int64)
	length, _ := c.in["ByteLength"].(int64)
	if c.in["TargetSnapshotId"] != nil && c.in["TargetSnapshotId"] != "" { // only VHD sets have them
		return refuse(codeInvalidParameter)
	}
	changed, processed, err := diskService{c.host}.Changes(c.host.ctx, path, id, extent.Extent{Offset: offset, Length: length})
	switch {
	case errors.Is(err, virtdisk.ErrFileNotFound), errors.Is(err, virtdisk.ErrInUse):
		return refuse(codeFileNotFound)
	case err != nil:
		c.host.log.Info("changes of a disk were refused", "path", path, "error", err)
		return refuse(codeFailed)
	}
	offsets, lengths := []int64{}, []int64{}
	for _, e := range changed {
		offsets, lengths = append(offsets, e.Offset), append(lengths, e.Length)
	}
	return wmi.Result{Out: map[string]any{"ProcessedByteLength": processed, "ChangedByteOffsets": offsets, "ChangedByteLengths": lengths}}, nil
}
