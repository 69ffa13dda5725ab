package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
	"pgregory.net/rapid"

	"github.com/hyperkeep/hyperkeep/agent/image/internal/storage"
)

// description is what an image is opened by, next to its disks.
const description = "description"

// damages are the ranges of blobs that are not what was stored, by blob.
type damages map[blob.ID][][2]int64

func (d damages) meets(id blob.ID, from, to int64) bool {
	return slices.ContainsFunc(d[id], func(bad [2]int64) bool { return bad[0] < to && from < bad[1] })
}

// corrupt flips a byte of a blob, cuts the blob short or removes it. Packs and markers stay as they are then: what else is damaged concerns the whole
// repository, and is put back when restores were seen to say so, or to be right all the same.
func (m *machine) corrupt() {
	ctx := context.Background()
	raw, err := storage.Open(ctx, m.where, storage.Existing, Options{}.withDefaults().storage(m.where))
	m.must(err)
	defer raw.Close(ctx)
	kind := rapid.SampledFrom([]blob.ID{"p", "q", storage.ImagePrefix, "x", "kopia."}).Draw(m.T, "kind")
	id, ok := m.anyBlob(raw, kind)
	if !ok {
		return
	}
	before, err := raw.Whole(ctx, id)
	m.must(err)
	bad := m.alter(raw, id, before)
	if kind == "x" || kind == "kopia." {
		m.restoresRightOrNot()
		m.must(raw.PutBlob(ctx, id, storage.Bytes(before), blob.PutOptions{}))
	} else {
		m.damages[id] = append(m.damages[id], bad)
	}
}

func (m *machine) anyBlob(raw *storage.Storage, prefix blob.ID) (blob.ID, bool) {
	var found []blob.ID
	m.must(raw.ListBlobs(context.Background(), prefix, func(b blob.Metadata) error {
		if b.Length > 0 {
			found = append(found, b.BlobID)
		}
		return nil
	}))
	if len(found) == 0 {
		return "", false
	}
	slices.SortFunc(found, func(a, b blob.ID) int {
		return m.calendar.date(blob.Metadata{BlobID: a}).Timestamp.Compare(m.calendar.date(blob.Metadata{BlobID: b}).Timestamp)
	})
	return found[rapid.IntRange(0, len(found)-1).Draw(m.T, "blob")], true
}

// alter tells which bytes of the blob are not there any more.
func (m *machine) alter(raw *storage.Storage, id blob.ID, before []byte) [2]int64 {
	ctx, size := context.Background(), int64(len(before))
	at := rapid.Int64Range(0, size-1).Draw(m.T, "at")
	switch rapid.SampledFrom([]string{"flip", "truncate", "remove"}).Draw(m.T, "how") {
	case "flip":
		after := bytes.Clone(before)
		after[at] ^= 1 << rapid.IntRange(0, 7).Draw(m.T, "bit")
		m.must(raw.PutBlob(ctx, id, storage.Bytes(after), blob.PutOptions{}))
		return [2]int64{at, at + 1}
	case "truncate":
		m.must(raw.PutBlob(ctx, id, storage.Bytes(before[:at]), blob.PutOptions{}))
		return [2]int64{at, size}
	}
	m.must(raw.DeleteBlob(ctx, id))
	return [2]int64{0, size}
}

// restoresRightOrNot restores everything that can be restored: what comes is what was stored.
func (m *machine) restoresRightOrNot() {
	ctx := context.Background()
	r, err := Open(ctx, m.where, "correct horse", m.calendar.options(m.t))
	if err != nil {
		return
	}
	defer r.Close(ctx)
	for id := range m.images {
		m.rightOrNot(r, id)
	}
}

func (m *machine) rightOrNot(r *Repository, id string) {
	for key, want := range m.images[id] {
		if got, err := restoreDisk(r, id, key); err == nil && !bytes.Equal(got, want) {
			m.Fatalf("disk %s of image %s differs, and nobody said so", key, id)
		}
	}
}

func restoreDisk(r *Repository, id, key string) ([]byte, error) {
	img, err := r.Image(context.Background(), id)
	if err != nil {
		return nil, err
	}
	d, err := img.Disk(context.Background(), key)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(d, 0, d.Size()))
}

