package vhdx

import (
	"fmt"
	"io"
	"maps"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// Kind is how a file allocates its blocks.
type Kind string

const (
	// Fixed files have all blocks allocated.
	Fixed Kind = "Fixed"
	// Dynamic files allocate a block when it is first written.
	Dynamic Kind = "Dynamic"
	// Differencing files hold what differs from a parent.
	Differencing Kind = "Differencing"
)

// File is one member of a chain. It is safe for concurrent use, also while the Writer that it belongs to changes it.
type File struct {
	r      io.ReaderAt // with the log replayed
	size   atomic.Int64
	head   atomic.Pointer[header]
	slot   int // of the current header
	layout layout
	meta   metadata
	parent atomic.Pointer[locator]
	dirty  *overlay // nil when there was no log to replay
	tables *pageCache
	maker  string

	scanOnce sync.Once
	scanned  usage
	scanErr  error
}

// Open reads the tables of a file of size bytes. It reads a few hundred KiB at most, except for a log, which it replays in memory. Errors wrap
// ErrCorrupt or ErrUnsupported, or are those of r. The file keeps using r.
func Open(r io.ReaderAt, size int64) (*File, error) {
	maker, err := identify(r, size)
	if err != nil {
		return nil, err
	}
	head, slot, err := readHeader(r)
	if err != nil {
		return nil, err
	}
	f := &File{r: r, slot: slot, maker: maker}
	f.head.Store(&head)
	if head.logID != uuid.Nil {
		if f.dirty, err = replay(r, size, head); err != nil {
			return nil, err
		}
		f.r, size = f.dirty, f.dirty.size
	}
	f.size.Store(size)
	if f.layout, err = readLayout(f.r, size, head); err != nil {
		return nil, err
	}
	if f.meta, err = readMetadata(f.r, f.layout.metadata); err != nil {
		return nil, err
	}
	f.parent.Store(&f.meta.locator)
	if need := f.meta.batEntries() * batEntrySize; need > f.layout.bat.Length {
		return nil, corruptf("its block allocation table has %d bytes; its virtual disk needs %d", f.layout.bat.Length, need)
	}
	f.tables = newPageCache(f.r)
	return f, nil
}

// identify tells a VHDX file from other files and returns the name of the program that made it.
func identify(r io.ReaderAt, size int64) (string, error) {
	var start, end [512]byte
	if err := readFull(r, start[:min(size, 512)], identifierOffset); err != nil {
		return "", err
	}
	if size >= 1024 {
		if err := readFull(r, end[:], size-512); err != nil {
			return "", err
		}
	}
	switch {
	case size > maxFileSize:
		return "", unsupportedf("it has %d bytes; at most 128 TiB are read", size)
	case string(start[:8]) == "conectix", string(start[:8]) == "cxsparse", string(end[:8]) == "conectix":
		return "", unsupportedf("it is a VHD (version 1); convert it to VHDX with Convert-VHD")
	case string(start[:8]) != "vhdxfile":
		return "", unsupportedf("it is no VHDX: it does not start with the signature \"vhdxfile\"")
	case size < headerAreaSize:
		return "", corruptf("it has only %d bytes; the headers alone take 1 MiB", size)
	}
	maker, _, _ := strings.Cut(decodeUTF16(start[8:]), "\x00")
	return maker, nil
}

// VirtualSize is the size in bytes of the disk that the guest sees.
func (f *File) VirtualSize() int64 { return f.meta.virtualSize }

// BlockSize is the unit of allocation in bytes.
func (f *File) BlockSize() int64 { return f.meta.blockSize }

// LogicalSectorSize is 512 or 4096. All members of a chain have the same.
func (f *File) LogicalSectorSize() int64 { return f.meta.sectorSize }

// PhysicalSectorSize is 512 or 4096. It is advice for the guest only.
func (f *File) PhysicalSectorSize() int64 { return f.meta.physicalSector }

// Kind says how the file allocates its blocks.
func (f *File) Kind() Kind { return f.meta.kind }

// VirtualDiskID is the identity of the virtual disk. All members of a chain have the same.
func (f *File) VirtualDiskID() uuid.UUID { return f.meta.virtualDiskID }

// DataWriteID changes whenever the guest's data changed since the file was last opened for writing. Children name it.
func (f *File) DataWriteID() uuid.UUID { return f.head.Load().dataWriteID }

// HasDirtyLog says whether the file was not closed in an orderly way, so that its log was replayed.
func (f *File) HasDirtyLog() bool { return f.dirty != nil }

// Locator returns the entries of the parent locator of a differencing file, by keys such as KeyRelativePath. They are what the file claims
// and are never followed by this package. It is empty for other kinds.
func (f *File) Locator() map[string]string { return maps.Clone(map[string]string(*f.parent.Load())) }

// ParentLinkage is the DataWriteID that the parent of a differencing file must have, or uuid.Nil for other kinds.
func (f *File) ParentLinkage() uuid.UUID {
	id, err := uuid.Parse((*f.parent.Load())[KeyParentLinkage])
	if err != nil {
		return uuid.Nil
	}
	return id
}

// IsChildOf says whether the file names this parent, by its regular linkage or by the second one of a merge.
func (f *File) IsChildOf(parent *File) bool { return f.parent.Load().accepts(parent.DataWriteID()) }

// Info describes a file to people.
type Info struct {
	Kind               Kind
	VirtualSize        int64
	FileSize           int64
	BlockSize          int64
	LogicalSectorSize  int64
	PhysicalSectorSize int64
	VirtualDiskID      uuid.UUID
	DataWriteID        uuid.UUID
	FileWriteID        uuid.UUID
	Creator            string
	DirtyLog           bool
	LogLength          int64
	Locator            map[string]string
}

// Info returns what the headers and the metadata of the file say at this moment.
func (f *File) Info() Info {
	head := f.head.Load()
	return Info{
		Kind:               f.meta.kind,
		VirtualSize:        f.meta.virtualSize,
		FileSize:           f.size.Load(),
		BlockSize:          f.meta.blockSize,
		LogicalSectorSize:  f.meta.sectorSize,
		PhysicalSectorSize: f.meta.physicalSector,
		VirtualDiskID:      f.meta.virtualDiskID,
		DataWriteID:        head.dataWriteID,
		FileWriteID:        head.fileWriteID,
		Creator:            f.maker,
		DirtyLog:           f.HasDirtyLog(),
		LogLength:          head.logLength,
		Locator:            f.Locator(),
	}
}

// String names the file in errors.
func (f *File) String() string {
	return fmt.Sprintf("%s disk %s of %d bytes", strings.ToLower(string(f.meta.kind)), f.meta.virtualDiskID, f.meta.virtualSize)
}

// Present streams what this member itself holds of window, data and explicit zeros alike: what its parent's bytes do not show through.
func (f *File) Present(window extent.Extent) extent.Seq {
	return stream(func(emit func(extent.Extent) error) error {
		return f.walk(window, func(s segment) error {
			if s.kind == absent {
				return nil
			}
			return emit(s.Extent)
		})
	})
}
