package emulator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// Happening is something that happens to a host once.
type Happening = wire.Happening

// happenings do what they are named after. They run with vm.op held.
var happenings = map[string]func(*vm, context.Context, Happening) error{
	"foreignCheckpoint":     (*vm).foreignCheckpoint,
	"foreignReferencePoint": (*vm).foreignReferencePoint,
	"hostCrashed":           (*vm).resetTracking,
	"trackingDisabled":      (*vm).resetTracking,
	"trackingFilesLost":     (*vm).loseTrackingFiles,
	"diskReplaced":          (*vm).rewriteDisk,
	"diskIDChanged":         (*vm).rewriteDisk,
	"diskResized":           (*vm).rewriteDisk,
	"diskConverted":         (*vm).rewriteDisk,
	"diskCompacted":         (*vm).rewriteDisk,
	"storageMigrated":       (*vm).migrateStorage,
	"movedToNode":           (*vm).moveToNode,
}

// Happen lets something happen to a VM, or to one of its disks. What can is in docs/emulator.md. It waits for what is being done to the VM.
func (f *Faults) Happen(what Happening) error {
	run, known := happenings[what.What]
	if !known {
		return fmt.Errorf("nothing is called %q", what.What)
	}
	v, err := f.host.machine(what.Machine)
	if err != nil {
		return err
	}
	v.op.Lock()
	defer v.op.Unlock()
	if v.problem != nil {
		return fmt.Errorf("the virtual machine %s cannot be used: %w", v.folder, v.problem)
	}
	if err := run(v, f.host.ctx, what); err != nil {
		return fmt.Errorf("%s of %s: %w", what.What, v.folder, err)
	}
	return nil
}

// foreignCheckpoint is what another backup product leaves while it works, or after it failed.
func (v *vm) foreignCheckpoint(ctx context.Context, _ Happening) error {
	_, err := v.createSnapshot(ctx, typeRecoverySnapshot, v.config.Name+" - Other Backup", consistencyCrash)
	return err
}

// foreignReferencePoint is what another backup product keeps, or forgot.
func (v *vm) foreignReferencePoint(ctx context.Context, _ Happening) error {
	s, err := v.createSnapshot(ctx, typeRecoverySnapshot, v.config.Name+" - Other Backup", consistencyCrash)
	if err != nil {
		return err
	}
	return v.removeSnapshots([]*snapshotRecord{s}, v.referencePointOf(s))
}

// disk finds an attached disk by its path.
func (v *vm) disk(path string) (*disk, *diskRecord, error) {
	for _, d := range v.disks {
		if d.path == path {
			return d, v.record.disk(path), nil
		}
	}
	return nil, nil, fmt.Errorf("%s is none of its disks", path)
}

// resetTracking forgets what was tracked: after a crash tracking goes on under new ids, and when another product has switched it off it does not.
func (v *vm) resetTracking(_ context.Context, what Happening) error {
	d, record, err := v.disk(what.Path)
	if err != nil {
		return err
	}
	d.mu.Lock()
	if d.bitmap != nil {
		err = d.bitmap.Close()
		d.bitmap = nil
	}
	err = errors.Join(err, v.commit(func(*vmRecord) { record.Tracking = nil }))
	v.dropBitmaps()
	inUse := d.chain != nil
	d.mu.Unlock()
	if err != nil || what.What == "trackingDisabled" || !inUse {
		return err
	}
	return d.track()
}

// loseTrackingFiles deletes the .rct and .mrt files, which Hyper-V notices when it opens the disk. So the VM is restarted.
func (v *vm) loseTrackingFiles(ctx context.Context, what Happening) error {
	_, record, err := v.disk(what.Path)
	if err != nil {
		return err
	}
	running := v.running
	err = v.stop()
	if t := record.Tracking; t != nil {
		for epoch := t.Oldest; epoch <= t.Epoch; epoch++ {
			err = errors.Join(err, os.Remove(v.bitmapPath(t, epoch)))
		}
	}
	if err == nil && running {
		err = v.start(ctx)
	}
	return err
}

var errAttached = errors.New("the disk must belong to a virtual machine that is off and has no checkpoints")

// rewriteDisk does what offline tools do to a disk file.
func (v *vm) rewriteDisk(ctx context.Context, what Happening) error {
	_, record, err := v.disk(what.Path)
	if err != nil {
		return err
	}
	if v.running || len(v.record.Snapshots)+len(v.record.Merges) > 0 {
		return errAttached
	}
	if err := v.host.rewrite(ctx, what, record.Size); err != nil {
		return err
	}
	return v.adoptDisks(ctx, v.config)
}

// rewrite makes another file of a disk file and puts it into its place.
func (h *Host) rewrite(ctx context.Context, what Happening, size int64) error {
	old, err := openMember(ctx, h.files, what.Path)
	if err != nil {
		return err
	}
	info := old.vhdx.Info()
	o := vhdx.Options{VirtualSize: size, LogicalSectorSize: info.LogicalSectorSize, PhysicalSectorSize: info.PhysicalSectorSize, VirtualDiskID: info.VirtualDiskID}
	switch what.What {
	case "diskReplaced", "diskIDChanged":
		o.VirtualDiskID = uuid.New()
	case "diskResized":
		o.VirtualSize = what.SizeBytes
	case "diskConverted":
		o.Fixed = true
	}
	from := old
	if what.What == "diskReplaced" {
		from = nil
	}
	temporary := what.Path + ".new"
	err = errors.Join(h.writeDisk(ctx, temporary, o, from), old.close())
	if err == nil {
		err = h.files.Remove(ctx, what.Path)
	}
	if err == nil {
		err = h.files.Rename(ctx, temporary, what.Path)
	}
	return err
}

// writeDisk makes a disk file with the content of another, if there is one.
func (h *Host) writeDisk(ctx context.Context, path string, o vhdx.Options, from *member) (err error) {
	f, err := h.files.Create(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := vhdx.Create(f, o)
	if err != nil || from == nil {
		return err
	}
	w, err := vhdx.OpenWriter(f, size, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	content, err := vhdx.NewDisk(from.vhdx)
	if err != nil {
		return err
	}
	for e, err := range content.Data(extent.Extent{Length: min(content.Size(), o.VirtualSize)}) {
		if err != nil {
			return err
		}
		for at := e.Offset; at < e.End(); at += mergeStep {
			p := make([]byte, min(mergeStep, e.End()-at))
			if _, err := content.ReadAt(p, at); err != nil {
				return err
			}
			if _, err := w.WriteAt(p, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// migrateStorage moves a disk file to another place, as storage migration does while the VM runs. The guest has to connect to its disk again.
func (v *vm) migrateStorage(ctx context.Context, what Happening) error {
	if _, _, err := v.disk(what.Path); err != nil {
		return err
	}
	if len(v.record.Snapshots)+len(v.record.Merges) > 0 {
		return errAttached
	}
	if err := v.stop(); err != nil {
		return err
	}
	if err := v.host.files.Rename(ctx, what.Path, what.To); err != nil {
		return err
	}
	return v.edit(ctx, func(c *vmConfig) error {
		for i, d := range c.Disks {
			if d.Path != "" && v.diskPath(d) == what.Path {
				c.Disks[i].Path = what.To
			}
		}
		return nil
	})
}

// moveToNode gives the VM to another node of its cluster.
func (v *vm) moveToNode(_ context.Context, what Happening) error {
	if v.host.cluster == nil {
		return errors.New("the host is in no cluster")
	}
	return v.host.cluster.move(filepath.Base(v.dir), what.To)
}
