package image

import (
	"context"
	"errors"
	"slices"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sync/errgroup"
)

// Page is a part of the catalog.
type Page struct {
	Images []Listed
	// Damaged counts the images that cannot be read. They are not among Images.
	Damaged int
	// Next is where the next page begins, "" after the last one.
	Next string
	// Total counts the images in the repository, on whatever page.
	Total int
}

// Listed is one image of a page.
type Listed struct {
	Manifest Manifest
	// At is the image's place in the catalog: a page that begins after it has the images behind it.
	At string
}

// Page reads the manifests of up to limit images, each checked against its digest. They come in an order of their own that never changes, beginning after a
// place in it, "" for the first. An image that is published or deleted while page after page is read may be on one or on none.
func (r *Repository) Page(ctx context.Context, after string, limit int) (Page, error) {
	if err := r.refresh(ctx); err != nil {
		return Page{}, err
	}
	names, err := r.session.markers.names(ctx, ImageFilter{})
	if err != nil {
		return Page{}, damaged(err, "list images")
	}
	slices.Sort(names)
	page := Page{Total: len(names)}
	first, found := slices.BinarySearch(names, blob.ID(after))
	if found {
		first++
	}
	names = names[first:]
	if len(names) > limit {
		names = names[:limit]
		page.Next = string(names[limit-1])
	}
	read := make([]*Manifest, len(names))
	broken := make([]bool, len(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(markersAtOnce)
	for i, name := range names {
		group.Go(func() (err error) {
			read[i], err = r.described(ctx, name)
			if broken[i] = errors.Is(err, ErrDamaged); broken[i] {
				return nil
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return Page{}, err
	}
	for i, manifest := range read {
		switch {
		case broken[i]:
			page.Damaged++
		case manifest != nil:
			page.Images = append(page.Images, Listed{Manifest: *manifest, At: string(names[i])})
		}
	}
	return page, nil
}

// described reads the manifest of the image with a marker; nil when it was deleted meanwhile.
func (r *Repository) described(ctx context.Context, name blob.ID) (*Manifest, error) {
	found, err := r.session.markers.read(ctx, name)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	image, err := r.load(ctx, found.ref())
	if err != nil {
		if again, gone := r.session.markers.names(ctx, ImageFilter{ID: found.ID}); gone == nil && len(again) == 0 {
			return nil, nil
		}
		return nil, err
	}
	manifest := image.Manifest()
	return &manifest, nil
}
