package shim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
)

// disks is virtdisk.dll for one process. A HANDLE is one of a file that the emulated host made; its calls name the file. Besides what the host refuses, this
// side knows the rules of the functions' parameters, in the words of Microsoft's documentation of them.
type disks struct {
	host *emulator.Host

	mu      sync.Mutex
	handles map[string]diskHandle // by the name of the file
}

// diskHandle is a handle with what its process may do with it.
type diskHandle struct {
	*emulator.DiskHandle
	rights uint32 // of a handle that was opened with version 1
}

// What OpenVirtualDisk takes (virtdisk.h).
const (
	openVersion1 = 1
	openVersion2 = 2

	accessAttachRO = 0x00010000
	accessGetInfo  = 0x00080000
	accessMetaOps  = 0x00200000
	accessDetach   = 0x00040000
	accessAll      = 0x003f0000

	attachReadOnly    = 0x1
	attachPermanent   = 0x4
	attachNoLocalHost = 0x8
)

func newDisks(host *emulator.Host) process {
	return &disks{host: host, handles: make(map[string]diskHandle)}
}

// call implements process.
func (d *disks) call(ctx context.Context, function string, args []any) (uint32, []any) {
	results, err := d.run(ctx, function, &arguments{left: args})
	code := virtdisk.Code(err)
	d.host.Usage().Count(function, code)
	return code, results
}

// exit implements process: Windows closes the handles of a process that ends.
func (d *disks) exit() {
	for _, h := range d.handles {
		_ = h.Close() // nobody is left to hear of it
	}
}

func (d *disks) run(ctx context.Context, function string, args *arguments) ([]any, error) {
	if function == "OpenVirtualDisk" {
		return d.open(ctx, args)
	}
	name := next[string](args)
	if _, err := d.host.DiskHandle(name); err != nil {
		return nil, err // it was closed, or never was one
	}
	d.mu.Lock()
	h, mine := d.handles[name]
	d.mu.Unlock()
	if !mine {
		return nil, refused(function, virtdisk.CodeInvalidHandle)
	}
	switch function {
	case "AttachVirtualDisk":
		return nil, h.attach(ctx, next[uint32](args), args)
	case "DetachVirtualDisk":
		return nil, h.detach(args)
	case "GetVirtualDiskPhysicalPath":
		path, err := h.PhysicalPath()
		return []any{path}, errors.Join(err, args.err)
	case "GetVirtualDiskInformation":
		return h.information(ctx, next[uint32](args), args)
	case "SetVirtualDiskInformation":
		return nil, h.setInformation(ctx, next[uint32](args), next[bool](args), args)
	case "QueryChangesVirtualDisk":
		return h.queryChanges(ctx, args)
	}
	return nil, refused(function, virtdisk.CodeProcNotFound)
}

func refused(function string, code uint32) error {
	return &virtdisk.Error{Function: function, Code: code}
}

// open returns the Windows path of the file whose HANDLE is to be the disk's.
func (d *disks) open(ctx context.Context, args *arguments) ([]any, error) {
	path, version, mask := next[string](args), next[uint32](args), next[uint32](args)
	infoOnly, readOnly := next[bool](args), next[bool](args)
	access := emulator.DiskWrite
	switch {
	case args.err != nil:
		return nil, args.err
	case version == openVersion1 && mask != 0 && mask&^accessAll == 0:
		if mask&(accessMetaOps) == 0 {
			access = emulator.DiskRead
		}
		if mask&^accessGetInfo == 0 {
			access = emulator.DiskInfo
		}
	case version == openVersion2 && mask == 0: // version 2 takes VIRTUAL_DISK_ACCESS_NONE alone
		if infoOnly {
			access = emulator.DiskInfo
		} else if readOnly {
			access = emulator.DiskRead
		}
		mask = accessAll
	default:
		return nil, refused("OpenVirtualDisk", virtdisk.CodeInvalidParameter)
	}
	h, err := d.host.OpenVirtualDisk(ctx, path, access)
	if err != nil {
		return nil, err
	}
	file, err := h.Place()
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.handles[file[strings.LastIndexByte(file, '\\')+1:]] = diskHandle{DiskHandle: h, rights: mask}
	return []any{file}, nil
}

func (h diskHandle) attach(ctx context.Context, flags uint32, args *arguments) error {
	const function = "AttachVirtualDisk"
	switch {
	case args.err != nil:
		return args.err
	case h.rights&accessAttachRO == 0:
		return refused(function, virtdisk.CodeAccessDenied)
	case flags&attachReadOnly == 0, flags&attachPermanent != 0: // the emulated host writes no attached disk, and keeps none
		return refused(function, virtdisk.CodeNotSupported)
	case flags&attachNoLocalHost != 0:
		return h.Attach(ctx, virtdisk.ByHandle)
	}
	return h.Attach(ctx, virtdisk.AsDisk)
}

