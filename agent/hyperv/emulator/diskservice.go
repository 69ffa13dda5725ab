package emulator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync/atomic"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/tracking"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// maxRanges is how many extents one call returns, as callers of QueryChangesVirtualDisk usually ask for.
const maxRanges = 4096

// diskService is the host's virtual-disk calls.
type diskService struct{ host *Host }

var (
	_ virtdisk.Service  = diskService{}
	_ virtdisk.Attacher = diskService{}
)

// diskUse is how a disk file belongs to a VM.
type diskUse struct {
	vm     *vm
	path   string // diskRecord.Path
	leaf   bool   // the guest writes it, when the VM runs
	frozen bool   // a checkpoint shows it
	seal   int64  // of that checkpoint
}

// use finds the VM that a file belongs to.
func (h *Host) use(path string) (diskUse, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.vms {
		if v.record == nil || v.planned {
			continue
		}
		for _, s := range v.record.Snapshots {
			for _, d := range s.Disks {
				if strings.EqualFold(d.Frozen, path) {
					return diskUse{vm: v, path: d.Path, frozen: true, seal: d.Seal}, true
				}
			}
		}
		for _, d := range v.record.Disks {
			if strings.EqualFold(d.Leaf, path) || strings.EqualFold(d.Path, path) {
				return diskUse{vm: v, path: d.Path, leaf: strings.EqualFold(d.Leaf, path)}, true
			}
		}
	}
	return diskUse{}, false
}