// check looks at the repository as somebody else would. What no damage meets restores to the byte; what one meets says so; and a verification names
// just that.
func (m *machine) check() {
	ctx := context.Background()
	r, err := m.repo.fresh(ctx)
	m.must(err)
	defer r.Close(ctx)
	for _, id := range slices.Sorted(maps.Keys(m.images)) {
		broken := m.broken(r, id)
		if m.parts[id] == nil && !broken[description] {
			m.rightOrNot(r, id)
			continue
		}
		m.found = m.found || len(broken) > 0
		for key, want := range m.images[id] {
			got, err := restoreDisk(r, id, key)
			switch said := err != nil; {
			case said != (broken[key] || broken[description]):
				m.Fatalf("disk %s of image %s: %v, and what is damaged of the image is %v", key, id, err, broken)
			case said && !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrImageNotFound):
				m.Fatalf("disk %s of image %s: %v", key, id, err)
			case !said && !bytes.Equal(got, want):
				m.Fatalf("disk %s of image %s differs", key, id)
			}
		}
		m.verify(r, id, broken)
	}
}

func (m *machine) verify(r *Repository, id string, broken map[string]bool) {
	found, err := r.Verify(context.Background(), id, nil)
	if broken[description] {
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrImageNotFound) {
			m.Fatalf("verification of image %s: %v", id, err)
		}
		return
	}
	m.must(err)
	for _, d := range found.Disks {
		if (len(d.Damaged) > 0) != broken[d.Key] {
			m.Fatalf("verification of image %s: %+v, and what is damaged of it is %v", id, found, broken)
		}
	}
}

// broken tells which parts of an image the damages meet. It goes by where kopia's index says that things lie, and by nothing that reads them.
func (m *machine) broken(r *Repository, id string) map[string]bool {
	if m.damages.meets(r.session.markers.name("vm", id), 0, 1<<40) {
		return map[string]bool{description: true}
	}
	broken := map[string]bool{}
	for part, contents := range m.parts[id] {
		for _, c := range contents {
			info, err := r.session.ContentInfo(context.Background(), c)
			if err != nil {
				m.Fatalf("%s of image %s: %v", part, id, err)
			}
			from := int64(info.PackOffset)
			if m.damages.meets(info.PackBlobID, from, from+int64(info.PackedLength)) {
				broken[part] = true
			}
		}
	}
	return broken
}

// partsOf lists the contents of an image by what they are for. Zeros are stored for stock kopia, and not read. It lists nothing when what the image
// links to is damaged already.
func (m *machine) partsOf(id string) map[string][]content.ID {
	ctx := context.Background()
	var damage error
	contentsOf := func(id object.ID) []content.ID {
		found, err := m.repo.session.VerifyObject(ctx, id)
		damage = errors.Join(damage, err)
		return found
	}
	refs, err := m.repo.Images(ctx, ImageFilter{ID: id})
	m.must(err)
	img, err := m.repo.Image(ctx, id)
	m.must(err)
	listing, err := readObject(ctx, m.repo.session, refs[0].root)
	m.must(err)
	var directory snapshot.DirManifest
	m.must(json.Unmarshal(listing, &directory))
	parts := map[string][]content.ID{description: contentsOf(refs[0].root)}
	for _, e := range directory.Entries {
		if e.Name == manifestFile {
			parts[description] = append(parts[description], contentsOf(e.ObjectID)...)
		}
	}
	var zeros []content.ID
	for zero := range img.zeros {
		zeros = append(zeros, contentsOf(zero)...)
	}
	for _, d := range img.manifest.Disks {
		root, err := object.ParseID(d.Root)
		m.must(err)
		parts[d.Key] = slices.DeleteFunc(contentsOf(root), func(c content.ID) bool { return slices.Contains(zeros, c) })
	}
	if damage != nil {
		return nil
	}
	return parts
}

// repaired looks at the image that was written when damage was known: nothing of it is damaged.
func (m *machine) repaired(id string) {
	m.found = false
	r, err := m.repo.fresh(context.Background())
	m.must(err)
	defer r.Close(context.Background())
	if broken := m.broken(r, id); len(broken) > 0 {
		m.Fatalf("image %s was to repair what is damaged, and of it this is: %v", id, broken)
	}
	for key, want := range m.images[id] {
		if got, err := restoreDisk(r, id, key); err != nil || !bytes.Equal(got, want) {
			m.Fatalf("disk %s of image %s, which was to repair what is damaged: %v", key, id, err)
		}
	}
	m.verify(r, id, nil)
}
