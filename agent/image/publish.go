package image

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"
)

// Publish makes the image visible and returns its manifest. Before it does, the image is read again through a session of its own, with
// nothing cached, and everything that this writer stored is there.
//
// gate is called when all that was checked, immediately before the image becomes visible. When it fails, nothing becomes visible: a worker
// that lost its claim finds out there. When the task has published the image before, that image is checked and returned, and gate is not
// called. ErrBaseUnusable means that a base was deleted meanwhile and took data with it: the image has to be written again.
func (w *Writer) Publish(ctx context.Context, gate func(context.Context) error) (Manifest, error) {
	published, err := w.repo.Confirm(ctx, w.spec.ID, w.spec.VM.ID)
	if !errors.Is(err, ErrImageNotFound) {
		return published, err
	}
	m, err := w.publish(ctx, gate)
	if errors.Is(err, blob.ErrBlobAlreadyExists) { // another run of the task was faster; its image is the one that counts
		return w.repo.Confirm(ctx, w.spec.ID, w.spec.VM.ID)
	}
	if err != nil {
		return Manifest{}, fmt.Errorf("publish image %s: %w", w.spec.ID, err)
	}
	return m, nil
}

func (w *Writer) publish(ctx context.Context, gate func(context.Context) error) (Manifest, error) {
	if err := w.kopia.Flush(ctx); err != nil {
		return Manifest{}, err
	}
	m, root, err := w.storeDescription(ctx)
	if err != nil {
		return Manifest{}, err
	}
	visible := marker{
		Version: formatVersion, ID: m.ID, TaskUID: m.TaskUID, Policy: m.Policy, VM: m.VM,
		TakenAt: m.TakenAt, StoredAt: m.StoredAt, Digest: m.Digest, Root: root,
	}
	lock, err := w.confirm(ctx, &visible)
	if errors.Is(err, ErrDamaged) {
		err = errors.Join(err, w.disown(ctx))
	}
	if err != nil {
		return Manifest{}, err
	}
	if err := gate(ctx); err != nil {
		return Manifest{}, err
	}
	if err := w.repo.session.markers.create(ctx, visible, lock.put()); err != nil {
		return Manifest{}, err
	}
	// From here on the image exists, whatever becomes of the snapshot: before anything is collected, maintenance brings it back.
	if _, err := snapshot.SaveSnapshot(ctx, w.kopia, visible.snapshot()); err == nil {
		w.unreserve(ctx)   //nolint:errcheck // it lapses
		w.kopia.Flush(ctx) //nolint:errcheck // as above
	}
	return m, nil
}

// storeDescription writes manifest.json and the directories of the image, and flushes them.
func (w *Writer) storeDescription(ctx context.Context) (Manifest, *snapshot.DirEntry, error) {
	m := w.manifest()
	document, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return m, nil, err
	}
	m.Digest = digestOf(document)
	id, err := w.writeObject(ctx, document)
	if err != nil {
		return m, nil, fmt.Errorf("store manifest: %w", err)
	}
	root, err := w.storeDirectories(ctx, m, id, int64(len(document)))
	if err != nil {
		return m, nil, fmt.Errorf("store directories: %w", err)
	}
	return m, root, w.kopia.Flush(ctx)
}

func (w *Writer) manifest() Manifest {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := Manifest{
		Version: formatVersion, Tool: w.spec.Tool,
		ID: w.spec.ID, TaskUID: w.spec.TaskUID, Policy: w.spec.Policy, VM: w.spec.VM,
		TakenAt: w.spec.TakenAt.UTC(), StoredAt: w.repo.opts.Now().UTC(),
		Consistency: w.spec.Consistency, Method: w.spec.Method, Annotations: w.spec.Annotations,
		Files: slices.Clone(w.files), Excluded: w.spec.Excluded, Warnings: slices.Clone(w.warnings),
		StoredBytes: w.stored.Load(),
	}
	for _, d := range w.disks {
		m.Disks = append(m.Disks, d.record)
	}
	for id, length := range w.zeros {
		m.Zeros = append(m.Zeros, ZeroObject{Length: length, Object: id.String()})
	}
	slices.SortFunc(m.Disks, func(a, b DiskRecord) int { return cmp.Compare(a.Key, b.Key) })
	slices.SortFunc(m.Files, func(a, b FileRecord) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Zeros, func(a, b ZeroObject) int {
		return cmp.Or(cmp.Compare(a.Length, b.Length), cmp.Compare(a.Object, b.Object))
	})
	return m
}

func (w *Writer) writeObject(ctx context.Context, document []byte) (object.ID, error) {
	out := w.kopia.NewObjectWriter(ctx, object.WriterOptions{Compressor: listCompressor, MetadataCompressor: listCompressor})
	defer out.Close() //nolint:errcheck // it only gives buffers back
	if _, err := bytes.NewReader(document).WriteTo(out); err != nil {
		return object.EmptyID, err
	}
	return out.Result()
}