// Info implements virtdisk.Service.
func (s diskService) Info(ctx context.Context, path string) (info virtdisk.Info, err error) {
	d, err := s.host.OpenVirtualDisk(ctx, path, DiskInfo)
	if err != nil {
		return virtdisk.Info{}, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.Information(ctx)
}

// EnableChangeTracking implements virtdisk.Service.
func (s diskService) EnableChangeTracking(ctx context.Context, path string) (err error) {
	d, err := s.host.OpenVirtualDisk(ctx, path, DiskWrite)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return d.EnableChangeTracking(ctx)
}

// Changes implements virtdisk.Service.
func (s diskService) Changes(ctx context.Context, path, trackingID string, window extent.Extent) (c []extent.Extent, processed int64, err error) {
	d, err := s.host.OpenVirtualDisk(ctx, path, DiskInfo)
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	c, processed, err = d.QueryChanges(ctx, trackingID, window, maxRanges)
	if err != nil && virtdisk.Code(err) == virtdisk.CodeMoreData {
		err = nil // the caller asks on behind what it got
	}
	return c, processed, err
}

// Attach implements virtdisk.Attacher. The content is read straight from the chain.
func (s diskService) Attach(ctx context.Context, path string, way virtdisk.Way) (virtdisk.Content, error) {
	d, err := s.host.attach(ctx, path, way, func(*DiskHandle) error { return nil })
	if err != nil {
		return nil, err
	}
	disk, err := d.chain.disk()
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return &attachedDisk{Disk: disk, handle: d}, nil
}

// attachedDisk is the content of a disk that this process attached.
type attachedDisk struct {
	*vhdx.Disk
	handle *DiskHandle
	closed atomic.Bool
}

// Close implements virtdisk.Content.
func (a *attachedDisk) Close() error {
	if a.closed.Swap(true) {
		return nil
	}
	return a.handle.end()
}

func (s diskService) info(ctx context.Context, path string) (virtdisk.Info, error) {
	m, err := s.open(ctx, path)
	if err != nil {
		return virtdisk.Info{}, err
	}
	defer func() { _ = m.close() }() // read only
	v := m.vhdx.Info()
	info := virtdisk.Info{
		VirtualSize: v.VirtualSize, FileSize: v.FileSize, SectorSize: v.LogicalSectorSize, PhysicalSectorSize: v.PhysicalSectorSize,
		BlockSize: v.BlockSize, DiskID: strings.ToUpper(v.VirtualDiskID.String()),
		ParentPath: parentPath(s.host.Mapping(), path, m.vhdx),
	}
	if use, ok := s.host.use(path); ok {
		s.host.mu.Lock()
		defer s.host.mu.Unlock()
		if d := use.vm.record.disk(use.path); d != nil && d.Tracking != nil && d.Tracking.Enabled {
			info.TrackingEnabled = true
			info.MostRecentID = d.Tracking.trackingID(d.Tracking.Epoch)
		}
	}
	return info, nil
}

func (s diskService) open(ctx context.Context, path string) (*member, error) {
	m, err := openMember(ctx, s.host.files, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %s", virtdisk.ErrFileNotFound, path)
	case errors.Is(err, vhdx.ErrCorrupt), errors.Is(err, vhdx.ErrUnsupported):
		return nil, fmt.Errorf("%w: %w", virtdisk.ErrNotVirtualDisk, err)
	}
	return m, err
}

func (s diskService) track(ctx context.Context, path string) error {
	m, err := s.open(ctx, path)
	if err != nil {
		return err
	}
	if err := m.close(); err != nil {
		return err
	}
	use, ok := s.host.use(path)
	if !ok || use.frozen || !use.leaf {
		return fmt.Errorf("%w: %s is no disk that a VM writes", virtdisk.ErrTrackingUnsupported, path)
	}
	use.vm.op.Lock()
	defer use.vm.op.Unlock()
	if !use.vm.tracks() {
		return fmt.Errorf("%w: neither in this version of Windows nor of the virtual machine", virtdisk.ErrTrackingUnsupported)
	}
	return use.vm.enableTracking(ctx, use.path)
}

func (s diskService) changes(ctx context.Context, path, trackingID string, window extent.Extent, n int) ([]extent.Extent, int64, error) {
	m, err := s.open(ctx, path)
	if err != nil {
		return nil, 0, err
	}
	size := m.vhdx.VirtualSize()
	seen, err := m.stat()
	info := m.vhdx.Info()
	if err := errors.Join(err, m.close()); err != nil {
		return nil, 0, err
	}
	if window.Offset < 0 || window.Length <= 0 || window.Offset >= size {
		return nil, 0, fmt.Errorf("the range %v lies outside of the disk of %d bytes", window, size)
	}
	if !s.host.config.backsUpByWMI() {
		return nil, 0, virtdisk.ErrTrackingUnsupported // virtdisk.dll lacks QueryChangesVirtualDisk
	}
	use, ok := s.host.use(path)
	if !ok {
		return nil, 0, fmt.Errorf("%w: %s belongs to no VM of this host", virtdisk.ErrTrackingLost, path)
	}
	bitmaps, err := s.host.bitmapsSince(use, trackingID, func(r *diskRecord) bool { return r.Seen.matches(info, seen) })
	if err != nil {
		return nil, 0, err
	}
	return readChanges(bitmaps, size, window, n)
}

// readChanges opens the bitmaps and joins them.
func readChanges(paths []string, size int64, window extent.Extent, n int) (changed []extent.Extent, processed int64, err error) {
	var open []*tracking.Bitmap
	defer func() {
		for _, b := range open {
			err = errors.Join(err, b.Close())
		}
	}()
	for _, path := range paths {
		b, err := tracking.Open(path, size)
		if errors.Is(err, tracking.ErrLost) {
			return nil, 0, fmt.Errorf("%w: %w", virtdisk.ErrTrackingLost, err)
		}
		if err != nil {
			return nil, 0, err
		}
		open = append(open, b)
	}
	return tracking.Union(open, window.Clip(extent.Extent{Length: size}), n)
}

// bitmapsSince lists the bitmaps of the epochs between the moment of an id and that of a file. unchanged tells of a leaf whether nobody wrote it.
func (h *Host) bitmapsSince(use diskUse, id string, unchanged func(*diskRecord) bool) ([]string, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d := use.vm.record.disk(use.path)
	if d == nil || d.Tracking == nil {
		return nil, fmt.Errorf("%w: change tracking is off for %s", virtdisk.ErrTrackingLost, use.path)
	}
	t := d.Tracking
	from, to := t.sealOf(id), use.seal
	if use.leaf {
		if use.vm.running {
			return nil, fmt.Errorf("%w: the VM runs; ask for the file that a checkpoint froze", virtdisk.ErrInUse)
		}
		to = t.Epoch + 1 // the open epoch counts too
		if !unchanged(d) {
			return nil, fmt.Errorf("%w: someone else wrote %s", virtdisk.ErrTrackingLost, use.path)
		}
	}
	switch {
	case from == 0 || !use.vm.record.keeps(id, d):
		return nil, fmt.Errorf("%w: %s has no such id %q", virtdisk.ErrTrackingLost, use.path, id)
	case to < from:
		return nil, fmt.Errorf("%w: the file is older than the id %q", virtdisk.ErrTrackingLost, id)
	}
	var paths []string
	for epoch := from; epoch < to; epoch++ {
		paths = append(paths, use.vm.bitmapPath(t, epoch))
	}
	return paths, nil
}

// keeps says whether something still asks for a tracking id: a reference point, or a checkpoint that may become one.
func (r *vmRecord) keeps(id string, d *diskRecord) bool {
	for _, p := range r.ReferencePoints {
		for _, pd := range p.Disks {
			if strings.EqualFold(pd.TrackingID, id) {
				return true
			}
		}
	}
	for _, s := range r.Snapshots {
		if sd := s.disk(d.Path); sd != nil && sd.Seal != 0 && strings.EqualFold(d.Tracking.trackingID(sd.Seal), id) {
			return true
		}
	}
	return false
}

// enableTracking starts change tracking of a disk. The caller holds op.
func (v *vm) enableTracking(ctx context.Context, path string) error {
	var target *disk
	for _, d := range v.disks {
		if d.path == path {
			target = d
		}
	}
	if target == nil || v.problem != nil {
		return fmt.Errorf("%w: the VM of %s cannot be used", virtdisk.ErrInUse, path)
	}
	if err := target.acquire(ctx); err != nil {
		return err
	}
	err := target.track()
	return errors.Join(err, target.release())
}

// track starts the first epoch, if there is none.
func (d *disk) track() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.vm.record.disk(d.path)
	if r.Tracking != nil {
		return d.vm.commit(func(*vmRecord) { r.Tracking.Enabled = true })
	}
	t, bitmap, err := d.vm.newEpoch(nil, r.Size)
	if err != nil {
		return err
	}
	t.Enabled = true
	if err := d.vm.commit(func(*vmRecord) { r.Tracking = t }); err != nil {
		return errors.Join(err, bitmap.Close())
	}
	d.bitmap = bitmap
	return nil
}
