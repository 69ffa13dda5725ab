package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sync/errgroup"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// directories stands in a Verification for those that stock kopia shows.
const directories = "directories"

// needing finds the images that need any of some contents, and what of their disks and files those are. Lists are looked into once, however many
// images share them, then each image's list of segments is gone through; no data is read.
func (r *Repository) needing(ctx context.Context, hurt map[content.ID]bool) (found []Verification, err error) {
	images, err := r.session.markers.list(ctx, ImageFilter{})
	if err != nil {
		return nil, damaged(err, "list images")
	}
	if err := r.refresh(ctx); err != nil {
		return nil, err
	}
	var start []root
	for _, image := range images {
		start = append(start, root{kindOf(image.Root), image.Root.ObjectID})
	}
	reach := newReach(r.session, r.opts)
	reach.hurt = hurt
	defer func() { err = errors.Join(err, reach.close()) }()
	if err := reach.walk(ctx, start); err != nil {
		return nil, fmt.Errorf("look for what is needed: %w", err)
	}
	for _, image := range images {
		v, err := r.suffering(ctx, image, reach)
		if err != nil {
			return nil, err
		}
		if !v.Sound() {
			found = append(found, v)
		}
	}
	return found, nil
}

// suffering says what of an image needs what is hurt.
func (r *Repository) suffering(ctx context.Context, image marker, reach *reach) (Verification, error) {
	v := Verification{ImageID: image.ID, VMID: image.VM.ID, Digest: image.Digest}
	img, err := r.load(ctx, image.ref())
	switch {
	case errors.Is(err, ErrDamaged):
		v.DamagedFiles = []string{manifestFile}
		return v, nil
	case err != nil:
		return v, err
	case reach.suffering[image.Root.ObjectID]: // restores do without the directories, stock kopia does not
		v.DamagedFiles = []string{directories}
	}
	for _, f := range img.manifest.Files {
		hurt, err := reach.hurts(ctx, f.Object)
		if err != nil {
			return v, err
		}
		if hurt {
			v.DamagedFiles = append(v.DamagedFiles, f.Name)
		}
	}
	for _, d := range img.manifest.Disks {
		checked, err := img.sufferingDisk(ctx, d, reach)
		if err != nil {
			return v, err
		}
		v.Disks = append(v.Disks, checked)
	}
	return v, nil
}

// hurts says whether an object has a content that is hurt, or that cannot be known.
func (r *reach) hurts(ctx context.Context, text string) (bool, error) {
	id, err := object.ParseID(text)
	if err != nil {
		return true, nil //nolint:nilerr // a name that cannot be read names nothing that can be
	}
	contents, err := r.contents(ctx, id)
	if passing(err) {
		return false, err
	}
	for _, c := range contents {
		if r.hurt[c] {
			return true, nil
		}
	}
	return err != nil, nil
}

// sufferingDisk says what of a disk needs what is hurt.
func (i *Image) sufferingDisk(parent context.Context, record DiskRecord, reach *reach) (DiskVerification, error) {
	c := &diskCheck{progress: &Progress{}, result: DiskVerification{Key: record.Key, Name: record.Name}}
	reader, err := i.Disk(parent, record.Key)
	if err != nil {
		return c.result, c.note(extent.Extent{Length: record.Size}, err)
	}
	c.reader = reader
	group, ctx := errgroup.WithContext(parent)
	reader.ctx = ctx
	group.SetLimit(i.repo.opts.Parallelism)
	for s := range reader.allSpans() {
		at, err := reader.segment(s.segment)
		if err == nil && !reach.suffering[at.Object] {
			continue
		}
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return c.named(s.segment, reach) })
	}
	err = errors.Join(group.Wait(), parent.Err())
	c.result.Damaged = extent.Normalize(c.result.Damaged)
	return c.result, err
}

// named notes the leaves of a segment that are hurt.
func (c *diskCheck) named(index int64, reach *reach) error {
	start, length := segmentAt(index, c.reader.Size())
	leaves, err := c.reader.leaves(index)
	if err != nil {
		return c.note(extent.Extent{Offset: start, Length: length}, err)
	}
	for _, e := range leaves {
		direct, _, ok := e.Object.ContentID()
		if !ok || !reach.hurt[direct] || c.reader.img.zeros[e.Object] {
			continue
		}
		where := extent.Extent{Offset: start + e.Start, Length: e.Length}
		if err := c.note(where, fmt.Errorf("content %s: %w", direct, ErrDamaged)); err != nil {
			return err
		}
	}
	return nil
}
