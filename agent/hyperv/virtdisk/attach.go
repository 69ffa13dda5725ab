package virtdisk

import (
	"context"
	"io"
)

// Attacher shows the content of disks through the host's own storage stack, which knows every format and log that Hyper-V does. It is safe for
// concurrent use.
type Attacher interface {
	// Attach attaches the disk file at path, with its chain, for reading (AttachVirtualDisk with READ_ONLY). The attachment goes when the content is closed,
	// or with the process. ErrInUse when someone else has it attached, or a running VM writes it; ErrAccessDenied; ErrFileNotFound;
	// ErrNotVirtualDisk; an *Error with CodeLimitation where the file system rules it out.
	Attach(ctx context.Context, path string, way Way) (Content, error)
}

// Way is how an attached disk is read.
type Way string

// The ways.
const (
	// ByHandle reads the handle of the virtual disk; the host sees no disk (NO_LOCAL_HOST).
	ByHandle Way = "Handle"
	// AsDisk reads \\.\PhysicalDriveN; the disk shows up on the host, without drive letters (NO_DRIVE_LETTER).
	AsDisk Way = "Disk"
)

// Content is what the guest sees of an attached disk. Reads may start and end at any byte and run side by side. Closing it detaches the disk; a second
// call does nothing.
type Content interface {
	io.ReaderAt
	io.Closer
	// Size is the virtual size in bytes.
	Size() int64
}
