package image_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

// islands is a large disk of zeros with a few pieces of data.
type islands struct {
	size   int64
	pieces []island
}

type island struct {
	at    int64
	bytes []byte
}

func (i island) extent() extent.Extent {
	return extent.Extent{Offset: i.at, Length: int64(len(i.bytes))}
}

func (s *islands) Size() int64 { return s.size }

func (s *islands) Data(window extent.Extent) extent.Seq {
	var all []extent.Extent
	for _, p := range s.pieces {
		all = append(all, p.extent())
	}
	return extent.Normalize(all).Intersect(extent.List{window}).Seq()
}

func (s *islands) ReadAt(b []byte, offset int64) (int, error) {
	clear(b)
	for _, p := range s.pieces {
		if common := p.extent().Clip(extent.Extent{Offset: offset, Length: int64(len(b))}); common.Length > 0 {
			copy(b[common.Offset-offset:], p.bytes[common.Offset-p.at:common.Offset-p.at+common.Length])
		}
	}
	return len(b), nil
}

// change writes something new, and gives the disk as it is then.
func (s *islands) change(at int64, b []byte) *islands {
	after := &islands{size: s.size}
	for _, p := range s.pieces {
		after.pieces = append(after.pieces, island{p.at, bytes.Clone(p.bytes)})
		if within := at - p.at; within >= 0 && within < int64(len(p.bytes)) {
			copy(after.pieces[len(after.pieces)-1].bytes[within:], b)
		}
	}
	return after
}

// same reads all data of a disk, and finds out whether it is that of the islands.
func (s *islands) same(d *image.DiskReader) (bool, error) {
	whole := extent.Extent{Length: s.size}
	data, err := extent.Collect(d.Data(whole))
	if err != nil {
		return false, err
	}
	ours, err := extent.Collect(s.Data(whole))
	if err != nil || len(ours.Subtract(data)) > 0 || d.Size() != s.size {
		return false, err
	}
	for _, e := range data {
		got, want := make([]byte, e.Length), make([]byte, e.Length)
		if _, err := d.ReadAt(got, e.Offset); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if _, err := s.ReadAt(want, e.Offset); err != nil || !bytes.Equal(got, want) {
			return false, err
		}
	}
	return true, nil
}

// restoresIslands is not nil when a restore says that something is wrong. That one is different is the end of the test.
func restoresIslands(t *testing.T, r *image.Repository, want map[string]*islands) error {
	t.Helper()
	for id, content := range want {
		img, err := r.Image(t.Context(), id)
		if err != nil {
			return err
		}
		d, err := img.Disk(t.Context(), "d0")
		if err != nil {
			return err
		}
		same, err := content.same(d)
		if err != nil {
			return err
		}
		if !same {
			t.Fatalf("image %s restored to something else", id)
		}
	}
	return nil
}

// manyIslands makes three images of a disk that is so large that its root list has two pieces. The second and the third split a leaf into grains.
func manyIslands(t *testing.T, r *image.Repository) map[string]*islands {
	const size, split, far = 128<<30 + 5*mib + 300, mib + 70<<10, 100 << 30
	one := &islands{size: size, pieces: []island{{0, random(1, 2*mib)}, {far, random(2, 100<<10)}, {size - 300, random(3, 300)}}}
	backup(t, r, "one", disk("d0"), one)
	two := one.change(split, random(4, 512)).change(far, random(5, 1000))
	backup(t, r, "two", increment("d0", "one", extent.Extent{Offset: split, Length: 512}, extent.Extent{Offset: far, Length: 1000}), two)
	three := two.change(split+128<<10, random(6, 512)).change(size-1, []byte{7})
	m := backup(t, r, "three", increment("d0", "two", extent.Extent{Offset: split + 128<<10, Length: 512}, extent.Extent{Offset: size - 1, Length: 1}), three)
	if d := m.Disks[0]; d.New.Leaves != 2 || d.New.Bytes >= mib {
		t.Fatalf("the third image links to no grains: %+v", d)
	}
	return map[string]*islands{"one": one, "two": two, "three": three}
}

// I10: whatever byte of a repository changes, a restore says so or is right. It is never wrong.
func TestAFlippedByteIsNeverRestored(t *testing.T) {
	where := directory(t)
	r := create(t, where, image.Options{Compression: image.CompressionNone})
	want := manyIslands(t, r)
	places := map[string]int64{ // in blobs of a kind
		"p": 16, "q": 12, "x": 3, "hyperkeep-image-": 6,
		"kopia.repository": 3, "kopia.blobcfg": 3, // what is derived from the password takes long
		"s": 0, // markers of sessions, which nobody restores from
	}
	said, right := map[string]int{}, map[string]int{}
	for _, file := range blobs(t, where, "") {
		kind := kindOf(t, blobOf(t, where, file), places)
		for i := range places[kind] {
			at := length(t, file) * (2*i + 1) / (2 * places[kind])
			flip(t, file, at)
			if err := freshRestores(t, r, want); err != nil {
				said[kind]++
			} else {
				right[kind]++
			}
			flip(t, file, at)
		}
	}
	t.Logf("restores said so: %v, and were right in spite of it: %v", said, right)
	for kind, some := range map[string]int{"p": 30, "q": 20, "x": 20, "hyperkeep-image-": 18, "kopia.repository": 3, "kopia.blobcfg": 3} {
		if said[kind] < some {
			t.Errorf("%d flipped bytes were noticed in blobs %s*: the test does not reach what is in them", said[kind], kind)
		}
	}
	if err := freshRestores(t, r, want); err != nil {
		t.Errorf("everything is as it was, and yet: %v", err)
	}
}

func kindOf(t *testing.T, blob string, kinds map[string]int64) string {
	t.Helper()
	for kind := range kinds {
		if strings.HasPrefix(blob, kind) {
			return kind
		}
	}
	t.Fatalf("blob %s is of a kind that this test does not know", blob)
	return ""
}

func freshRestores(t *testing.T, r *image.Repository, want map[string]*islands) error {
	t.Helper()
	fresh, err := image.Fresh(t.Context(), r)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	defer fresh.Close(context.Background())
	return restoresIslands(t, fresh, want)
}
