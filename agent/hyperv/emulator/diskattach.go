package emulator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// Attach attaches the disk for reading. The file of the handle then has the guest's bytes.
func (d *DiskHandle) Attach(ctx context.Context, way virtdisk.Way) error {
	const function = "AttachVirtualDisk"
	if err := d.host.faults.disk(function); err != nil {
		return err
	}
	if d.access == DiskInfo {
		return &virtdisk.Error{Function: function, Code: virtdisk.CodeAccessDenied}
	}
	if d.host.held(d.path, DiskRead) {
		return &virtdisk.Error{Function: function, Code: virtdisk.CodeSharingViolation}
	}
	c, err := openChain(ctx, d.host.files, d.path)
	if err != nil {
		return fmt.Errorf("%w: %w", virtdisk.ErrNotVirtualDisk, err)
	}
	t := &d.host.handles
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep()
	for _, other := range t.open {
		if other.attached != "" && strings.EqualFold(other.path, d.path) {
			return errors.Join(&virtdisk.Error{Function: function, Code: virtdisk.CodeSharingViolation}, c.close())
		}
	}
	d.chain, d.attached = c, way
	if err := d.show(ctx); err != nil {
		return errors.Join(err, d.detach())
	}
	return nil
}

// attach opens and attaches a disk with the calls that a program makes for it. prepare runs before the content is there.
func (h *Host) attach(ctx context.Context, path string, way virtdisk.Way, prepare func(*DiskHandle) error) (*DiskHandle, error) {
	d, err := h.OpenVirtualDisk(ctx, path, DiskRead)
	if err != nil {
		return nil, err
	}
	_, err = d.Information(ctx)
	if err == nil {
		err = prepare(d)
	}
	if err == nil {
		err = d.Attach(ctx, way)
	}
	if err == nil && way == virtdisk.AsDisk {
		_, err = d.PhysicalPath()
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

// end detaches and closes, as a program does that is done with an attached disk.
func (d *DiskHandle) end() error { return errors.Join(d.Detach(), d.Close()) }

// size is the virtual size of a disk that is attached.
func (d *DiskHandle) size() int64 { return d.chain[0].vhdx.VirtualSize() }

// show makes the content of an attached disk readable where other processes look for it: in the handle's file, or in that of a physical drive.
func (d *DiskHandle) show(ctx context.Context) error {
	if d.attached == virtdisk.AsDisk {
		if d.drive = d.host.handles.freeDrive(); d.drive == 0 {
			return &virtdisk.Error{Function: "AttachVirtualDisk", Code: virtdisk.CodeNotReady}
		}
	}
	if !d.placed {
		return nil
	}
	return d.fill(ctx, d.contentFile())
}

// contentFile is where the guest's bytes lie. That of a physical drive is another than the handle's: Windows shares disks in other ways than files.
func (d *DiskHandle) contentFile() string {
	if d.drive != 0 {
		return filepath.Join(filepath.Dir(d.file()), "physicaldrive"+strconv.Itoa(d.drive))
	}
	return d.file()
}

// freeDrive is the number of a physical drive that nothing is attached as, 0 when all are taken. The caller holds mu.
func (t *diskHandles) freeDrive() int {
	for n := 1; n < physicalDrives; n++ {
		taken := false
		for _, d := range t.open {
			taken = taken || d.drive == n
		}
		if !taken {
			return n
		}
	}
	return 0
}

// fill writes the guest's bytes into a file, which stays sparse.
func (d *DiskHandle) fill(ctx context.Context, path string) (err error) {
	disk, err := d.chain.disk()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(disk.Size()); err != nil {
		return err
	}
	return copyExtents(ctx, disk, f)
}

func copyExtents(ctx context.Context, disk *vhdx.Disk, to *os.File) error {
	buffer := make([]byte, 1<<20)
	for data, err := range disk.Data(extent.Extent{Length: disk.Size()}) {
		if err != nil {
			return err
		}
		for at := data.Offset; at < data.End(); {
			if err := ctx.Err(); err != nil {
				return err
			}
			part := buffer[:min(int64(len(buffer)), data.End()-at)]
			if _, err := disk.ReadAt(part, at); err != nil {
				return err
			}
			if _, err := to.WriteAt(part, at); err != nil {
				return err
			}
			at += int64(len(part))
		}
	}
	return nil
}

// Detach ends an attachment. virtdisk.CodeNotReady when there is none.
func (d *DiskHandle) Detach() error {
	const function = "DetachVirtualDisk"
	if err := d.host.faults.disk(function); err != nil {
		return err
	}
	t := &d.host.handles
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.attached == "" {
		return &virtdisk.Error{Function: function, Code: virtdisk.CodeNotReady}
	}
	return d.detach()
}

// detach does nothing when the disk is not attached. The caller holds mu.
func (d *DiskHandle) detach() error {
	if d.attached == "" {
		return nil
	}
	err := d.chain.close()
	if d.placed {
		gone := os.Truncate(d.contentFile(), 0)
		if d.drive != 0 {
			gone = os.Remove(d.contentFile())
		}
		if !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	d.chain, d.attached, d.drive = nil, "", 0
	return err
}

// PhysicalPath is GetVirtualDiskPhysicalPath, of a disk that is attached AsDisk.
func (d *DiskHandle) PhysicalPath() (string, error) {
	const function = "GetVirtualDiskPhysicalPath"
	if err := d.host.faults.disk(function); err != nil {
		return "", err
	}
	t := &d.host.handles
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.attached != virtdisk.AsDisk {
		return "", &virtdisk.Error{Function: function, Code: virtdisk.CodeNotReady}
	}
	return `\\.\PhysicalDrive` + strconv.Itoa(d.drive), nil
}
