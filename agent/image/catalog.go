package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
)

// Labels of the kopia snapshot of an image. Stock kopia shows what starts with "tag:" as tags.
const (
	labelImage  = "tag:hyperkeep-image"
	labelTask   = "tag:hyperkeep-task"
	labelVM     = "tag:hyperkeep-vm"
	labelVMName = "tag:hyperkeep-vm-name"
	labelPolicy = "tag:hyperkeep-policy"
	labelDigest = "tag:hyperkeep-digest"
)

// manifestFile is where an image describes itself; maxManifestBytes bounds what is read of it.
const (
	manifestFile     = "manifest.json"
	maxManifestBytes = 64 << 20
)

// ImageFilter selects images. Empty fields select all.
type ImageFilter struct {
	ID, TaskUID, VMID, Policy string
}

func (f ImageFilter) selects(m marker) bool {
	for wanted, has := range map[*string]string{&f.ID: m.ID, &f.TaskUID: m.TaskUID, &f.VMID: m.VM.ID, &f.Policy: m.Policy} {
		if *wanted != "" && *wanted != has {
			return false
		}
	}
	return true
}

// ImageRef is what a listing tells of an image, without reading the image.
type ImageRef struct {
	ID, TaskUID, VMID, VMName, Policy, Digest string

	TakenAt  time.Time
	StoredAt time.Time // by the clock of the writer, when the manifest was written

	// LockedUntil is when the image can be deleted at the earliest, zero when at any time.
	LockedUntil time.Time

	root object.ID
	held time.Time // as in Lock
}

// Images lists the published images, oldest first. One whose marker is damaged is missing from the list, but ErrDamaged when it is asked for
// by its id.
func (r *Repository) Images(ctx context.Context, filter ImageFilter) ([]ImageRef, error) {
	if err := r.refresh(ctx); err != nil {
		return nil, err
	}
	found, err := r.session.markers.list(ctx, filter)
	if err != nil {
		return nil, damaged(err, "list images")
	}
	refs := make([]ImageRef, len(found))
	for i, m := range found {
		refs[i] = m.ref()
	}
	slices.SortFunc(refs, func(a, b ImageRef) int { return cmp.Or(a.StoredAt.Compare(b.StoredAt), cmp.Compare(a.ID, b.ID)) })
	return refs, nil
}

func (m marker) ref() ImageRef {
	ref := ImageRef{
		ID: m.ID, TaskUID: m.TaskUID, VMID: m.VM.ID, VMName: m.VM.Name, Policy: m.Policy, Digest: m.Digest,
		TakenAt: m.TakenAt, StoredAt: m.StoredAt, root: m.Root.ObjectID,
	}
	if m.Lock != nil {
		ref.LockedUntil, ref.held = m.Lock.Until, m.Lock.Held
	}
	return ref
}

// Image opens a published image. ErrImageNotFound when there is none, ErrDamaged when its manifest does not match its digest.
func (r *Repository) Image(ctx context.Context, id string) (*Image, error) {
	if id == "" {
		return nil, fmt.Errorf("open image: %w", ErrImageNotFound)
	}
	return r.one(ctx, ImageFilter{ID: id}, id)
}

// Match opens a published image that was recorded elsewhere, by its id, its VM and, unless that is empty, its digest: an id alone can be
// given to an image of any VM by whoever adds images. ErrImageNotFound, ErrDamaged, and ErrImageMismatch when there is only another one.
func (r *Repository) Match(ctx context.Context, id, vmID, digest string) (*Image, error) {
	if id == "" || vmID == "" {
		return nil, fmt.Errorf("open image: %w", ErrImageNotFound)
	}
	img, err := r.one(ctx, ImageFilter{ID: id, VMID: vmID}, id)
	if errors.Is(err, ErrImageNotFound) {
		others, listErr := r.Images(ctx, ImageFilter{ID: id})
		if listErr == nil && len(others) > 0 {
			err = fmt.Errorf("open image %s of VM %s: %w: it is of VM %s", id, vmID, ErrImageMismatch, others[0].VMID)
		}
		return nil, err
	}
	if err == nil && digest != "" && img.manifest.Digest != digest {
		return nil, fmt.Errorf("open image %s of VM %s: %w: its digest is %s, not %s", id, vmID, ErrImageMismatch, img.manifest.Digest, digest)
	}
	return img, err
}

