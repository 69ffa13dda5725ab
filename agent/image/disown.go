package image

import (
	"context"
	"fmt"
	"sync"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/manifest"
)

// disown marks as deleted what the index says is in packs that are missing or too short, when a backup found that what it stored is not there. Kopia
// deduplicates against what its index names: without the marks, every other run would link to the same lost contents. Should the storage only have been
// late to show a pack, the next collection takes the marks back from what images need.
func (w *Writer) disown(ctx context.Context) error {
	if err := w.repo.refresh(ctx); err != nil {
		return err
	}
	packs := map[blob.ID]int64{}
	for _, prefix := range content.PackBlobIDPrefixes {
		err := w.repo.session.BlobReader().ListBlobs(ctx, prefix, func(b blob.Metadata) error {
			packs[b.BlobID] = b.Length
			return nil
		})
		if err != nil {
			return fmt.Errorf("list packs: %w", err)
		}
	}
	var mu sync.Mutex
	var lost []content.ID
	err := w.repo.session.ContentReader().IterateContents(ctx, content.IterateOptions{}, func(info content.Info) error {
		if int64(info.PackOffset)+int64(info.PackedLength) <= packs[info.PackBlobID] || info.ContentID.Prefix() == manifest.ContentPrefix {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		lost = append(lost, info.ContentID)
		return nil
	})
	if err != nil || len(lost) == 0 {
		return err
	}
	if err := w.kopia.Refresh(ctx); err != nil {
		return err
	}
	for _, id := range lost {
		if err := w.kopia.ContentManager().DeleteContent(ctx, id); err != nil {
			return fmt.Errorf("disown content %s: %w", id, err)
		}
	}
	return w.kopia.Flush(ctx)
}
