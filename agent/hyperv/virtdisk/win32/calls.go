//go:build windows

package win32

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
)

// library has the functions that go-winio lacks.
var library = windows.NewLazySystemDLL("virtdisk.dll")

var (
	procGetInformation = function{library.NewProc("GetVirtualDiskInformation")}
	procSetInformation = function{library.NewProc("SetVirtualDiskInformation")}
	procQueryChanges   = function{library.NewProc("QueryChangesVirtualDisk")}
)

// function is one that returns a Win32 error, and that an old Windows may lack.
type function struct{ *windows.LazyProc }

// need says whether this Windows has the function.
func (f function) need() error {
	if err := f.Find(); err != nil {
		return fmt.Errorf("%w: this Windows has no %s; change tracking needs Windows Server 2016 or later", virtdisk.ErrTrackingUnsupported, f.Name)
	}
	return nil
}

// call returns nil for ERROR_SUCCESS. What the arguments point to stays where it is until then.
//
//go:uintptrescapes
func (f function) call(args ...uintptr) error {
	if err := f.Find(); err != nil {
		return &virtdisk.Error{Function: f.Name, Code: virtdisk.CodeProcNotFound}
	}
	if code, _, _ := syscall.SyscallN(f.Addr(), args...); uint32(code) != 0 {
		return &virtdisk.Error{Function: f.Name, Code: uint32(code)}
	}
	return nil
}

// Versions of GET_VIRTUAL_DISK_INFO and SET_VIRTUAL_DISK_INFO (virtdisk.h).
const (
	getSize                = 1
	getParentLocation      = 3
	getPhysicalSectorSize  = 10
	getVirtualDiskID       = 14
	getChangeTrackingState = 15

	setChangeTrackingState = 6
)

// The structures have a version and, 8 bytes in, a union. Text begins behind the fixed fields.
const (
	union              = 8
	parentLocationText = union + 4 // BOOL ParentResolved
	trackingStateText  = union + 8 // BOOL Enabled, NewerChanges
)

// firstInfoSize holds most answers; longer paths make the function say how much it needs.
const firstInfoSize = 1024

// get calls GetVirtualDiskInformation and returns the filled structure.
func get(handle windows.Handle, version uint32) ([]byte, error) {
	for size := uint32(firstInfoSize); ; {
		buffer := make([]uint64, (size+7)/8) // the structure holds 64-bit numbers
		bytes := unsafe.Slice((*byte)(unsafe.Pointer(&buffer[0])), len(buffer)*8)
		binary.LittleEndian.PutUint32(bytes, version)
		had := uint32(len(bytes))
		size = had
		err := procGetInformation.call(uintptr(handle), uintptr(unsafe.Pointer(&size)), uintptr(unsafe.Pointer(&buffer[0])), 0)
		if err != nil && virtdisk.Code(err) == virtdisk.CodeInsufficientBuffer && size > had {
			continue
		}
		return bytes, err
	}
}

// text reads UTF-16 up to its end mark.
func text(structure []byte, at int) string {
	var units []uint16
	for ; at+1 < len(structure); at += 2 {
		units = append(units, binary.LittleEndian.Uint16(structure[at:]))
	}
	return windows.UTF16ToString(units)
}

// information gathers what the seam tells of a disk from the versions of the structure.
func information(handle windows.Handle) (virtdisk.Info, error) {
	size, err := get(handle, getSize)
	if err != nil {
		return virtdisk.Info{}, err
	}
	le := binary.LittleEndian
	info := virtdisk.Info{
		VirtualSize: int64(le.Uint64(size[union:])), FileSize: int64(le.Uint64(size[union+8:])),
		BlockSize: int64(le.Uint32(size[union+16:])), SectorSize: int64(le.Uint32(size[union+20:])),
	}
	id, err := get(handle, getVirtualDiskID)
	if err != nil {
		return virtdisk.Info{}, err
	}
	info.DiskID = strings.Trim((*windows.GUID)(unsafe.Pointer(&id[union])).String(), "{}")
	if info.ParentPath, err = parent(handle); err != nil {
		return virtdisk.Info{}, err
	}
	sector, err := get(handle, getPhysicalSectorSize)
	if err == nil {
		info.PhysicalSectorSize = int64(le.Uint32(sector[union:]))
	} else if !unknown(err) {
		return virtdisk.Info{}, err
	}
	tracking, err := get(handle, getChangeTrackingState)
	if err == nil {
		info.TrackingEnabled, info.MostRecentID = le.Uint32(tracking[union:]) != 0, text(tracking, trackingStateText)
	} else if !unknown(err) {
		return virtdisk.Info{}, err
	}
	return info, nil
}

// unknown says that this Windows, or this format, does not tell a thing.
func unknown(err error) bool {
	code := virtdisk.Code(err)
	return code == virtdisk.CodeNotSupported || code == virtdisk.CodeInvalidParameter
}

// parent is the path of the file below a differencing disk, "" for others.
func parent(handle windows.Handle) (string, error) {
	location, err := get(handle, getParentLocation)
	if err != nil {
		if virtdisk.Code(err) == virtdisk.CodeInvalidType {
			err = nil
		}
		return "", err
	}
	path := strings.TrimPrefix(text(location, parentLocationText), `\\?\`)
	if binary.LittleEndian.Uint32(location[union:]) == 0 {
		return "", fmt.Errorf("%w: the parent, last seen at %s", virtdisk.ErrFileNotFound, path)
	}
	return path, nil
}

func enableChangeTracking(handle windows.Handle) error {
	// SET_VIRTUAL_DISK_INFO is 32 bytes long: its largest member is a GUID with a pointer.
	var structure [4]uint64
	structure[0] = setChangeTrackingState
	structure[1] = 1 // BOOL ChangeTrackingEnabled
	return procSetInformation.call(uintptr(handle), uintptr(unsafe.Pointer(&structure)))
}

// changedRange is QUERY_CHANGES_VIRTUAL_DISK_RANGE.
type changedRange struct{ offset, length, reserved uint64 }

// maxRanges is how many ranges one call has room for.
const maxRanges = 4096

func queryChanges(handle windows.Handle, id string, window extent.Extent) ([]extent.Extent, int64, error) {
	wide, err := windows.UTF16PtrFromString(id)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %q is no tracking id", virtdisk.ErrTrackingLost, id)
	}
	ranges := make([]changedRange, maxRanges)
	count, processed := uint32(len(ranges)), uint64(0)
	err = procQueryChanges.call(uintptr(handle), uintptr(unsafe.Pointer(wide)), uintptr(window.Offset), uintptr(window.Length), 0,
		uintptr(unsafe.Pointer(&ranges[0])), uintptr(unsafe.Pointer(&count)), uintptr(unsafe.Pointer(&processed)))
	if err != nil && virtdisk.Code(err) != virtdisk.CodeMoreData { // there is more behind what it processed, which the caller asks for
		return nil, 0, err
	}
	if int(count) > len(ranges) || processed > math.MaxInt64 {
		return nil, 0, errors.New("QueryChangesVirtualDisk: more ranges than there was room for")
	}
	changed := make([]extent.Extent, 0, count)
	for _, r := range ranges[:count] {
		if r.offset > math.MaxInt64 || r.length > math.MaxInt64-r.offset {
			return nil, 0, fmt.Errorf("QueryChangesVirtualDisk: a range of %d bytes at byte %d", r.length, r.offset)
		}
		changed = append(changed, extent.Extent{Offset: int64(r.offset), Length: int64(r.length)})
	}
	return changed, int64(processed), nil
}
