package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/repo/maintenancestats"
)

// Safety says what else may use the repository while it is maintained.
type Safety int

const (
	// SafetyFull is safe next to running backups and restores. What a deleted image leaves is freed a day or two later.
	SafetyFull Safety = iota
	// SafetyNone frees everything at once. Nothing else may have the repository open, not even to read.
	SafetyNone
)

// MaintainOptions say how thorough maintenance is.
type MaintainOptions struct {
	// Full also frees what no image uses any more, due daily. Without it only the index is kept short, due hourly.
	Full   bool
	Safety Safety
	// Looked counts the stored bytes that were judged to be needed or not, while the work goes on. May be nil.
	Looked *atomic.Int64
}

// Maintained is what a maintenance did.
type Maintained struct {
	// FreedBytes is what the storage has less now. UnusedBytes is what no image uses and waits to be freed, in what is two days old or so.
	FreedBytes, UnusedBytes int64
	// RecoveredBytes were marked as deleted although an image needs them, and are not any more.
	RecoveredBytes int64
	// IndexBlobs are left.
	IndexBlobs int
}

// Maintain keeps a repository fast and frees what deleted images leave. Two processes must never maintain one repository at the same time:
// kopia's own lock is a local file, so the caller holds a lease. Writers and readers go on meanwhile. When it is stopped, the next one starts over.
//
// ErrClock when the clocks cannot be trusted. ErrDamaged when parts of an image cannot be read: then the index was kept short, and nothing freed.
func (r *Repository) Maintain(ctx context.Context, opts MaintainOptions) (Maintained, error) {
	done, err := r.maintain(ctx, opts)
	if err != nil {
		return done, fmt.Errorf("maintain repository: %w", err)
	}
	return done, nil
}

func (r *Repository) maintain(ctx context.Context, opts MaintainOptions) (done Maintained, err error) {
	if r.opts.AppendOnly {
		return done, ErrAppendOnly
	}
	if opts.Looked == nil {
		opts.Looked = &atomic.Int64{}
	}
	if err := r.salvage(ctx); err != nil {
		return done, err
	}
	if err := r.configure(ctx); err != nil {
		return done, err
	}
	if err := r.trustClocks(ctx); err != nil {
		return done, err
	}
	if err := r.mend(ctx); err != nil {
		return done, err
	}
	// Before the index is refreshed, which RunExclusive does: an image that is published later must not count with an index that lacks it.
	images, err := r.session.markers.list(ctx, ImageFilter{})
	if err != nil {
		return done, damaged(err, "list images")
	}
	err = repo.DirectWriteSession(ctx, r.session, repo.WriteSessionOptions{Purpose: "maintain"},
		func(ctx context.Context, w repo.DirectRepositoryWriter) (err error) {
			// kopia locks a file beside that of its configuration.
			dir := filepath.Dir(w.ConfigFilename())
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return fmt.Errorf("prepare the working directory: %w", err)
			}
			defer func() { err = errors.Join(err, removeWorkDir(dir)) }()
			return maintenance.RunExclusive(ctx, w, opts.mode(), false, func(ctx context.Context, run maintenance.RunParameters) error {
				done, err = r.runMaintenance(ctx, w, images, run, opts)
				return err
			})
		})
	return done, err
}

func (o MaintainOptions) mode() maintenance.Mode {
	if o.Full {
		return maintenance.ModeFull
	}
	return maintenance.ModeQuick
}

func (o MaintainOptions) safety() maintenance.SafetyParameters {
	if o.Safety == SafetyNone {
		return maintenance.SafetyNone
	}
	return maintenance.SafetyFull
}

// runMaintenance collects and then runs kopia's own tasks: contents that were marked long ago are dropped, thin packs rewritten, packs without
// content deleted, and the index merged.
func (r *Repository) runMaintenance(
	ctx context.Context, w repo.DirectRepositoryWriter, images []marker, run maintenance.RunParameters, opts MaintainOptions,
) (done Maintained, err error) {
	var unread error
	if run.Mode == maintenance.ModeFull {
		found, err := r.collect(ctx, w, images, run, opts)
		if err != nil && !errors.Is(err, ErrDamaged) {
			return done, err
		}
		if unread = err; unread != nil {
			run.Mode = maintenance.ModeQuick
		}
		done.UnusedBytes = found.UnreferencedContentSize + found.UnreferencedRecentContentSize
		done.RecoveredBytes = found.RecoveredContentSize
	}
	err = r.tidy(ctx, w, run, opts.safety())
	if unread = errors.Join(unread, err); err != nil && !errors.Is(err, ErrDamaged) {
		return done, unread
	}
	if done.FreedBytes, err = freed(ctx, w, run.MaintenanceStartTime); err != nil {
		return done, errors.Join(err, unread)
	}
	indexes, err := w.IndexBlobs(ctx, false)
	done.IndexBlobs = len(indexes)
	return done, errors.Join(err, unread)
}

// tidy runs kopia's own tasks. The first moves contents out of thin packs, and when one cannot be read kopia stops there, in every run, with nothing
// freed. So that task is recorded as run, which it was for all others, and the rest follows. ErrDamaged says that there was such a content.
func (r *Repository) tidy(ctx context.Context, w repo.DirectRepositoryWriter, run maintenance.RunParameters, safety maintenance.SafetyParameters) error {
	err := r.blame(ctx, maintenance.Run(ctx, run, safety))
	if !errors.Is(err, ErrDamaged) || run.Mode != maintenance.ModeFull {
		return err
	}
	moved := func() (maintenancestats.Kind, error) { return nil, nil }
	if err := maintenance.ReportRun(ctx, w, maintenance.TaskRewriteContentsFull, nil, moved); err != nil {
		return err
	}
	return errors.Join(err, r.blame(ctx, maintenance.Run(ctx, run, safety)))
}

// blame tells damage from a storage that fails: of contents that kopia could not move it says no more than how many they are.
func (r *Repository) blame(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if _, failing := readFormat(ctx, r.session.store); failing != nil {
		return errors.Join(err, failing)
	}
	return damaged(err, "tidy up")
}

// freed is what kopia recorded of the deletion of packs since a time.
func freed(ctx context.Context, r repo.DirectRepository, since time.Time) (bytes int64, err error) {
	schedule, err := maintenance.GetSchedule(ctx, r)
	if err != nil {
		return 0, err
	}
	for _, run := range schedule.Runs[maintenance.TaskDeleteOrphanedBlobsFull] {
		if run.End.Before(since.Add(-maxClockDrift)) || !run.Success {
			continue
		}
		for _, extra := range run.Extra {
			found, err := maintenancestats.BuildFromExtra(extra)
			if packs, ok := found.(*maintenancestats.DeleteUnreferencedPacksStats); err == nil && ok {
				return packs.DeletedTotalSize, nil
			}
		}
	}
	return 0, nil
}
