package recovery

import (
	"bytes"
	"context"
	"errors"
	"io"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

// rewriteSize is the unit in which a leaf that differs is written: what is equal within it stays.
const rewriteSize = 64 << 10

// Existing is a disk that holds something already.
type Existing interface {
	io.ReaderAt
	io.WriterAt
	// Data streams the extents within window that may hold something else than zeros.
	Data(window extent.Extent) extent.Seq
	// Zero makes a range read as zeros.
	Zero(offset, length int64) error
}

// Rollback makes a disk equal to that of an image by writing what differs. What is equal is read and hashed, and neither fetched nor written. A rollback
// that was interrupted is simply run again.
type Rollback struct {
	// Source and Target are the disk in the image and the one to change, of the same size. Needed.
	Source *image.DiskReader
	Target Existing
	// Parallelism is how many windows are compared at once. Default: one per CPU.
	Parallelism int

	// Compared are the bytes of the disk that are behind the rollback, Rewritten those that differed.
	Compared, Rewritten atomic.Int64
}

// Run compares and writes all of the disk. When it returns nil the disk is equal to that of the image, and durable once it is synced.
func (r *Rollback) Run(ctx context.Context) error {
	if r.Parallelism <= 0 {
		r.Parallelism = runtime.GOMAXPROCS(0)
	}
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(r.Parallelism)
	whole := extent.Extent{Length: r.Source.Size()}
	for at := int64(0); at < whole.Length && working.Err() == nil; at += piece {
		part := extent.Extent{Offset: at, Length: piece}.Clip(whole)
		group.Go(func() error {
			if err := working.Err(); err != nil {
				return context.Cause(working)
			}
			err := r.piece(part)
			r.Compared.Add(part.Length)
			return err
		})
	}
	return errors.Join(group.Wait(), context.Cause(ctx))
}

// piece makes one piece of the disk equal. What neither side has data for is not looked at.
func (r *Rollback) piece(part extent.Extent) error {
	empty, err := isEmpty(r.Target.Data(part))
	if err != nil {
		return err
	}
	if empty {
		if empty, err = isEmpty(r.Source.Data(part)); empty || err != nil {
			return err
		}
	}
	present := *buffers.Get().(*[]byte)
	defer buffers.Put(&present)
	present = present[:part.Length:piece]
	if _, err := r.Target.ReadAt(present, part.Offset); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	differing, err := r.Source.Differing(present, part.Offset)
	if err != nil || len(differing) == 0 {
		return err
	}
	wanted := *buffers.Get().(*[]byte)
	defer buffers.Put(&wanted)
	for _, e := range differing {
		into := wanted[:e.Length]
		if _, err := r.Source.ReadAt(into, e.Offset); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err := r.rewrite(present[e.Offset-part.Offset:][:e.Length], into, e.Offset); err != nil {
			return err
		}
	}
	return nil
}

func isEmpty(s extent.Seq) (bool, error) {
	for _, err := range s {
		return false, err
	}
	return true, nil
}

// rewrite writes the runs of units in which two buffers differ.
func (r *Rollback) rewrite(present, wanted []byte, at int64) error {
	for start := 0; start < len(wanted); {
		end := min(start+rewriteSize, len(wanted))
		if bytes.Equal(present[start:end], wanted[start:end]) {
			start = end
			continue
		}
		zero := isZero(wanted[start:end])
		for end < len(wanted) {
			next := min(end+rewriteSize, len(wanted))
			if bytes.Equal(present[end:next], wanted[end:next]) || isZero(wanted[end:next]) != zero {
				break
			}
			end = next
		}
		if err := r.write(wanted[start:end], zero, at+int64(start)); err != nil {
			return err
		}
		start = end
	}
	return nil
}

func (r *Rollback) write(p []byte, zero bool, at int64) error {
	r.Rewritten.Add(int64(len(p)))
	if zero {
		return r.Target.Zero(at, int64(len(p)))
	}
	_, err := r.Target.WriteAt(p, at)
	return err
}

func isZero(p []byte) bool { return bytes.Equal(p, hole[:len(p)]) }
