package emulator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/tracking"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// Types of settings objects (Msvm_VirtualSystemSettingData.VirtualSystemType).
const (
	typeRealized         = "Microsoft:Hyper-V:System:Realized"
	typeSnapshot         = "Microsoft:Hyper-V:Snapshot:Realized"
	typeRecoverySnapshot = "Microsoft:Hyper-V:Snapshot:Recovery"
)

// frozenDisk is what a checkpoint prepares for one disk before it is committed.
type frozenDisk struct {
	disk     *disk
	record   *diskRecord
	child    *member
	bitmap   *tracking.Bitmap
	tracking *trackingRecord // with the new seal
}

// createSnapshot freezes all disks of the VM at one moment: the guest's writes wait until each disk has an .avhdx of its own. The checkpoint
// exists from the moment at which the record is renamed; before it, a crash leaves garbage that the record names. The caller holds op.
func (v *vm) createSnapshot(ctx context.Context, kind, name string, consistency int64) (*snapshotRecord, error) {
	s := &snapshotRecord{
		ID: newGUID(), Parent: v.record.Current, Name: name, Type: kind, Created: v.host.now().UTC(), Consistency: consistency,
		Config: v.config,
	}
	if kind == typeSnapshot && v.config.Checkpoints == checkpointsStandard && v.running { // with the memory of the guest
		s.Config.State = stateSaved
	}
	if err := v.writeSnapshotFiles(s); err != nil {
		return nil, err
	}
	opened := 0
	defer func() {
		if err := releaseAll(v.disks[:opened]); err != nil {
			v.host.log.Warn("close the disks after a checkpoint", "vm", v.folder, "error", err)
		}
	}()
	for _, d := range v.disks {
		if err := d.acquire(ctx); err != nil {
			return nil, err
		}
		opened++
	}
	for _, d := range v.disks {
		d.mu.Lock()
		defer d.mu.Unlock() // runs before the release above, which needs the lock
	}
	frozen, err := v.freeze(ctx, s)
	if err == nil {
		v.host.faults.reach(ctx, "snapshot.prepared")
		err = v.commit(func(r *vmRecord) { r.addSnapshot(s, frozen) })
	}
	if err != nil {
		return nil, errors.Join(err, v.discard(s, frozen))
	}
	v.host.faults.reach(ctx, "snapshot.committed")
	for _, f := range frozen {
		f.switchOver()
	}
	if s.ofUser() {
		err = v.writeTree()
	}
	return s, err
}

// addSnapshot is the change of the record that makes the checkpoint.
func (r *vmRecord) addSnapshot(s *snapshotRecord, frozen []*frozenDisk) {
	for _, f := range frozen {
		info := f.child.vhdx.Info()
		frozen := snapshotDisk{Path: f.record.Path, Frozen: f.record.Leaf}
		if f.tracking != nil {
			frozen.Seal = f.tracking.Epoch
		}
		s.Disks = append(s.Disks, frozen)
		f.record.Leaf, f.record.Tracking = f.child.path, f.tracking
		f.record.Seen = seal{DataWriteID: info.DataWriteID, FileWriteID: info.FileWriteID}
	}
	r.Snapshots, r.Current = append(r.Snapshots, s), s.ID
	r.Garbage = slices.DeleteFunc(r.Garbage, func(path string) bool {
		return slices.ContainsFunc(frozen, func(f *frozenDisk) bool { return f.child.path == path })
	})
}

// freeze flushes the leaves and makes their children. Every guest waits.
func (v *vm) freeze(ctx context.Context, s *snapshotRecord) ([]*frozenDisk, error) {
	var garbage []string
	for _, d := range v.disks {
		garbage = append(garbage, childPath(d.chain[0].path, s.ID))
	}
	if err := v.commit(func(r *vmRecord) { r.Garbage = append(r.Garbage, garbage...) }); err != nil {
		return nil, err
	}
	var frozen []*frozenDisk
	for i, d := range v.disks {
		d.abortMerge()
		f := &frozenDisk{disk: d, record: v.record.disk(d.path)}
		frozen = append(frozen, f)
		if err := f.prepare(ctx, garbage[i]); err != nil {
			return frozen, fmt.Errorf("freeze %s: %w", d.path, err)
		}
	}
	return frozen, nil
}

