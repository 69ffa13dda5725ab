//go:build windows

package win32

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/Microsoft/go-winio/vhd"
	"golang.org/x/sys/windows"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
)

// Service implements virtdisk.Service and virtdisk.Attacher. It holds nothing, and is safe for concurrent use.
type Service struct{}

var (
	_ virtdisk.Service  = Service{}
	_ virtdisk.Attacher = Service{}
)

// open opens a disk file with version 2 of the parameters, which take no access mask.
func open(ctx context.Context, path string, parameters vhd.OpenVersion2) (windows.Handle, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	handle, err := vhd.OpenVirtualDiskWithParameters(extended(path), vhd.VirtualDiskAccessNone, vhd.OpenVirtualDiskFlagNone,
		&vhd.OpenVirtualDiskParameters{Version: 2, Version2: parameters})
	return windows.Handle(handle), failed("OpenVirtualDisk", err)
}

// close closes a handle when a function ends, and keeps its error.
func closeHandle(handle windows.Handle, err *error) {
	if failure := windows.CloseHandle(handle); failure != nil {
		*err = errors.Join(*err, failed("CloseHandle", failure))
	}
}

// longPath is the length from which Win32 needs its prefix (MAX_PATH without room for a short file name).
const longPath = 248

// extended writes a long path as the Win32 functions take it. WMI wants it plain.
func extended(path string) string {
	if len(path) < longPath || strings.HasPrefix(path, `\\`) {
		return path
	}
	return `\\?\` + path
}

// failed turns the error of a function, however go-winio wrapped it, into the seam's.
func failed(function string, err error) error {
	if err == nil {
		return nil
	}
	if code, ok := errors.AsType[syscall.Errno](err); ok {
		return &virtdisk.Error{Function: function, Code: uint32(code)}
	}
	return fmt.Errorf("%s: %w", function, err)
}

// Info implements virtdisk.Service.
func (Service) Info(ctx context.Context, path string) (info virtdisk.Info, err error) {
	handle, err := open(ctx, path, vhd.OpenVersion2{GetInfoOnly: true, ReadOnly: true})
	if err != nil {
		return virtdisk.Info{}, err
	}
	defer closeHandle(handle, &err)
	return information(handle)
}

// EnableChangeTracking implements virtdisk.Service.
func (Service) EnableChangeTracking(ctx context.Context, path string) (err error) {
	if err := procSetInformation.need(); err != nil {
		return err
	}
	handle, err := open(ctx, path, vhd.OpenVersion2{})
	if err != nil {
		return err
	}
	defer closeHandle(handle, &err)
	return enableChangeTracking(handle)
}

// Changes implements virtdisk.Service. The frozen file is opened for reading, as those do who are known to work with it.
func (Service) Changes(ctx context.Context, path, id string, window extent.Extent) (changed []extent.Extent, processed int64, err error) {
	if err := procQueryChanges.need(); err != nil {
		return nil, 0, err
	}
	handle, err := open(ctx, path, vhd.OpenVersion2{ReadOnly: true})
	if err != nil {
		return nil, 0, err
	}
	defer closeHandle(handle, &err)
	return queryChanges(handle, id, window)
}