// Find opens the image that a task has published. ErrImageNotFound when it has published none.
func (r *Repository) Find(ctx context.Context, taskUID string) (*Image, error) {
	if taskUID == "" {
		return nil, fmt.Errorf("find image: %w", ErrImageNotFound)
	}
	return r.one(ctx, ImageFilter{TaskUID: taskUID}, "of task "+taskUID)
}

func (r *Repository) one(ctx context.Context, filter ImageFilter, name string) (*Image, error) {
	refs, err := r.Images(ctx, filter)
	if err != nil {
		return nil, err
	}
	if len(refs) == 0 {
		return nil, fmt.Errorf("open image %s: %w", name, ErrImageNotFound)
	}
	return r.load(ctx, refs[0])
}

// load reads the manifest of an image and checks it against its digest.
func (r *Repository) load(ctx context.Context, ref ImageRef) (*Image, error) {
	document, err := readFile(ctx, r.session, ref.root, manifestFile)
	if err != nil {
		return nil, damaged(err, "open image %s: read manifest", ref.ID)
	}
	m := Manifest{Digest: digestOf(document)}
	if m.Digest != ref.Digest {
		return nil, fmt.Errorf("open image %s: manifest differs from its digest: %w", ref.ID, ErrDamaged)
	}
	if err := json.Unmarshal(document, &m); err != nil {
		return nil, damaged(err, "open image %s: manifest", ref.ID)
	}
	if m.Version > formatVersion {
		return nil, fmt.Errorf("open image %s: it has format %d, newer than this program knows: update the program", ref.ID, m.Version)
	}
	if m.ID != ref.ID || m.TaskUID != ref.TaskUID || m.VM.ID != ref.VMID {
		return nil, fmt.Errorf("open image %s: manifest is that of another image: %w", ref.ID, ErrDamaged)
	}
	return newImage(r, m)
}

// readFile reads a small file, given the directory it is in.
func readFile(ctx context.Context, r repo.Repository, dir object.ID, name string) ([]byte, error) {
	listing, err := readObject(ctx, r, dir)
	if err != nil {
		return nil, err
	}
	var d snapshot.DirManifest
	if err := json.Unmarshal(listing, &d); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(d.Entries, func(e *snapshot.DirEntry) bool { return e != nil && e.Name == name })
	if i < 0 {
		return nil, fmt.Errorf("%s is missing", path.Base(name))
	}
	return readObject(ctx, r, d.Entries[i].ObjectID)
}

func readObject(ctx context.Context, r repo.Repository, id object.ID) ([]byte, error) {
	in, err := r.OpenObject(ctx, id)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // read only
	if in.Length() > maxManifestBytes {
		return nil, fmt.Errorf("%d bytes are more than a manifest can have", in.Length())
	}
	return io.ReadAll(in)
}

// Delete removes an image and its base records from the catalog. What no other image links is freed by Maintain. A missing image is
// success. ErrLocked while the image is immutable, ErrClock while the clocks cannot be trusted. Only the keeper deletes, and like Maintain under a
// lease.
func (r *Repository) Delete(ctx context.Context, imageID string) error {
	switch {
	case imageID == "":
		return fmt.Errorf("delete image: %w", ErrImageNotFound)
	case r.opts.AppendOnly:
		return fmt.Errorf("delete image %s: %w", imageID, ErrAppendOnly)
	}
	if err := r.trustClocks(ctx); err != nil {
		return fmt.Errorf("delete image %s: %w", imageID, err)
	}
	refs, err := r.Images(ctx, ImageFilter{ID: imageID})
	if err != nil && !errors.Is(err, ErrDamaged) {
		return err
	}
	for _, ref := range refs {
		if r.opts.Now().Before(ref.LockedUntil) {
			return fmt.Errorf("delete image %s: %w until %s", imageID, ErrLocked, ref.LockedUntil.Format(time.RFC3339))
		}
	}
	if err := r.session.markers.delete(ctx, imageID); err != nil {
		return fmt.Errorf("delete image %s: %w", imageID, err)
	}
	err = r.write(ctx, "delete image "+imageID, func(ctx context.Context, w repo.RepositoryWriter) error {
		for _, labels := range []map[string]string{
			{manifest.TypeLabelKey: snapshot.ManifestType, labelImage: imageID},
			{manifest.TypeLabelKey: baseRecordType, baseRecordImage: imageID},
		} {
			found, err := w.FindManifests(ctx, labels)
			if err != nil {
				return err
			}
			for _, m := range found {
				if err := w.DeleteManifest(ctx, m.ID); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return damaged(err, "forget image %s", imageID)
}
