//go:build windows

package win32

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"

	"github.com/Microsoft/go-winio"
	"github.com/Microsoft/go-winio/vhd"
	"golang.org/x/sys/windows"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
)

// AttachPrivilege is the privilege that AttachVirtualDisk asks for (SE_MANAGE_VOLUME_NAME).
const AttachPrivilege = "SeManageVolumePrivilege"

// Attach implements virtdisk.Attacher.
func (Service) Attach(ctx context.Context, path string, way virtdisk.Way) (_ virtdisk.Content, err error) {
	if err := winio.EnableProcessPrivileges([]string{AttachPrivilege}); err != nil {
		return nil, fmt.Errorf("%w: attaching a disk needs the privilege %s: %w", virtdisk.ErrAccessDenied, AttachPrivilege, err)
	}
	handle, err := open(ctx, path, vhd.OpenVersion2{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	a := &attached{handle: handle, reads: handle}
	if err := a.attach(way); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

var buffers = sync.Pool{New: func() any { return &transfer{alignedBuffer: newAlignedBuffer(largestRead)} }}

// attached is the content of a disk, while it is attached.
type attached struct {
	handle windows.Handle // of the virtual disk
	reads  windows.Handle // that which is read: the same, or one of the physical disk
	size   int64
	shown  bool // it has to be detached
	once   sync.Once
}

func (a *attached) attach(way virtdisk.Way) error {
	info, err := information(a.handle)
	if err != nil {
		return err
	}
	a.size = info.VirtualSize
	flags := vhd.AttachVirtualDiskFlagReadOnly | vhd.AttachVirtualDiskFlagNoLocalHost
	if way == virtdisk.AsDisk {
		flags = vhd.AttachVirtualDiskFlagReadOnly | vhd.AttachVirtualDiskFlagNoDriveLetter
	}
	err = vhd.AttachVirtualDisk(syscall.Handle(a.handle), flags, &vhd.AttachVirtualDiskParameters{Version: 1})
	a.shown = err == nil
	if err != nil || way != virtdisk.AsDisk {
		return failed("AttachVirtualDisk", err)
	}
	path, err := vhd.GetVirtualDiskPhysicalPath(syscall.Handle(a.handle))
	if err != nil {
		return failed("GetVirtualDiskPhysicalPath", err)
	}
	wide, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return err
	}
	disk, err := windows.CreateFile(wide, windows.GENERIC_READ, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_NO_BUFFERING|windows.FILE_FLAG_OVERLAPPED, 0)
	if err != nil {
		return failed("CreateFile", err)
	}
	a.reads = disk
	return nil
}

// Size implements virtdisk.Content.
func (a *attached) Size() int64 { return a.size }

// Close implements virtdisk.Content. Should detaching fail, closing the handle does it.
func (a *attached) Close() (err error) {
	a.once.Do(func() {
		if a.reads != a.handle {
			closeHandle(a.reads, &err)
		}
		if a.shown {
			err = errors.Join(err, failed("DetachVirtualDisk", vhd.DetachVirtualDisk(syscall.Handle(a.handle))))
		}
		closeHandle(a.handle, &err)
	})
	return err
}

// ReadAt implements virtdisk.Content, in whole sectors of the disk.
func (a *attached) ReadAt(p []byte, offset int64) (done int, err error) {
	if offset < 0 {
		return 0, fmt.Errorf("read an attached disk: offset %d", offset)
	}
	buffer := buffers.Get().(*transfer)
	defer buffers.Put(buffer)
	for done < len(p) && offset+int64(done) < a.size {
		part, skip := window(offset+int64(done), int64(len(p)-done), a.size)
		n, err := buffer.read(a.reads, part)
		if err != nil {
			return done, fmt.Errorf("read %d bytes at byte %d of an attached disk: %w", part.Length, part.Offset, err)
		}
		if n <= skip {
			return done, fmt.Errorf("read %d bytes at byte %d of an attached disk: %w", part.Length, part.Offset, io.ErrUnexpectedEOF)
		}
		done += copy(p[done:], buffer.bytes[skip:n])
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

// transfer is what Windows writes to while a read is under way. It lies on the heap, which Go does not move; a stack may move in the meantime.
type transfer struct {
	*alignedBuffer
	request windows.Overlapped
}

// read reads a part of a handle that is open for overlapped use. Reads of one handle do not wait for each other.
func (t *transfer) read(handle windows.Handle, part extent.Extent) (int, error) {
	event, err := windows.CreateEvent(nil, 1, 0, nil)
	if err != nil {
		return 0, failed("CreateEvent", err)
	}
	defer func() { _ = windows.CloseHandle(event) }() // it has served
	t.request = windows.Overlapped{Offset: uint32(part.Offset), OffsetHigh: uint32(part.Offset >> 32), HEvent: event}
	var n uint32
	err = windows.ReadFile(handle, t.bytes[:part.Length], nil, &t.request)
	if err == nil || errors.Is(err, windows.ERROR_IO_PENDING) {
		err = windows.GetOverlappedResult(handle, &t.request, &n, true)
	}
	if errors.Is(err, windows.ERROR_HANDLE_EOF) {
		return 0, io.ErrUnexpectedEOF
	}
	return int(n), failed("ReadFile", err)
}
