package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/kopia/kopia/repo/object"
)

// startFromBase takes the segments of the base image's disk over. Nothing beneath them is read.
func (d *diskWriter) startFromBase(ctx context.Context, spec DiskSpec) error {
	base, err := d.repo.Image(ctx, spec.Increment.BaseImageID)
	if err != nil {
		return d.baseError(err)
	}
	before, ok := base.manifest.disk(spec.Key)
	switch {
	case !ok:
		return d.baseError(ErrDiskNotFound)
	case before.Size != d.size:
		return d.baseError(fmt.Errorf("the disk had %d bytes and has %d", before.Size, d.size))
	case before.VirtualDiskID != spec.VirtualDiskID:
		return d.baseError(errors.New("the disk was replaced by another one"))
	case before.LeafSize != LeafSize || before.SegmentSize != SegmentSize:
		return d.baseError(errors.New("the base has another layout"))
	}
	root, err := object.ParseID(before.Root)
	if err != nil {
		return d.baseError(err)
	}
	if d.root, err = openRootList(ctx, d.kopia, root, d.size); err != nil {
		return d.baseError(err)
	}
	d.leaves.Store(before.New.Leaves + before.Linked.Leaves + before.Zero.Leaves)
	for _, z := range base.manifest.Zeros { // what is linked has them too
		id, err := object.ParseID(z.Object)
		if err != nil {
			return d.baseError(err)
		}
		d.remember(id, z.Length)
	}
	d.reserving.needs(root)
	d.record.Type = Incremental
	d.record.Base = &Base{ImageID: base.manifest.ID, Digest: base.manifest.Digest, Root: before.Root}
	return nil
}

// baseError says that the base is to blame, unless the storage is.
func (d *diskWriter) baseError(err error) error {
	if err == nil || passing(err) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrBaseUnusable, err)
}
