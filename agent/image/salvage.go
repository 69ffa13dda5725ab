package image

import (
	"context"
	"fmt"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/content/index"
	"github.com/kopia/kopia/repo/manifest"
)

// salvage makes kopia's manifests readable again: snapshots, base records, reservations and the settings of maintenance. Kopia reads all of them or
// none, so a single damaged content of theirs would stop every deletion, every increment and all maintenance for ever. What cannot be read is given
// up. An image does not need it: snapshots come back from the markers, settings are set anew, and without a base record the next backup reads everything.
//
// While a marker cannot be read nothing is given up, for the snapshot may be all that is left of its image. ErrDamaged says so.
func (r *Repository) salvage(ctx context.Context) error {
	if err := r.refresh(ctx); err != nil {
		return err
	}
	_, failed := r.session.FindManifests(ctx, map[string]string{manifest.TypeLabelKey: baseRecordType})
	if failed == nil || passing(failed) {
		return failed
	}
	_, readable, err := r.session.markers.all(ctx)
	if err != nil {
		return damaged(err, "list images")
	}
	if !readable {
		return damaged(failed, "the marker of an image is damaged, and so are kopia's manifests: delete that image")
	}
	lost, err := r.unreadableManifests(ctx)
	if err != nil {
		return err
	}
	err = repo.DirectWriteSession(ctx, r.session, repo.WriteSessionOptions{Purpose: "salvage manifests"},
		func(_ context.Context, w repo.DirectRepositoryWriter) error {
			for _, id := range lost {
				if err := w.ContentManager().DeleteContent(ctx, id); err != nil {
					return err
				}
			}
			return nil
		})
	if err != nil {
		return fmt.Errorf("give up damaged manifests: %w", err)
	}
	return r.refresh(ctx)
}

func (r *Repository) unreadableManifests(ctx context.Context) (lost []content.ID, err error) {
	var mu sync.Mutex
	contents := r.session.ContentReader()
	all := content.IterateOptions{Range: index.PrefixRange(manifest.ContentPrefix)}
	err = contents.IterateContents(ctx, all, func(info content.Info) error {
		_, err := contents.GetContent(ctx, info.ContentID)
		if err == nil || passing(err) {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		lost = append(lost, info.ContentID)
		return nil
	})
	return lost, err
}
