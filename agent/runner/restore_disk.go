package runner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

const (
	// restoreBlockSize is the unit in which a restored disk grows: small, so that it is as sparse as its source was.
	restoreBlockSize = 2 << 20
	// restoreWindow is what one worker restores at a time, restorePiece what it reads and writes at once.
	restoreWindow = image.SegmentSize
	restorePiece  = image.LeafSize
	// holeSize is the smallest run of zeros that is left out.
	holeSize = 64 << 10
)

// restoredDisk is one disk on its way from the image to a file on the host.
type restoredDisk struct {
	record image.DiskRecord
	source *image.DiskReader
	path   string    // on the host
	id     uuid.UUID // the virtual disk id that it gets
}

// needs is the most that the file can take, in bytes: every block that any data falls into.
func (d *restoredDisk) needs() (data, file int64, err error) {
	whole := extent.Extent{Length: d.source.Size()}
	if data, err = bytesOf(d.source.Data(whole), 1, whole.Length); err != nil {
		return 0, 0, err
	}
	if file, err = bytesOf(d.source.Data(whole), restoreBlockSize, whole.Length); err != nil {
		return 0, 0, err
	}
	const tables = 8 << 20 // headers, log and metadata; the table of blocks has 8 bytes for each
	return data, file + tables + whole.Length/restoreBlockSize*8, nil
}

// write makes the file and fills it. Every chunk was verified when it was read. done counts the bytes that are behind it.
func (d *restoredDisk) write(ctx context.Context, files hostfs.FS, done *atomic.Int64) (err error) {
	file, err := files.Create(ctx, d.path)
	if err != nil {
		return fmt.Errorf("create %s: %w", d.path, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	size, err := vhdx.Create(file, vhdx.Options{
		VirtualSize: d.record.Size, BlockSize: restoreBlockSize, VirtualDiskID: d.id,
		LogicalSectorSize: int64(d.record.LogicalSectorSize), PhysicalSectorSize: int64(d.record.PhysicalSectorSize),
	})
	if err != nil {
		return fmt.Errorf("create %s: %w", d.path, err)
	}
	disk, err := vhdx.OpenWriter(file, size, nil)
	if err != nil {
		return fmt.Errorf("open %s: %w", d.path, err)
	}
	if err := d.copyAll(ctx, disk, done); err != nil {
		return fmt.Errorf("write %s: %w", d.path, errors.Join(err, disk.Close()))
	}
	return disk.Close()
}

// copyAll copies the data in parallel, in windows that workers take in turn.
func (d *restoredDisk) copyAll(ctx context.Context, disk *vhdx.Writer, done *atomic.Int64) error {
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for at := int64(0); at < d.record.Size && working.Err() == nil; at += restoreWindow {
		window := extent.Extent{Offset: at, Length: min(restoreWindow, d.record.Size-at)}
		group.Go(func() error { return d.copyWindow(working, disk, window, done) })
	}
	return errors.Join(group.Wait(), context.Cause(ctx))
}

func (d *restoredDisk) copyWindow(ctx context.Context, disk *vhdx.Writer, window extent.Extent, done *atomic.Int64) error {
	var buffer []byte
	for data, err := range d.source.Data(window) {
		if err != nil {
			return err
		}
		if buffer == nil {
			buffer = make([]byte, restorePiece)
		}
		for at := data.Offset; at < data.End(); {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			piece := buffer[:min(restorePiece, data.End()-at)]
			if _, err := d.source.ReadAt(piece, at); err != nil {
				return err
			}
			if err := writeData(disk, piece, at); err != nil {
				return err
			}
			at += int64(len(piece))
			done.Add(int64(len(piece)))
		}
	}
	return nil
}

var hole = make([]byte, holeSize)

// writeData writes what is not zero, in runs. The file is new, so what is left out reads as zeros.
func writeData(disk *vhdx.Writer, piece []byte, at int64) error {
	start := -1 // of the present run
	flush := func(end int) error {
		if start < 0 {
			return nil
		}
		_, err := disk.WriteAt(piece[start:end], at+int64(start))
		start = -1
		return err
	}
	for offset := 0; offset < len(piece); offset += holeSize {
		part := piece[offset:min(offset+holeSize, len(piece))]
		switch zero := bytes.Equal(part, hole[:len(part)]); {
		case zero:
			if err := flush(offset); err != nil {
				return err
			}
		case start < 0:
			start = offset
		}
	}
	return flush(len(piece))
}
