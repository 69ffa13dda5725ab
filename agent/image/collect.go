package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/repo/maintenancestats"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"
)

// collection marks as deleted what nothing needs, and takes such marks back from what is needed. It stands in for kopia's own snapshot garbage
// collection, which looks through every chunk of every snapshot again, and keeps to its rules and its place in the schedule: kopia drops what was
// marked only after two successful collections that lie four hours apart, so a mark that raced with a backup is taken back before it counts.
type collection struct {
	writer  repo.DirectRepositoryWriter
	chunks  *chunks
	needing func(context.Context, map[content.ID]bool) ([]Verification, error)
	opts    Options
	reach   *reach
	started time.Time // by the clock of the storage
	minAge  time.Duration
	looked  *atomic.Int64
	stats   maintenancestats.SnapshotGCStats
	names   sortedBucket
}

// run walks from the roots and sweeps. When something that is needed could not be read, it deletes nothing, for what lies beneath that is not known:
// ErrDamaged says so.
func (c *collection) run(ctx context.Context, roots []root) error {
	if err := c.mark(ctx, roots); err != nil {
		return err
	}
	every := content.IterateOptions{IncludeDeleted: true}
	err := c.writer.ContentReader().IterateContents(ctx, every, func(info content.Info) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		c.looked.Add(int64(info.PackedLength))
		return c.sweep(ctx, info)
	})
	if err == nil {
		err = c.writer.Flush(ctx)
	}
	if err != nil {
		return fmt.Errorf("mark what is not needed: %w", err)
	}
	if c.reach.damages > 0 {
		return fmt.Errorf("%d parts of images cannot be read, so nothing is freed until those images are deleted, or repaired by a backup: %w: %w",
			c.reach.damages, ErrDamaged, c.reach.damage)
	}
	return nil
}

// mark walks from the roots. When something was hidden and is brought back, it walks again, for that may be a list that names more.
func (c *collection) mark(ctx context.Context, roots []root) error {
	for {
		c.reach = newReach(c.writer, c.opts)
		if err := c.reach.walk(ctx, roots); err != nil {
			return fmt.Errorf("look for what is needed: %w", err)
		}
		regained, err := c.regain(ctx)
		if err != nil || regained == 0 {
			return err
		}
		if err := c.reach.close(); err != nil {
			return err
		}
	}
}

// sweep judges one content.
func (c *collection) sweep(ctx context.Context, info content.Info) error {
	size := int64(info.PackedLength)
	if info.ContentID.Prefix() == manifest.ContentPrefix {
		c.stats.InUseSystemContentCount++
		c.stats.InUseSystemContentSize += size
		return nil
	}
	needed, err := c.needed(info.ContentID)
	switch {
	case err != nil:
		return err
	case needed && info.Deleted:
		return c.recover(ctx, info)
	case needed:
		c.stats.InUseContentCount++
		c.stats.InUseContentSize += size
	case c.started.Sub(info.Timestamp()) < c.minAge:
		c.stats.UnreferencedRecentContentCount++
		c.stats.UnreferencedRecentContentSize += size
	default:
		c.stats.UnreferencedContentCount++
		c.stats.UnreferencedContentSize += size
		return c.discard(ctx, info)
	}
	return nil
}

// recover stores a content anew that is marked as deleted and needed.
func (c *collection) recover(ctx context.Context, info content.Info) error {
	err := c.writer.ContentManager().UndeleteContent(ctx, info.ContentID)
	if passing(err) {
		return err
	}
	if err != nil {
		c.reach.note(fmt.Errorf("content %s: %w", info.ContentID, err))
		return nil
	}
	c.stats.RecoveredContentCount++
	c.stats.RecoveredContentSize += int64(info.PackedLength)
	return nil
}

// discard marks a content as deleted.
func (c *collection) discard(ctx context.Context, info content.Info) error {
	if info.Deleted || c.reach.damages > 0 {
		return nil
	}
	if err := c.writer.ContentManager().DeleteContent(ctx, info.ContentID); err != nil {
		return err
	}
	c.stats.DeletedContentCount++
	c.stats.DeletedContentSize += int64(info.PackedLength)
	if c.stats.DeletedContentCount%flushContents == 0 {
		return c.writer.Flush(ctx)
	}
	return nil
}

// sortedBucket is the bucket of names that was asked last. Contents come in the order of their ids, so each is read once.
type sortedBucket struct {
	set   *nameSet
	first byte
	names []name
}

func (c *collection) needed(id content.ID) (bool, error) {
	n, err := nameOfContent(id)
	if errors.Is(err, errOtherHash) {
		return true, nil // not one of ours
	}
	if set := c.reach.of(id); c.names.set != set || c.names.first != n[nameHash] {
		names, err := set.bucket(n[nameHash])
		if err != nil {
			return false, err
		}
		c.names = sortedBucket{set: set, first: n[nameHash], names: names}
	}
	_, found := slices.BinarySearchFunc(c.names.names, n, name.compare)
	return found, nil
}

// roots are all things that are needed: the images that have a marker, what unfinished ones have reserved, and every snapshot, be it that of an image whose marker cannot be read, or one
// that somebody made with stock kopia.
func roots(ctx context.Context, r repo.RepositoryWriter, images []marker, now time.Time) ([]root, error) {
	all, err := reserved(ctx, r, now)
	if err != nil {
		return nil, err
	}
	for _, image := range images {
		all = append(all, root{kindOf(image.Root), image.Root.ObjectID})
	}
	ids, err := snapshot.ListSnapshotManifests(ctx, r, nil, nil)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		saved, err := snapshot.LoadSnapshot(ctx, r, id)
		if err != nil {
			return nil, damaged(err, "read snapshot %s", id)
		}
		if saved.RootEntry != nil {
			all = append(all, root{kindOf(saved.RootEntry), saved.RootEntry.ObjectID})
		}
	}
	return all, nil
}

// collect is one collection, recorded in kopia's schedule. images must have been listed before the index was last refreshed: of those, everything is
// known then.
func (r *Repository) collect(
	ctx context.Context, w repo.DirectRepositoryWriter, images []marker, run maintenance.RunParameters, opts MaintainOptions,
) (found maintenancestats.SnapshotGCStats, err error) {
	c := &collection{
		writer: w, chunks: r.chunks, needing: r.needing, opts: r.opts, started: run.MaintenanceStartTime, looked: opts.Looked,
		minAge: opts.safety().MinContentAgeSubjectToGC,
	}
	defer func() {
		if c.reach != nil {
			err = errors.Join(err, c.reach.close())
		}
	}()
	err = maintenance.ReportRun(ctx, w, maintenance.TaskSnapshotGarbageCollection, nil, func() (maintenancestats.Kind, error) {
		start, err := roots(ctx, w, images, r.opts.Now())
		if err == nil {
			err = c.run(ctx, start)
		}
		return &c.stats, err
	})
	return c.stats, err
}
