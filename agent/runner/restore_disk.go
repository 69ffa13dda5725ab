package runner

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/recovery"
)

// restoredDisk is one disk on its way from the image to a file on the host.
type restoredDisk struct {
	record image.DiskRecord
	source *image.DiskReader
	path   string    // on the host
	id     uuid.UUID // the virtual disk id that it gets
}

// write makes the file and fills it, or goes on with what an earlier run finished of it. done counts the bytes that are behind it, and save is told what
// is durable.
func (d *restoredDisk) write(ctx context.Context, files hostfs.FS, finished extent.List, done *atomic.Int64, save func(extent.List) error) (err error) {
	file, target, finished, err := d.open(ctx, files, finished)
	if err != nil {
		return fmt.Errorf("create %s: %w", d.path, err)
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	job := recovery.Copy{Source: d.source, Target: target, Finished: finished, Written: done, Checkpoint: save}
	if err := errors.Join(job.Run(ctx), target.Close()); err != nil {
		return fmt.Errorf("write %s: %w", d.path, err)
	}
	return nil
}

// open opens the file that an earlier run began, if it is any good, or makes a new one.
func (d *restoredDisk) open(ctx context.Context, files hostfs.FS, finished extent.List) (hostfs.File, recovery.Target, extent.List, error) {
	if len(finished) > 0 {
		if file, target := d.reopen(ctx, files); file != nil {
			return file, target, finished, nil
		}
	}
	if err := files.Remove(ctx, d.path); err != nil {
		return nil, nil, nil, fmt.Errorf("remove what an earlier run wrote: %w", err)
	}
	file, err := files.Create(ctx, d.path)
	if err != nil {
		return nil, nil, nil, err
	}
	target, err := recovery.Create(file, recovery.VHDX, d.record, d.id)
	if err != nil {
		return nil, nil, nil, errors.Join(err, file.Close())
	}
	return file, target, nil, nil
}

// reopen opens what an earlier run wrote. It returns none when that cannot be gone on with.
func (d *restoredDisk) reopen(ctx context.Context, files hostfs.FS) (hostfs.File, recovery.Target) {
	file, err := files.OpenWrite(ctx, d.path)
	if err != nil {
		return nil, nil
	}
	size, err := file.Size()
	if err == nil {
		var target recovery.Target
		if target, err = recovery.Reopen(file, size, recovery.VHDX, d.record); err == nil {
			return file, target
		}
	}
	_ = file.Close() // it is made anew
	return nil, nil
}
