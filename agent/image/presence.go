package image

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sync/errgroup"
)

// Confirm reads the manifest of an image of a VM through a session of its own, with nothing cached, and checks that every part of the image
// is there. It reads lists, not data: Verify reads everything.
func (r *Repository) Confirm(ctx context.Context, imageID, vmID string) (Manifest, error) {
	if refs, err := r.Images(ctx, ImageFilter{ID: imageID, VMID: vmID}); err != nil || len(refs) == 0 {
		if err == nil {
			err = ErrImageNotFound
		}
		return Manifest{}, fmt.Errorf("confirm image %s: %w", imageID, err)
	}
	fresh, err := r.fresh(ctx)
	if err != nil {
		return Manifest{}, fmt.Errorf("confirm image %s: %w", imageID, err)
	}
	defer fresh.Close(ctx) //nolint:errcheck // it was only read
	img, err := fresh.Match(ctx, imageID, vmID, "")
	if err != nil {
		return Manifest{}, err
	}
	p, err := fresh.present(ctx, img, nil)
	if err == nil && len(p.marked) > 0 {
		err = fmt.Errorf("content %s is marked for deletion: %w", p.marked[0], ErrDamaged)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("confirm image %s: %w", imageID, err)
	}
	return img.manifest, nil
}

// presence collects where the contents of an image are said to be.
type presence struct {
	repo   *Repository
	mu     sync.Mutex
	ends   map[blob.ID]int64 // how long each blob has to be at least
	marked []content.ID      // as deleted, and still there
}

// present checks that what an image consists of is there: lists by reading them, leaves by looking them up, and the blobs that hold them
// by their length. scope limits that to some leaves of each disk; without one everything is checked.
func (r *Repository) present(ctx context.Context, img *Image, scope map[string][]span) (*presence, error) {
	p := &presence{repo: r, ends: map[blob.ID]int64{}}
	for _, f := range img.manifest.Files {
		id, err := object.ParseID(f.Object)
		if err == nil {
			err = p.object(ctx, id)
		}
		if err != nil {
			return nil, damaged(err, "file %q", f.Name)
		}
	}
	for _, d := range img.manifest.Disks {
		reader, err := img.Disk(ctx, d.Key)
		if err != nil {
			return nil, err
		}
		look := reader.allSpans()
		if scope != nil {
			look = slices.Values(scope[d.Key])
		}
		for _, piece := range reader.root.objects() {
			if err := p.object(ctx, piece); err != nil {
				return nil, damaged(err, "disk %q", d.Name)
			}
		}
		if err := p.disk(ctx, reader, look); err != nil {
			return nil, damaged(err, "disk %q", d.Name)
		}
	}
	return p, p.blobs(ctx)
}

func (p *presence) disk(ctx context.Context, reader *DiskReader, look iter.Seq[span]) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.repo.opts.Parallelism)
	for s := range look {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return p.segment(ctx, reader, s) })
	}
	return group.Wait()
}

func (p *presence) segment(ctx context.Context, reader *DiskReader, s span) error {
	leaves, err := reader.leaves(s.segment)
	if err != nil {
		return err
	}
	at, err := reader.segment(s.segment)
	if err != nil {
		return err
	}
	if list, ok := at.Object.IndexObjectID(); ok {
		if err := p.object(ctx, list); err != nil {
			return err
		}
	}
	for _, e := range leaves {
		if s.leaves&(1<<(e.Start/LeafSize)) == 0 || reader.img.zeros[e.Object] {
			continue
		}
		if err := p.object(ctx, e.Object); err != nil {
			return fmt.Errorf("leaf at %d: %w", s.segment*SegmentSize+e.Start, err)
		}
	}
	return nil
}

func (p *presence) object(ctx context.Context, id object.ID) error {
	if direct, _, ok := id.ContentID(); ok {
		return p.content(ctx, direct)
	}
	contents, err := p.repo.session.VerifyObject(ctx, id)
	if err != nil {
		return err
	}
	for _, c := range contents {
		if err := p.content(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (p *presence) content(ctx context.Context, id content.ID) error {
	info, err := p.repo.session.ContentInfo(ctx, id)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if info.Deleted {
		p.marked = append(p.marked, id)
	}
	p.ends[info.PackBlobID] = max(p.ends[info.PackBlobID], int64(info.PackOffset)+int64(info.PackedLength))
	return nil
}

func (p *presence) blobs(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.repo.opts.Parallelism)
	for id, end := range p.ends {
		group.Go(func() error {
			m, err := p.repo.session.BlobReader().GetMetadata(ctx, id)
			if err != nil {
				return damaged(err, "blob %s", id)
			}
			if m.Length < end {
				return fmt.Errorf("blob %s has %d bytes in place of %d: %w", id, m.Length, end, ErrDamaged)
			}
			return nil
		})
	}
	return group.Wait()
}
