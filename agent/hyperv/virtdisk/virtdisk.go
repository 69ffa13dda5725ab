// Package virtdisk is the seam to the host's virtual-disk calls (virtdisk.dll): what a disk file is, what changed in it, and what it holds where
// agent/vhdx cannot tell.
package virtdisk

import (
	"context"
	"errors"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// Service is the virtual-disk calls of one host. Paths are Windows paths. It is safe for concurrent use.
type Service interface {
	// Info opens a disk file for information only, which also works for the disk that a running VM writes
	// (GetVirtualDiskInformation versions 1, 3, 10, 14 and 15). ErrFileNotFound, ErrNotVirtualDisk.
	Info(ctx context.Context, path string) (Info, error)

	// EnableChangeTracking switches RCT on for a disk; a second call does nothing (SetVirtualDiskInformation version 6).
	// ErrTrackingUnsupported for a format without RCT; ErrInUse or ErrAccessDenied where the host holds the file of a running VM.
	EnableChangeTracking(ctx context.Context, path string) error

	// Changes returns what changed within window between the moment that trackingID was sealed and the state that the file at path holds
	// (QueryChangesVirtualDisk). The file is the frozen one of a checkpoint, never the one that is being written. Extents are in guest
	// bytes, ascending, and cover [window.Offset, window.Offset+processed); processed is above zero, and the caller goes on behind it.
	// ErrTrackingLost when the id cannot be resolved: the only right answer to that is a full read.
	Changes(ctx context.Context, path, trackingID string, window extent.Extent) (changed []extent.Extent, processed int64, err error)
}

// Info describes a disk file.
type Info struct {
	// VirtualSize is the guest's size of the disk, FileSize that of the file, in bytes.
	VirtualSize int64 `json:"virtualSize"`
	FileSize    int64 `json:"fileSize"`
	// SectorSize is the logical sector size in bytes, PhysicalSectorSize that of the disk that the guest believes to have, BlockSize the unit in which the
	// file grows.
	SectorSize         int64 `json:"sectorSize"`
	PhysicalSectorSize int64 `json:"physicalSectorSize,omitempty"`
	BlockSize          int64 `json:"blockSize,omitempty"`
	// DiskID is the virtual disk id, which all members of a chain share and which survives checkpoints. A copy by hand has the same id.
	DiskID string `json:"diskID"`
	// ParentPath is the absolute path of the parent of a differencing disk, as the host resolves it, else "".
	ParentPath string `json:"parentPath,omitempty"`
	// TrackingEnabled says that RCT follows the writes; MostRecentID is the last sealed tracking id, "" when there is none.
	TrackingEnabled bool   `json:"trackingEnabled"`
	MostRecentID    string `json:"mostRecentID,omitempty"`
}

// What the calls can answer. The Win32 codes stand for the same on a Windows host.
var (
	ErrFileNotFound        = errors.New("no such virtual disk file")
	ErrNotVirtualDisk      = errors.New("not a virtual disk that Hyper-V can open")
	ErrInUse               = errors.New("the virtual disk is in use")
	ErrAccessDenied        = errors.New("access denied")
	ErrLimitation          = errors.New("the host's storage cannot use the file: it is compressed, encrypted or sparse, or lies on an unsuitable share")
	ErrTrackingUnsupported = errors.New("the disk format has no change tracking")
	// ErrTrackingLost is 0xC03A0029 (unknown id), 0xC03A002A (tracking off) or 0xC03A0030 (tracking files lost).
	ErrTrackingLost = errors.New("the change tracking id cannot be resolved")
	ErrDisconnected = errors.New("the virtual-disk service is not reachable")
)
