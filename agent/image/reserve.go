package image

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
)

// An image in the making links to what its base has, and to chunks that the repository had already, without storing anything that would keep
// them. Deleting the base takes nothing away at once: what nothing needs is marked by one collection, and dropped by the third of three which are an hour
// and four hours apart. An image that takes longer than that reserves what it has so far, which counts as needed (R6).
const (
	// reserveAfter is when an image makes its first reservation, and how often it renews it. Most are done before, and cost nothing.
	reserveAfter = 45 * time.Minute
	// reserveFor is when a reservation that is not renewed has lapsed: its writer is dead.
	reserveFor = 24 * time.Hour

	reservationType  = "hyperkeep-reservation"
	reservationImage = "image"
)

// reservation is the manifest of an unfinished image: objects that are needed with all that is beneath them.
type reservation struct {
	Objects []object.ID `json:"objects"`
}

// reserving is what a writer has reserved.
type reserving struct {
	mu      sync.Mutex
	since   time.Time
	fresh   []object.ID // linked or stored since the last reservation
	objects []object.ID // reserved: roots of bases, and lists of what was fresh
	id      manifest.ID
}

// needs remembers a list that the image will link to.
func (r *reserving) needs(id object.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fresh = append(r.fresh, id)
}

// reserve makes or renews the reservation when that is due. It counts with the next flush.
func (w *Writer) reserve(ctx context.Context) error {
	r := &w.reserving
	r.mu.Lock()
	defer r.mu.Unlock()
	now := w.repo.opts.Now()
	if now.Sub(r.since) < reserveAfter {
		return nil
	}
	if len(r.fresh) > 0 {
		list, err := writeList(ctx, w.kopia, func(yield func(entry) bool) {
			for i, id := range r.fresh {
				if !yield(entry{Start: int64(i), Length: 1, Object: id}) { // whatever their lengths: nobody reads it as data
					return
				}
			}
		})
		if err != nil {
			return err
		}
		r.objects, r.fresh = append(r.objects, list), nil
	}
	labels := map[string]string{manifest.TypeLabelKey: reservationType, reservationImage: w.spec.ID}
	id, err := w.kopia.PutManifest(ctx, labels, reservation{Objects: slices.Clone(r.objects)})
	if err != nil {
		return err
	}
	before := r.id
	r.id, r.since = id, now
	if before == "" {
		return nil
	}
	return w.kopia.DeleteManifest(ctx, before)
}

// unreserve gives the reservation up, with the next flush.
func (w *Writer) unreserve(ctx context.Context) error {
	w.reserving.mu.Lock()
	defer w.reserving.mu.Unlock()
	if w.reserving.id == "" {
		return nil
	}
	id := w.reserving.id
	w.reserving.id = ""
	return w.kopia.DeleteManifest(ctx, id)
}

// reserved are the objects of the reservations that have not lapsed. It deletes the others.
func reserved(ctx context.Context, w repo.RepositoryWriter, now time.Time) (all []root, err error) {
	found, err := w.FindManifests(ctx, map[string]string{manifest.TypeLabelKey: reservationType})
	if err != nil {
		return nil, err
	}
	for _, m := range found {
		if now.Sub(m.ModTime) > reserveFor {
			if err := w.DeleteManifest(ctx, m.ID); err != nil {
				return nil, err
			}
			continue
		}
		var has reservation
		if _, err := w.GetManifest(ctx, m.ID, &has); err != nil {
			return nil, damaged(err, "read reservation %s", m.ID)
		}
		for _, id := range has.Objects {
			all = append(all, root{aFile, id})
		}
	}
	return all, nil
}

// recover stores contents anew that were marked as deleted while nothing needed them. The next collection would, but not if it is the one that drops
// them.
func (w *Writer) recover(ctx context.Context, marked []content.ID) error {
	if len(marked) == 0 {
		return nil
	}
	if err := w.kopia.Refresh(ctx); err != nil {
		return damaged(err, "refresh repository")
	}
	for _, id := range marked {
		if err := w.kopia.ContentManager().UndeleteContent(ctx, id); err != nil {
			return damaged(err, "content %s is marked for deletion", id)
		}
	}
	return w.kopia.Flush(ctx)
}
