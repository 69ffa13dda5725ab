package image

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"github.com/kopia/kopia/snapshot/snapshotfs"
)

// Publish makes the image visible and returns its manifest. When it returns without an error, the image was read again through a session
// of its own, with nothing cached, and everything that this writer stored is there.
//
// gate is called when all data is durable, immediately before the image becomes visible. When it fails, nothing becomes visible: a worker
// that lost its claim finds out there. When the task has published the image before, that image is checked and returned, and gate is not
// called. ErrBaseUnusable means that a base was deleted meanwhile and took data with it: the image has to be written again.
func (w *Writer) Publish(ctx context.Context, gate func(context.Context) error) (Manifest, error) {
	published, err := w.repo.Confirm(ctx, w.spec.ID)
	if !errors.Is(err, ErrImageNotFound) {
		return published, err
	}
	if err := w.kopia.Flush(ctx); err != nil {
		return Manifest{}, fmt.Errorf("publish image %s: %w", w.spec.ID, err)
	}
	m, root, err := w.storeDescription(ctx)
	if err != nil {
		return Manifest{}, fmt.Errorf("publish image %s: %w", w.spec.ID, err)
	}
	if err := gate(ctx); err != nil {
		return Manifest{}, fmt.Errorf("publish image %s: %w", w.spec.ID, err)
	}
	saved, err := w.reveal(ctx, m, root)
	if err != nil {
		return Manifest{}, fmt.Errorf("publish image %s: %w", w.spec.ID, err)
	}
	return w.confirm(ctx, m, saved)
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

// reveal writes the kopia snapshot. From its flush on, the image exists.
func (w *Writer) reveal(ctx context.Context, m Manifest, root *snapshot.DirEntry) (manifest.ID, error) {
	host := m.VM.Host
	if host == "" {
		host = "unknown"
	}
	saved, err := snapshot.SaveSnapshot(ctx, w.kopia, &snapshot.Manifest{
		Source:      snapshot.SourceInfo{UserName: kopiaUser, Host: plainName(host), Path: "/" + plainName(m.VM.Name)},
		Description: "Hyperkeep image " + m.ID,
		StartTime:   fs.UTCTimestampFromTime(m.TakenAt),
		EndTime:     fs.UTCTimestampFromTime(m.StoredAt),
		RootEntry:   root,
		Pins:        []string{kopiaUser}, // stock kopia's own retention leaves pinned snapshots alone
		Stats: snapshot.Stats{
			TotalFileCount: int32(root.DirSummary.TotalFileCount),
			TotalFileSize:  root.DirSummary.TotalFileSize,
		},
		Tags: map[string]string{
			labelImage: m.ID, labelTask: m.TaskUID, labelVM: m.VM.ID, labelVMName: m.VM.Name, labelPolicy: m.Policy, labelDigest: m.Digest,
		},
	})
	if err != nil {
		return "", err
	}
	return saved, w.kopia.Flush(ctx)
}

// confirm reads the image again through a fresh session. An image that is not all there is taken back.
func (w *Writer) confirm(ctx context.Context, m Manifest, saved manifest.ID) (Manifest, error) {
	fresh, err := w.repo.fresh(ctx)
	if err != nil {
		return Manifest{}, fmt.Errorf("confirm image %s: %w", m.ID, err)
	}
	defer fresh.Close(ctx) //nolint:errcheck // it was only read
	img, err := fresh.Image(ctx, m.ID)
	if err == nil && img.manifest.Digest != m.Digest {
		return img.manifest, fresh.present(ctx, img, nil) // another run of the task was faster; its image is the one that counts
	}
	if err == nil {
		err = fresh.present(ctx, img, w.scope(ctx, fresh))
	}
	if err == nil {
		return img.manifest, nil
	}
	err = fmt.Errorf("confirm image %s: %w", m.ID, err)
	if !errors.Is(err, ErrDamaged) {
		return Manifest{}, err // not known to be bad: a repeated task finds the image and confirms it
	}
	if img != nil && w.basesGone(ctx, fresh) {
		err = fmt.Errorf("%w: %w", ErrBaseUnusable, err)
	}
	return Manifest{}, errors.Join(err, w.repo.write(ctx, "take image back", func(ctx context.Context, k repo.RepositoryWriter) error {
		return k.DeleteManifest(ctx, saved)
	}))
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

func (w *Writer) basesGone(ctx context.Context, fresh *Repository) bool {
	bases := map[string]bool{}
	for _, d := range w.disks {
		if d.record.Base != nil {
			bases[d.record.Base.ImageID] = true
		}
	}
	return slices.ContainsFunc(slices.Collect(maps.Keys(bases)), func(id string) bool {
		found, err := fresh.Images(ctx, ImageFilter{ID: id})
		return err != nil || len(found) == 0
	})
}
