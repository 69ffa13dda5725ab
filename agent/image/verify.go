package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// Verification is the outcome of reading an image whole.
type Verification struct {
	ImageID, VMID string
	Digest        string
	Disks         []DiskVerification
	// DamagedFiles are the configuration files that cannot be read.
	DamagedFiles []string
}

// DiskVerification is the outcome for one disk.
type DiskVerification struct {
	Key, Name    string
	CheckedBytes int64
	// Damaged is what cannot be restored, at most maxDamage extents of it. Empty means that the disk is sound.
	Damaged extent.List
	// Reason is the first damage that was met.
	Reason string
}

// maxDamage bounds the report on a disk of which everything is gone.
const maxDamage = 1000

// Sound says whether the whole image can be restored.
func (v Verification) Sound() bool {
	for _, d := range v.Disks {
		if len(d.Damaged) > 0 {
			return false
		}
	}
	return len(v.DamagedFiles) == 0
}

// Verify is Image.Verify of the image with an id. ErrImageNotFound, ErrDamaged when its manifest is.
func (r *Repository) Verify(ctx context.Context, imageID string, progress *Progress) (Verification, error) {
	img, err := r.Image(ctx, imageID)
	if err != nil {
		return Verification{}, err
	}
	return img.Verify(ctx, progress)
}

// Verify reads and checks every byte of the image. Damage is part of the result; an error means that the check could not be made, because
// the storage fails. progress counts over all disks and may be nil.
func (i *Image) Verify(ctx context.Context, progress *Progress) (Verification, error) {
	if progress == nil {
		progress = &Progress{}
	}
	v := Verification{ImageID: i.manifest.ID, VMID: i.manifest.VM.ID, Digest: i.manifest.Digest}
	for _, f := range i.manifest.Files {
		err := i.verifyFile(ctx, f.Name)
		if errors.Is(err, ErrDamaged) {
			v.DamagedFiles = append(v.DamagedFiles, f.Name)
		} else if err != nil {
			return v, fmt.Errorf("verify image %s: %w", v.ImageID, err)
		}
	}
	for _, d := range i.manifest.Disks {
		checked, err := i.verifyDisk(ctx, d, progress)
		if err != nil {
			return v, fmt.Errorf("verify image %s: %w", v.ImageID, err)
		}
		v.Disks = append(v.Disks, checked)
	}
	return v, nil
}

func (i *Image) verifyFile(ctx context.Context, name string) error {
	in, err := i.File(ctx, name)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	_, err = io.Copy(io.Discard, in)
	return err
}

// diskCheck collects what is found on one disk.
type diskCheck struct {
	reader   *DiskReader
	progress *Progress
	mu       sync.Mutex
	result   DiskVerification
}

func (i *Image) verifyDisk(ctx context.Context, record DiskRecord, progress *Progress) (DiskVerification, error) {
	whole := extent.Extent{Length: record.Size}
	c := &diskCheck{progress: progress, result: DiskVerification{Key: record.Key, Name: record.Name}}
	reader, err := i.Disk(ctx, record.Key)
	if err != nil {
		return c.result, c.note(whole, err)
	}
	c.reader = reader
	group, ctx := errgroup.WithContext(ctx)
	reader.ctx = ctx
	group.SetLimit(i.repo.opts.Parallelism)
	for s := range reader.allSpans() {
		if ctx.Err() != nil {
			break
		}
		group.Go(func() error { return c.segment(s.segment) })
	}
	err = group.Wait()
	c.result.Damaged = extent.Normalize(c.result.Damaged)
	progress.Processed.Add(record.Size)
	return c.result, err
}

func (c *diskCheck) segment(index int64) error {
	start, length := segmentAt(index, c.reader.Size())
	leaves, err := c.reader.leaves(index)
	if err != nil {
		return c.note(extent.Extent{Offset: start, Length: length}, err)
	}
	for _, e := range leaves {
		if c.reader.img.zeros[e.Object] {
			continue
		}
		where := extent.Extent{Offset: start + e.Start, Length: e.Length}
		err := c.reader.fetch([]want{{entry: entry{Start: where.Offset, Length: e.Length, Object: e.Object}, into: make([]byte, e.Length)}})
		if err := c.note(where, err); err != nil {
			return err
		}
	}
	return nil
}

// note counts a checked extent and remembers it when it is damaged. Other errors end the check.
func (c *diskCheck) note(where extent.Extent, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err == nil:
		c.result.CheckedBytes += where.Length
		c.progress.Read.Add(where.Length)
		return nil
	case !errors.Is(err, ErrDamaged):
		return err
	}
	if c.result.Reason == "" {
		c.result.Reason = err.Error()
	}
	if len(c.result.Damaged) < maxDamage {
		c.result.Damaged = append(c.result.Damaged, where)
	}
	return nil
}
