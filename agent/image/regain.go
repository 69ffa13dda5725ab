package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
)

// maxVanished bounds the memory for contents that are looked for at a time, some 20 MiB. What is beyond that waits for the next maintenance.
const maxVanished = 256 << 10

// regain brings contents back that are needed and that the index does not name. Whoever has the password can write index blobs: an entry that says of a
// content that it was deleted long ago makes it vanish, as if maintenance had dropped it, and its pack would be freed. Packs say themselves what is in
// them, so what was hidden is read from there and stored anew. It tells how many contents it brought back, which may be lists that name others.
func (c *collection) regain(ctx context.Context) (regained int, err error) {
	vanished, err := c.vanished(ctx)
	if err != nil || len(vanished) == 0 {
		return 0, err
	}
	err = c.writer.BlobReader().ListBlobs(ctx, "", func(pack blob.Metadata) error {
		if len(vanished) == 0 || !strings.HasPrefix(string(pack.BlobID), "p") && !strings.HasPrefix(string(pack.BlobID), "q") {
			return ctx.Err()
		}
		inPack, err := c.writer.ContentManager().RecoverIndexFromPackBlob(ctx, pack.BlobID, pack.Length, false)
		if err != nil {
			return passed(err) // it says nothing of itself
		}
		for _, info := range inPack {
			if !vanished[info.ContentID] {
				continue
			}
			if err := c.restore(ctx, info); err != nil {
				if passing(err) {
					return err
				}
				continue
			}
			delete(vanished, info.ContentID)
			regained++
		}
		return nil
	})
	if err == nil {
		err = c.writer.Flush(ctx)
	}
	if err != nil {
		return regained, fmt.Errorf("bring back what vanished from the index: %w", err)
	}
	if len(vanished) > 0 && regained == 0 {
		return 0, c.mourn(ctx, vanished)
	}
	return regained, nil
}

// passed keeps the error of a storage that fails.
func passed(err error) error {
	if passing(err) {
		return err
	}
	return nil
}

// vanished are the contents that are needed and that the index does not name.
func (c *collection) vanished(ctx context.Context) (missing map[content.ID]bool, err error) {
	present := newNameSet(c.reach.dir)
	defer func() { err = errors.Join(err, present.close()) }()
	every := content.IterateOptions{IncludeDeleted: true}
	err = c.writer.ContentReader().IterateContents(ctx, every, func(info content.Info) error {
		n, err := nameOfContent(info.ContentID)
		if errors.Is(err, errOtherHash) {
			return nil
		}
		return errors.Join(err, present.add(n), ctx.Err())
	})
	if err != nil {
		return nil, fmt.Errorf("look for what vanished from the index: %w", err)
	}
	missing = map[content.ID]bool{}
	for first := range present.buckets {
		known, err := present.bucket(byte(first))
		if err != nil {
			return nil, err
		}
		for _, needed := range []*nameSet{c.reach.data, c.reach.metadata} {
			names, err := needed.bucket(byte(first))
			if err != nil {
				return nil, err
			}
			for _, n := range names {
				if _, found := slices.BinarySearchFunc(known, n, name.compare); found || len(missing) >= maxVanished {
					continue
				}
				id, err := n.content()
				if err != nil {
					return nil, err
				}
				missing[id] = true
			}
		}
	}
	return missing, nil
}

// restore stores a content anew from where it lies in a pack.
func (c *collection) restore(ctx context.Context, info content.Info) error {
	if !c.chunks.opens(info) {
		return errChunk
	}
	var packed run
	if err := c.chunks.store.GetBlob(ctx, info.PackBlobID, int64(info.PackOffset), int64(info.PackedLength), &packed); err != nil {
		return err
	}
	plain := make([]byte, info.OriginalLength)
	if err := c.chunks.open(info, packed.bytes, plain); err != nil {
		return err
	}
	options := object.WriterOptions{Prefix: info.ContentID.Prefix(), Splitter: leafSplitter}
	if info.CompressionHeaderID == compression.HeaderZstdFastest {
		options.Compressor, options.MetadataCompressor = listCompressor, listCompressor
	}
	out := c.writer.NewObjectWriter(ctx, options)
	defer out.Close() //nolint:errcheck // it only gives buffers back
	if _, err := bytes.NewReader(plain).WriteTo(out); err != nil {
		return err
	}
	id, err := out.Result()
	if err != nil {
		return err
	}
	if stored, _, ok := id.ContentID(); !ok || stored != info.ContentID {
		return fmt.Errorf("content %s came back as %s: %w", info.ContentID, id, ErrDamaged)
	}
	c.stats.RecoveredContentCount++
	c.stats.RecoveredContentSize += int64(info.PackedLength)
	return nil
}

// maxMourned is how many images a message names.
const maxMourned = 10

// mourn notes what cannot be brought back, and which images suffer.
func (c *collection) mourn(ctx context.Context, lost map[content.ID]bool) error {
	images, err := c.needing(ctx, lost)
	if err != nil {
		return err
	}
	var names []string
	for _, image := range images[:min(len(images), maxMourned)] {
		names = append(names, image.ImageID)
	}
	c.reach.note(fmt.Errorf("%d contents that %d images need are neither in the index nor in a pack, among them those of %s: %w",
		len(lost), len(images), strings.Join(names, ", "), ErrDamaged))
	return nil
}