// childPath names an .avhdx as Hyper-V does: the disk's name, then the checkpoint's id.
func childPath(leaf, snapshot string) string {
	folder, name := splitPath(leaf)
	name = strings.TrimSuffix(strings.TrimSuffix(name, ".vhdx"), ".avhdx")
	if i := strings.LastIndexByte(name, '_'); i >= 0 && uuid.Validate(name[i+1:]) == nil {
		name = name[:i]
	}
	return folder + `\` + name + "_" + snapshot + ".avhdx"
}

func (f *frozenDisk) prepare(ctx context.Context, path string) error {
	leaf := f.disk.chain[0]
	if err := leaf.writer.Sync(); err != nil {
		return err
	}
	if b := f.disk.bitmap; b != nil { // the seal promises all that was written before it
		if err := b.Sync(); err != nil {
			return err
		}
	}
	if err := f.createChild(ctx, path, leaf); err != nil {
		return err
	}
	if !f.disk.vm.tracks() {
		return nil
	}
	var err error
	f.tracking, f.bitmap, err = f.disk.vm.newEpoch(f.record.Tracking, leaf.vhdx.VirtualSize())
	return err
}

// newEpoch seals the current epoch of a disk's tracking, if there is one, and starts the next.
func (v *vm) newEpoch(current *trackingRecord, size int64) (*trackingRecord, *tracking.Bitmap, error) {
	next := trackingRecord{ID: uuid.New(), Oldest: 1}
	if current != nil {
		next = *current
	}
	next.Epoch++
	file := v.bitmapPath(&next, next.Epoch)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, nil, err
	}
	b, err := tracking.Create(file, size)
	return &next, b, err
}

func (f *frozenDisk) createChild(ctx context.Context, path string, leaf *member) error {
	files := f.disk.vm.host.files
	file, err := files.Create(ctx, path)
	if err != nil {
		return err
	}
	f.child = &member{path: path, file: file}
	ref := parentRef(path, leaf)
	info := leaf.vhdx.Info()
	size, err := vhdx.Create(file, vhdx.Options{
		VirtualSize: info.VirtualSize, LogicalSectorSize: info.LogicalSectorSize, PhysicalSectorSize: info.PhysicalSectorSize,
		VirtualDiskID: info.VirtualDiskID, Parent: &ref,
	})
	if err != nil {
		return err
	}
	if f.child.writer, err = vhdx.OpenWriter(file, size, leaf.writer.Disk()); err != nil {
		return err
	}
	f.child.vhdx = f.child.writer.File()
	return f.child.mark()
}

// switchOver lets the guest write to the child. The checkpoint is committed, so nothing that fails here may undo it.
func (f *frozenDisk) switchOver() {
	d := f.disk
	if err := d.chain[0].freeze(); err != nil {
		d.vm.host.log.Warn("close a frozen disk", "disk", d.chain[0].path, "error", err)
	}
	d.chain = append(chain{f.child}, d.chain...)
	if d.bitmap != nil {
		if err := d.bitmap.Close(); err != nil {
			d.vm.host.log.Warn("close a change tracking file", "disk", d.path, "error", err)
		}
	}
	d.bitmap = f.bitmap
	if d.vm.has(troubleDirtyLog) {
		if err := d.soil(); err != nil {
			d.vm.host.log.Warn("leave a log in a frozen disk", "disk", d.chain[1].path, "error", err)
		}
	}
}

// discard removes what a checkpoint that failed has prepared.
func (v *vm) discard(s *snapshotRecord, frozen []*frozenDisk) error {
	var errs []error
	for _, f := range frozen {
		if f.child != nil {
			errs = append(errs, f.child.file.Close())
		}
		if f.bitmap != nil {
			errs = append(errs, f.bitmap.Close())
		}
	}
	v.dropBitmaps()
	return errors.Join(append(errs, v.removeGarbage(), v.removeSnapshotFiles(s))...)
}

// removeSnapshots takes checkpoints out of the record and hands their .avhdx files to the merges. With point, the last one becomes a reference
// point in the same moment. The caller holds op.
func (v *vm) removeSnapshots(snapshots []*snapshotRecord, point *referencePoint) error {
	err := v.commit(func(r *vmRecord) {
		for _, s := range snapshots {
			r.dropSnapshot(s)
		}
		if point != nil {
			r.ReferencePoints = append(r.ReferencePoints, point)
			r.LastBackup = v.host.now().UTC()
			for _, d := range r.Disks {
				if d.Tracking != nil {
					d.Tracking.Enabled = true
				}
			}
		}
		r.expireSeals()
	})
	if err != nil {
		return err
	}
	v.dropBitmaps()
	for _, s := range snapshots {
		if err := v.removeSnapshotFiles(s); err != nil {
			v.host.log.Warn("remove the files of a checkpoint", "vm", v.folder, "error", err)
		}
	}
	if err := v.removeGarbage(); err != nil {
		return err
	}
	if slices.ContainsFunc(snapshots, (*snapshotRecord).ofUser) {
		if err := v.writeTree(); err != nil {
			return err
		}
	}
	v.continueMerges()
	return nil
}

// expireSeals forgets the epochs that no reference point and no checkpoint asks for any more.
func (r *vmRecord) expireSeals() {
	for _, d := range r.Disks {
		t := d.Tracking
		if t == nil {
			continue
		}
		oldest := t.Epoch
		for _, s := range r.Snapshots {
			if sd := s.disk(d.Path); sd != nil && sd.Seal != 0 {
				oldest = min(oldest, sd.Seal)
			}
		}
		for _, p := range r.ReferencePoints {
			for _, pd := range p.Disks {
				if n := t.sealOf(pd.TrackingID); n != 0 {
					oldest = min(oldest, n)
				}
			}
		}
		t.Oldest = max(t.Oldest, oldest)
	}
}