func (h diskHandle) detach(args *arguments) error {
	if h.rights&accessDetach == 0 {
		return refused("DetachVirtualDisk", virtdisk.CodeAccessDenied)
	}
	return errors.Join(args.err, h.Detach())
}

// information answers the values of one version of GET_VIRTUAL_DISK_INFO, in the order of its fields.
func (h diskHandle) information(ctx context.Context, version uint32, args *arguments) ([]any, error) {
	const function = "GetVirtualDiskInformation"
	if args.err != nil {
		return nil, args.err
	}
	if h.rights&accessGetInfo == 0 {
		return nil, refused(function, virtdisk.CodeAccessDenied)
	}
	info, err := h.Information(ctx)
	if err != nil {
		return nil, err
	}
	switch version {
	case 1: // SIZE
		return []any{uint64(info.VirtualSize), uint64(info.FileSize), uint32(info.BlockSize), uint32(info.SectorSize)}, nil
	case 3: // PARENT_LOCATION
		if info.ParentPath == "" {
			return nil, refused(function, virtdisk.CodeInvalidType)
		}
		return []any{true, info.ParentPath}, nil
	case 10: // VHD_PHYSICAL_SECTOR_SIZE
		return []any{uint32(info.PhysicalSectorSize)}, nil
	case 14: // VIRTUAL_DISK_ID
		id, err := uuid.Parse(info.DiskID)
		return []any{guid(id)}, err
	case 15: // CHANGE_TRACKING_STATE
		return []any{info.TrackingEnabled, false, info.MostRecentID}, nil
	}
	return nil, refused(function, virtdisk.CodeNotSupported)
}

// guid is the layout of a GUID in memory: its first three fields are little-endian numbers.
func guid(id uuid.UUID) []byte {
	out := binary.LittleEndian.AppendUint32(nil, binary.BigEndian.Uint32(id[0:]))
	out = binary.LittleEndian.AppendUint16(out, binary.BigEndian.Uint16(id[4:]))
	out = binary.LittleEndian.AppendUint16(out, binary.BigEndian.Uint16(id[6:]))
	return append(out, id[8:]...)
}

func (h diskHandle) setInformation(ctx context.Context, version uint32, enabled bool, args *arguments) error {
	const function = "SetVirtualDiskInformation"
	switch {
	case args.err != nil:
		return args.err
	case version != 6 || !enabled: // CHANGE_TRACKING_STATE; nobody here switches it off
		return refused(function, virtdisk.CodeNotSupported)
	case h.rights&accessMetaOps == 0:
		return refused(function, virtdisk.CodeAccessDenied)
	}
	return h.EnableChangeTracking(ctx)
}

// queryChanges answers the ranges, 16 bytes each, and the processed length.
func (h diskHandle) queryChanges(ctx context.Context, args *arguments) ([]any, error) {
	id, offset, length, room := next[string](args), next[uint64](args), next[uint64](args), next[uint32](args)
	if args.err != nil {
		return nil, args.err
	}
	if room == 0 || offset > 1<<62 || length > 1<<62 {
		return nil, refused("QueryChangesVirtualDisk", virtdisk.CodeInvalidParameter)
	}
	changed, processed, err := h.QueryChanges(ctx, id, extent.Extent{Offset: int64(offset), Length: int64(length)}, int(room))
	if err != nil && virtdisk.Code(err) != virtdisk.CodeMoreData { // which comes with an answer
		return nil, err
	}
	ranges := make([]byte, 0, 16*len(changed))
	for _, e := range changed {
		ranges = binary.LittleEndian.AppendUint64(ranges, uint64(e.Offset))
		ranges = binary.LittleEndian.AppendUint64(ranges, uint64(e.Length))
	}
	return []any{ranges, uint64(processed)}, err
}

// arguments are taken one after the other; the first that is missing, or of another type, is kept as an error.
type arguments struct {
	left []any
	err  error
}

func next[T any](a *arguments) T {
	var zero T
	if len(a.left) == 0 {
		a.err = errors.Join(a.err, fmt.Errorf("%w: an argument is missing", errMalformed))
		return zero
	}
	v, ok := a.left[0].(T)
	if !ok {
		a.err = errors.Join(a.err, fmt.Errorf("%w: an argument is a %T, not a %T", errMalformed, a.left[0], zero))
	}
	a.left = a.left[1:]
	return v
}
