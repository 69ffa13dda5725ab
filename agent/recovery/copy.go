package recovery

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

const (
	// window is what one worker copies at a time, piece what it reads and writes at once: enough leaves that those that lie together in the repository are
	// fetched together.
	window = image.SegmentSize
	piece  = 8 << 20
	// holeSize is the smallest run of zeros that is left out.
	holeSize = 64 << 10
	// checkpointBytes is how much is written between two checkpoints, and about what a crash costs.
	checkpointBytes = 512 << 20
)

// Copy fills an empty disk from an image. The zero value of a field means its default.
type Copy struct {
	// Source and Target are the disk in the image and the one to fill. Needed.
	Source *image.DiskReader
	Target Target
	// Finished is what the target holds durably already, as Checkpoint was told. The rest of the target is empty or holds bytes of the same image.
	Finished extent.List
	// Checkpoint is told now and then, by one caller at a time, what the target holds durably. An error ends the copy.
	Checkpoint func(finished extent.List) error
	// Written counts the bytes that are behind the copy, those of Finished included.
	Written *atomic.Int64
	// Parallelism is how many windows are copied at once. Default: one per CPU.
	Parallelism int

	every int64 // between checkpoints

	mu       sync.Mutex // over what follows
	finished extent.List
	since    int64 // bytes written since the last checkpoint
	saving   bool
}

// Run copies everything that is not finished. When it returns nil, all of the disk was written, and is durable once the target is closed. ErrDamaged of
// package image names the disk and the place that cannot be restored.
func (c *Copy) Run(ctx context.Context) error {
	c.finished = c.Finished
	if c.Written == nil {
		c.Written = &atomic.Int64{}
	}
	if c.every == 0 {
		c.every = checkpointBytes
	}
	if c.Parallelism <= 0 {
		c.Parallelism = runtime.GOMAXPROCS(0)
	}
	if err := c.countFinished(); err != nil {
		return err
	}
	group, working := errgroup.WithContext(ctx)
	group.SetLimit(c.Parallelism)
	whole := extent.List{{Length: c.Source.Size()}}
	for _, open := range whole.Subtract(c.Finished) {
		for at := open.Offset; at < open.End() && working.Err() == nil; {
			end := min(at/window*window+window, open.End())
			part := extent.Extent{Offset: at, Length: end - at}
			group.Go(func() error { return c.window(working, part) })
			at = end
		}
	}
	err := errors.Join(group.Wait(), context.Cause(ctx))
	if err != nil && c.Checkpoint != nil && c.Target.Sync() == nil {
		_ = c.Checkpoint(c.finished) // a copy that is stopped in good order loses little; the error that counts is returned
	}
	return err
}

// countFinished counts what an earlier copy wrote, so that progress goes on where it was.
func (c *Copy) countFinished() error {
	for _, part := range c.Finished {
		data, err := extent.Covered(c.Source.Data(part), 1, c.Source.Size())
		if err != nil {
			return err
		}
		c.Written.Add(data)
	}
	return nil
}

var buffers = sync.Pool{New: func() any { b := make([]byte, piece); return &b }}

func (c *Copy) window(ctx context.Context, part extent.Extent) error {
	var written int64
	buffer := *buffers.Get().(*[]byte)
	defer buffers.Put(&buffer)
	for data, err := range c.Source.Data(part) {
		if err != nil {
			return err
		}
		for at := data.Offset; at < data.End(); {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			filled := buffer[:min(piece-at%piece, data.End()-at)]
			if _, err := c.Source.ReadAt(filled, at); err != nil {
				return err
			}
			if err := writeData(c.Target, filled, at); err != nil {
				return err
			}
			at += int64(len(filled))
			written += int64(len(filled))
			c.Written.Add(int64(len(filled)))
		}
	}
	return c.done(part, written)
}

// done notes a finished window, and makes a checkpoint when one is due and nobody else is about it.
func (c *Copy) done(part extent.Extent, written int64) error {
	c.mu.Lock()
	c.finished = extent.Normalize(append(c.finished, part))
	c.since += written
	if c.Checkpoint == nil || c.saving || c.since < c.every {
		c.mu.Unlock()
		return nil
	}
	c.saving, c.since = true, 0
	finished := c.finished
	c.mu.Unlock()
	err := c.Target.Sync()
	if err == nil {
		err = c.Checkpoint(finished)
	}
	c.mu.Lock()
	c.saving = false
	c.mu.Unlock()
	return err
}

var hole = make([]byte, holeSize)

// writeData writes what is not zero, in runs. What is left out reads as zeros, because the disk was empty.
func writeData(target Target, filled []byte, at int64) error {
	start := -1 // of the present run
	flush := func(end int) error {
		if start < 0 {
			return nil
		}
		_, err := target.WriteAt(filled[start:end], at+int64(start))
		start = -1
		return err
	}
	for offset := 0; offset < len(filled); offset += holeSize {
		part := filled[offset:min(offset+holeSize, len(filled))]
		switch zero := bytes.Equal(part, hole[:len(part)]); {
		case zero:
			if err := flush(offset); err != nil {
				return err
			}
		case start < 0:
			start = offset
		}
	}
	return flush(len(filled))
}
