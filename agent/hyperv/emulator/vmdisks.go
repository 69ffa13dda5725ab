package emulator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// served tells a disk whose file is the host's. Who else writes a shared disk is not known, and no file server is modelled: their files are never opened.
func (d diskConfig) served() bool { return d.Path != "" && !d.Shared && !d.remote() }

// remote tells a disk on a file server.
func (d diskConfig) remote() bool { return strings.HasPrefix(d.Path, `\\`) }

// adoptDisks brings the record and the open disks in line with the disks of a new vm.yaml. The caller holds op.
func (v *vm) adoptDisks(ctx context.Context, config vmConfig) error {
	var paths []string
	for _, d := range config.Disks {
		if d.served() {
			paths = append(paths, v.diskPath(d))
		}
	}
	if err := errors.Join(v.checkDetached(paths), v.checkNotTaken(paths)); err != nil {
		return err
	}
	records := make([]*diskRecord, 0, len(paths))
	for _, path := range paths {
		r, err := v.inspectDisk(ctx, path)
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	if !slices.EqualFunc(v.disks, paths, func(d *disk, path string) bool { return d.path == path }) {
		if err := v.stop(); err != nil { // the sockets change; the caller starts the VM again
			return err
		}
	}
	if err := v.commit(func(r *vmRecord) { r.Disks = records }); err != nil {
		return err
	}
	disks := make([]*disk, 0, len(paths))
	for _, path := range paths {
		disks = append(disks, v.diskOrNew(path))
	}
	v.host.mu.Lock()
	defer v.host.mu.Unlock()
	v.disks = disks
	return nil
}

// checkDetached refuses to lose a disk that a checkpoint or a merge needs.
func (v *vm) checkDetached(paths []string) error {
	for _, r := range v.record.Disks {
		if slices.Contains(paths, r.Path) {
			continue
		}
		for _, s := range v.record.Snapshots {
			if s.disk(r.Path) != nil {
				return fmt.Errorf("vm.yaml lacks the disk %s, which the checkpoint %q needs; put it back and remove the checkpoint first", r.Path, s.Name)
			}
		}
		for _, m := range v.record.Merges {
			if m.Disk == r.Path {
				return fmt.Errorf("vm.yaml lacks the disk %s, whose checkpoint is still being merged; put it back until that is done", r.Path)
			}
		}
	}
	return nil
}

// checkNotTaken refuses a disk file that another VM writes: both would destroy it.
func (v *vm) checkNotTaken(paths []string) error {
	v.host.mu.Lock()
	defer v.host.mu.Unlock()
	for _, other := range v.host.vms {
		if other == v || other.record == nil || other.planned {
			continue
		}
		for _, taken := range other.record.diskFiles() {
			if slices.ContainsFunc(paths, func(path string) bool { return strings.EqualFold(path, taken) }) {
				return fmt.Errorf("the disk %s belongs to the VM in folder %s; mark it as shared in both, or give this VM a copy", taken, other.folder)
			}
		}
	}
	return nil
}

// inspectDisk opens the chain of a disk once, so that a disk that cannot work is known before the guest starts.
func (v *vm) inspectDisk(ctx context.Context, path string) (*diskRecord, error) {
	known := v.record.disk(path)
	if d := v.openDisk(path); d != nil {
		_, err := v.host.files.Stat(ctx, known.Leaf) // somebody may have deleted it under us
		return known, err
	}
	record := &diskRecord{Path: path, Leaf: path}
	if known != nil {
		record = known
	}
	c, err := openChain(ctx, v.host.files, record.Leaf)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.close() }() // read only
	info := c[0].vhdx.Info()
	if known == nil {
		record.DiskID, record.Size = info.VirtualDiskID, info.VirtualSize
	}
	return record, nil
}

// openDisk finds a disk whose files are open.
func (v *vm) openDisk(path string) *disk {
	for _, d := range v.disks {
		if d.path == path && d.users > 0 {
			return d
		}
	}
	return nil
}

func (v *vm) diskOrNew(path string) *disk {
	for _, d := range v.disks {
		if d.path == path {
			return d
		}
	}
	return &disk{vm: v, path: path}
}

// removeGarbage deletes the files that an interrupted operation left. They are recorded before they are made, so nothing is guessed. The caller
// holds op.
func (v *vm) removeGarbage() error {
	if len(v.record.Garbage) == 0 {
		return nil
	}
	for _, path := range v.record.Garbage {
		if err := v.host.files.Remove(context.Background(), path); err != nil {
			return err
		}
	}
	return v.commit(func(r *vmRecord) { r.Garbage = nil })
}

// bitmapPath is the change tracking file of an epoch.
func (v *vm) bitmapPath(t *trackingRecord, epoch int64) string {
	return filepath.Join(v.dir, privateFolder, "rct", fmt.Sprintf("%s.%08x", t.ID, epoch))
}

// dropBitmaps deletes the change tracking files that no disk needs any more. The caller holds op.
func (v *vm) dropBitmaps() {
	needed := make(map[string]bool)
	for _, r := range v.record.Disks {
		if t := r.Tracking; t != nil {
			for epoch := t.Oldest; epoch <= t.Epoch; epoch++ {
				needed[v.bitmapPath(t, epoch)] = true
			}
		}
	}
	folder := filepath.Join(v.dir, privateFolder, "rct")
	entries, err := os.ReadDir(folder)
	for _, e := range entries {
		if path := filepath.Join(folder, e.Name()); !needed[path] {
			err = errors.Join(err, os.Remove(path))
		}
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		v.host.log.Warn("cannot delete old change tracking files", "vm", v.folder, "error", err)
	}
}

// trackingID is the text form of a seal's id, as virtdisk.dll has it.
func (t *trackingRecord) trackingID(seal int64) string {
	return fmt.Sprintf("rctX:%s:%08x", strings.ReplaceAll(t.ID.String(), "-", ":"), seal)
}

// sealOf is the reverse of trackingID: zero for an id of another tracking.
func (t *trackingRecord) sealOf(id string) int64 {
	var seal int64
	for n := t.Oldest; n <= t.Epoch; n++ {
		if strings.EqualFold(t.trackingID(n), id) {
			seal = n
		}
	}
	return seal
}
