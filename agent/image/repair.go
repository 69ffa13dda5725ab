package image

import (
	"context"
	"io"
	"iter"

	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
)

// storeList stores a list, and once more when the repository has a damaged copy that should be repaired.
func (d *diskWriter) storeList(ctx context.Context, entries iter.Seq[entry]) (object.ID, error) {
	return d.sound(ctx, true, func() (object.ID, error) { return writeList(ctx, d.kopia, entries) })
}

// sound stores something, soundly when repairing.
func (d *diskWriter) sound(ctx context.Context, list bool, store func() (object.ID, error)) (object.ID, error) {
	if !d.repair {
		return store()
	}
	return d.storeSound(ctx, list, store)
}

// storeSound stores something and reads it back. Kopia deduplicates against what its index names, not against what it can read. When reading fails, the
// content is marked as deleted, whereupon kopia stores the same bytes anew under the same name.
func (w *Writer) storeSound(ctx context.Context, list bool, store func() (object.ID, error)) (object.ID, error) {
	id, err := store()
	if err != nil {
		return id, err
	}
	read := id
	if list {
		read, _ = id.IndexObjectID()
	}
	failed := w.readThrough(ctx, read)
	if failed == nil || passing(failed) {
		return id, failed
	}
	contents, err := w.contentsOf(ctx, read)
	if err != nil {
		return id, damaged(err, "repair object %s", read)
	}
	for _, c := range contents {
		if err := w.kopia.ContentManager().DeleteContent(ctx, c); err != nil {
			return id, damaged(err, "repair object %s", read)
		}
	}
	return store()
}

func (w *Writer) readThrough(ctx context.Context, id object.ID) error {
	in, err := w.kopia.OpenObject(ctx, id)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	_, err = io.Copy(io.Discard, in)
	return err
}

func (w *Writer) contentsOf(ctx context.Context, id object.ID) ([]content.ID, error) {
	if c, _, ok := id.ContentID(); ok {
		return []content.ID{c}, nil
	}
	return w.kopia.VerifyObject(ctx, id)
}