// storeDirectories lays the image out as stock kopia shows and restores it: disks/, config/ and manifest.json.
func (w *Writer) storeDirectories(ctx context.Context, m Manifest, document object.ID, length int64) (*snapshot.DirEntry, error) {
	time := fs.UTCTimestampFromTime(m.TakenAt)
	file := func(name string, size int64, id string) (*snapshot.DirEntry, error) {
		parsed, err := object.ParseID(id)
		return &snapshot.DirEntry{
			Name: name, Type: snapshot.EntryTypeFile, Permissions: 0o600, FileSize: size, ModTime: time, ObjectID: parsed,
		}, err
	}
	var disks, config, top snapshotfs.DirManifestBuilder
	for _, d := range m.Disks {
		e, err := file(d.File[len("disks/"):], d.Size, d.Root)
		if err != nil {
			return nil, err
		}
		disks.AddEntry(e)
	}
	for _, f := range m.Files {
		e, err := file(f.Name, f.Size, f.Object)
		if err != nil {
			return nil, err
		}
		config.AddEntry(e)
	}
	for name, builder := range map[string]*snapshotfs.DirManifestBuilder{"disks": &disks, "config": &config} {
		e, err := w.storeDirectory(ctx, name, builder, time)
		if err != nil {
			return nil, err
		}
		top.AddEntry(e)
	}
	e, err := file(manifestFile, length, document.String())
	if err != nil {
		return nil, err
	}
	top.AddEntry(e)
	return w.storeDirectory(ctx, "", &top, time)
}

func (w *Writer) storeDirectory(
	ctx context.Context, name string, builder *snapshotfs.DirManifestBuilder, time fs.UTCTimestamp,
) (*snapshot.DirEntry, error) {
	listing := builder.Build(time, "")
	id, err := snapshotfs.WriteDirManifest(ctx, w.kopia, name, listing, listCompressor)
	if err != nil {
		return nil, err
	}
	return &snapshot.DirEntry{
		Name: name, Type: snapshot.EntryTypeDirectory, Permissions: 0o700, ModTime: time, ObjectID: id, DirSummary: listing.Summary,
	}, nil
}

// confirm reads the image again through a fresh session, and sees to it that all it needs is locked for as long as was promised.
func (w *Writer) confirm(ctx context.Context, visible *marker) (immutability, error) {
	fresh, err := w.repo.fresh(ctx)
	if err != nil {
		return immutability{}, fmt.Errorf("confirm: %w", err)
	}
	defer fresh.Close(ctx) //nolint:errcheck // nothing was written through it but locks
	lock, err := fresh.immutability(ctx)
	if err != nil {
		return lock, fmt.Errorf("confirm: %w", err)
	}
	img, err := fresh.load(ctx, visible.ref())
	if err == nil {
		visible.Lock, err = w.secure(ctx, fresh, img, lock)
	}
	if err != nil && errors.Is(err, ErrDamaged) && w.basesGone(ctx, fresh) {
		err = fmt.Errorf("%w: %w", ErrBaseUnusable, err)
	}
	if err != nil {
		return lock, fmt.Errorf("confirm: %w", err)
	}
	return lock, nil
}

// secure checks that the blobs which the image needs are there, and locks them. A base tells how long what is linked from it is locked at
// least. When that is not enough, everything is looked at.
func (w *Writer) secure(ctx context.Context, fresh *Repository, img *Image, lock immutability) (*Lock, error) {
	scope := w.scope(ctx, fresh)
	bases, _ := w.bases(ctx, fresh)
	held := lock.heldBy(bases)
	if lock.period > 0 && held.Before(lock.until()) {
		scope, held = nil, lock.longest()
	}
	p, err := fresh.present(ctx, img, scope)
	if err == nil {
		err = w.recover(ctx, p.marked)
	}
	if err != nil || lock.period == 0 {
		return nil, err
	}
	for zero := range img.zeros { // a reader of ours does without them, stock kopia does not
		if err := p.object(ctx, zero); err != nil {
			return nil, damaged(err, "zeros")
		}
	}
	found, err := fresh.hold(ctx, p, lock)
	if found.Before(held) {
		held = found
	}
	return &Lock{Until: lock.until(), Held: held}, err
}

// scope is what has to be looked at after publishing: what this writer stored. As long as the base images exist, maintenance cannot have
// touched what is linked from them. When one is gone, everything is looked at, which nil stands for.
func (w *Writer) scope(ctx context.Context, fresh *Repository) map[string][]span {
	if w.basesGone(ctx, fresh) {
		return nil
	}
	scope := map[string][]span{}
	for _, d := range w.disks {
		scope[d.record.Key] = d.spans
	}
	return scope
}

// bases are the images that this one links to, as far as they still exist.
func (w *Writer) bases(ctx context.Context, fresh *Repository) (found []ImageRef, gone bool) {
	ids := map[string]bool{}
	for _, d := range w.disks {
		if d.record.Base != nil {
			ids[d.record.Base.ImageID] = true
		}
	}
	for id := range ids {
		refs, err := fresh.Images(ctx, ImageFilter{ID: id})
		gone = gone || err != nil || len(refs) == 0
		found = append(found, refs...)
	}
	return found, gone
}

func (w *Writer) basesGone(ctx context.Context, fresh *Repository) bool {
	_, gone := w.bases(ctx, fresh)
	return gone
}
