package image

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"
	"golang.org/x/sync/errgroup"

	"github.com/hyperkeep/hyperkeep/agent/image/internal/storage"
)

// LockMode says whom a lock stops.
type LockMode string

const (
	// Governance stops everybody but who has the special right to lift locks.
	Governance LockMode = "Governance"
	// Compliance stops everybody.
	Compliance LockMode = "Compliance"
)

// Immutability is how long, and against whom, new images are locked. The zero value locks nothing.
type Immutability struct {
	Mode   LockMode
	Period time.Duration // at least a day
}

var lockModes = map[LockMode]blob.RetentionMode{Governance: blob.Governance, Compliance: blob.Compliance}

// Protect makes the images immutable that are stored from now on. It is kept in the repository, so that everybody who adds images locks
// them, and is only ever tightened: less than is there already changes nothing. ErrNoLock where the storage cannot lock.
func (r *Repository) Protect(ctx context.Context, wanted Immutability) error {
	if err := r.protect(ctx, wanted); err != nil {
		return fmt.Errorf("make images immutable: %w", err)
	}
	return nil
}

func (r *Repository) protect(ctx context.Context, wanted Immutability) error {
	if wanted.Period <= 0 {
		return nil
	}
	if r.opts.AppendOnly {
		return ErrAppendOnly
	}
	if err := r.session.store.Lockable(ctx); err != nil {
		return err
	}
	manager := r.session.FormatManager()
	present, err := manager.BlobCfgBlob(ctx)
	if err != nil {
		return err
	}
	next := format.BlobStorageConfiguration{RetentionMode: lockModes[wanted.Mode], RetentionPeriod: max(wanted.Period, present.RetentionPeriod)}
	if present.RetentionMode == blob.Compliance {
		next.RetentionMode = blob.Compliance
	}
	if next == present {
		return nil
	}
	params, err := manager.GetMutableParameters(ctx)
	if err != nil {
		return err
	}
	features, err := manager.RequiredFeatures(ctx)
	if err != nil {
		return err
	}
	return manager.SetParameters(ctx, params, next, features)
}

// immutability is what a repository says about the images that are stored now.
type immutability struct {
	mode   blob.RetentionMode
	period time.Duration // zero when nothing is locked
	now    time.Time
}

func (r *Repository) immutability(ctx context.Context) (immutability, error) {
	set, err := r.session.FormatManager().BlobCfgBlob(ctx)
	if err != nil {
		return immutability{}, damaged(err, "read how long images are locked")
	}
	if !set.IsRetentionEnabled() {
		return immutability{}, nil
	}
	return immutability{mode: set.RetentionMode, period: set.RetentionPeriod, now: r.opts.Now().UTC()}, nil
}

func (i immutability) until() time.Time { return i.now.Add(i.period) }

// longest is how long what is stored or extended now is locked.
func (i immutability) longest() time.Time { return i.now.Add(storage.LockFor(i.period)) }

// enough is how long a lock has to last that is left as it is: longer than needed, so that the increments of the next days, which link to the
// same blobs, find enough too.
func (i immutability) enough() time.Time {
	return i.until().Add((storage.LockFor(i.period) - i.period) / 2)
}

func (i immutability) put() blob.PutOptions {
	return blob.PutOptions{RetentionMode: i.mode, RetentionPeriod: i.period}
}

// heldBy is how long everything is locked that some images need.
func (i immutability) heldBy(images []ImageRef) time.Time {
	held := i.longest()
	for _, image := range images {
		if image.held.Before(held) {
			held = image.held
		}
	}
	return held
}

// hold locks the blobs that were found to be needed, the index, and what opens the repository. It tells how long all of them are locked at
// least.
func (r *Repository) hold(ctx context.Context, p *presence, lock immutability) (time.Time, error) {
	ids := []blob.ID{format.KopiaRepositoryBlobID, format.KopiaBlobCfgBlobID}
	for id := range p.ends {
		ids = append(ids, id)
	}
	indexes, err := r.session.IndexBlobs(ctx, false)
	if err != nil {
		return time.Time{}, damaged(err, "list indexes")
	}
	for _, index := range indexes {
		ids = append(ids, index.BlobID)
	}
	var mu sync.Mutex
	least := lock.longest()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(markersAtOnce)
	for _, id := range ids {
		group.Go(func() error {
			until, err := r.session.store.Hold(ctx, id, lock.enough(), blob.ExtendOptions{RetentionMode: lock.mode, RetentionPeriod: lock.period})
			mu.Lock()
			defer mu.Unlock()
			if err == nil && until.Before(least) {
				least = until
			}
			return err
		})
	}
	return least, group.Wait()
}
