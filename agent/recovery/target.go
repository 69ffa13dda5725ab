package recovery

import (
	"fmt"
	"io"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// Format is what a file holds a disk as.
type Format string

const (
	// VHDX is a dynamic VHDX file.
	VHDX Format = "vhdx"
	// Raw is the bytes of the disk and nothing else. Zeros are holes where the file system has such.
	Raw Format = "raw"
)

// blockSize is the unit in which a VHDX file grows: small, so that it is as sparse as its source was.
const blockSize = 2 << 20

// Target is a disk in a file that is open for writing. It is safe for concurrent use.
type Target interface {
	// WriteAt writes the guest's bytes. What was never written reads as zeros.
	io.WriterAt
	// Sync makes durable what was written.
	Sync() error
	// Close syncs and brings the file into its final shape. The file itself stays open.
	Close() error
}

// Create makes an empty disk in a file, of the size and with the sectors that the record names. What the file held is gone. id is the virtual disk id of a VHDX.
func Create(file vhdx.Storage, format Format, record image.DiskRecord, id uuid.UUID) (Target, error) {
	if format == Raw {
		if err := file.Truncate(0); err != nil {
			return nil, err
		}
		return raw{file}, file.Truncate(record.Size)
	}
	size, err := vhdx.Create(file, vhdx.Options{
		VirtualSize: record.Size, BlockSize: blockSize, VirtualDiskID: id,
		LogicalSectorSize: int64(record.LogicalSectorSize), PhysicalSectorSize: int64(record.PhysicalSectorSize),
	})
	if err != nil {
		return nil, err
	}
	return vhdx.OpenWriter(file, size, nil)
}

// Reopen opens a disk that Create made, in a file of so many bytes, to go on writing it.
func Reopen(file vhdx.Storage, size int64, format Format, record image.DiskRecord) (Target, error) {
	if format == Raw {
		if size != record.Size {
			return nil, fmt.Errorf("the file has %d bytes, and the disk %d", size, record.Size)
		}
		return raw{file}, nil
	}
	disk, err := vhdx.OpenWriter(file, size, nil)
	if err == nil && disk.Size() != record.Size {
		err = fmt.Errorf("the file holds a disk of %d bytes, and the image one of %d", disk.Size(), record.Size)
	}
	if err != nil {
		return nil, err
	}
	return disk, nil
}

// raw is a file that is the disk itself.
type raw struct{ vhdx.Storage }

func (r raw) Close() error { return r.Sync() }

// Needs says how many bytes a restore writes, and how many the file takes at most: every block that any data falls into.
func Needs(source *image.DiskReader, format Format) (data, file int64, err error) {
	whole := extent.Extent{Length: source.Size()}
	if data, err = extent.Covered(source.Data(whole), 1, whole.Length); err != nil || format == Raw {
		return data, data, err
	}
	if file, err = extent.Covered(source.Data(whole), blockSize, whole.Length); err != nil {
		return 0, 0, err
	}
	const tables = 8 << 20 // headers, log and metadata; the table of blocks has 8 bytes for each
	return data, file + tables + whole.Length/blockSize*8, nil
}
