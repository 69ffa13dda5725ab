package image_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"pgregory.net/rapid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

// model is a disk that changes, and what each image of it has to restore to.
type model struct {
	t       *rapid.T
	repo    *image.Repository
	clock   *clock
	disk    *memory
	changed extent.List // since the newest image
	base    string      // the newest image
	images  map[string][]byte
	next    int
}

func newModel(t *rapid.T, r *image.Repository, c *clock) *model {
	size := rapid.SampledFrom([]int{1, 511, mib - 1, mib, mib + 1, 64*mib - 512, 64 * mib, 64*mib + 512, 65 * mib, 130*mib + 7}).Draw(t, "size")
	m := &model{t: t, repo: r, clock: c, disk: &memory{bytes: make([]byte, size)}, images: map[string][]byte{}}
	m.write()
	return m
}

func (m *model) window() extent.Extent {
	size := int64(len(m.disk.bytes))
	offset := rapid.Int64Range(0, size-1).Draw(m.t, "offset")
	return extent.Extent{Offset: offset, Length: rapid.Int64Range(1, min(size-offset, 3*mib)).Draw(m.t, "length")}
}

// write changes a range: bytes, bytes that are zeros, or the bytes that were there already.
func (m *model) write() {
	e := m.window()
	part := m.disk.bytes[e.Offset:e.End()]
	switch rapid.SampledFrom([]string{"random", "zeros", "same"}).Draw(m.t, "content") {
	case "random":
		copy(part, random(rapid.Uint64Range(1, 1<<20).Draw(m.t, "seed"), len(part)))
	case "zeros":
		clear(part)
	}
	m.disk.data = extent.Normalize(append(slices.Clone(m.disk.data), e))
	m.changed = extent.Normalize(append(slices.Clone(m.changed), e))
}

// trim makes a range unallocated.
func (m *model) trim() {
	e := m.window()
	clear(m.disk.bytes[e.Offset:e.End()])
	m.disk.data = m.disk.data.Subtract(extent.List{e})
	m.changed = extent.Normalize(append(slices.Clone(m.changed), e))
}

func (m *model) backup(incremental bool) {
	m.next++
	id := fmt.Sprintf("image-%d", m.next)
	d := disk("d0")
	if _, kept := m.images[m.base]; incremental && kept {
		d = increment("d0", m.base, m.changed...)
	}
	manifest, err := tryBackup(m.repo, id, d, m.disk)
	if err != nil {
		m.t.Fatal(err)
	}
	r := manifest.Disks[0]
	if r.New.Bytes+r.Linked.Bytes+r.Zero.Bytes != r.Size || r.ReadBytes > m.disk.data.Bytes() {
		m.t.Fatalf("accounts: %+v", r)
	}
	m.images[id] = bytes.Clone(m.disk.bytes)
	m.base, m.changed = id, nil
}

func (m *model) drop() {
	if len(m.images) == 0 {
		return
	}
	id := rapid.SampledFrom(slices.Sorted(maps.Keys(m.images))).Draw(m.t, "image")
	delete(m.images, id)
	ctx := context.Background()
	if err := m.repo.Delete(ctx, id); err != nil {
		m.t.Fatal(err)
	}
	if rapid.Bool().Draw(m.t, "maintain") {
		collect(m.t, m.repo, m.clock)
	}
}

// clock runs four minutes behind the real one and can be moved on. The files of a repository have real times: contents must not be
// younger than those, and maintenance allows a skew of five minutes.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load()) - 4*time.Minute) }

// collect frees what no image uses. Kopia counts in seconds and needs two rounds: the first marks, the second drops.
func collect(t rapid.TB, r *image.Repository, c *clock) {
	t.Helper()
	for range 2 {
		c.ahead.Add(int64(2 * time.Second))
		if _, err := r.Maintain(context.Background(), image.MaintainOptions{Full: true, Safety: image.SafetyNone}); err != nil {
			t.Fatal(err)
		}
	}
}

// check restores every image, and reads a window of one, against what was there when it was taken.
func (m *model) check() {
	for id, want := range m.images {
		got, err := restore(m.repo, id, "d0")
		if err != nil {
			m.t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			m.t.Fatalf("image %s differs", id)
		}
		m.checkWindow(id, want)
	}
}

func (m *model) checkWindow(id string, want []byte) {
	ctx := context.Background()
	img, err := m.repo.Image(ctx, id)
	if err != nil {
		m.t.Fatal(err)
	}
	d, err := img.Disk(ctx, "d0")
	if err != nil {
		m.t.Fatal(err)
	}
	e := m.window()
	part := make([]byte, e.Length)
	if _, err := d.ReadAt(part, e.Offset); err != nil || !bytes.Equal(part, want[e.Offset:e.End()]) {
		m.t.Fatalf("%s of %s differs: %v", e, id, err)
	}
	data, err := extent.Collect(d.Data(e))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, hole := range (extent.List{e}).Subtract(data) {
		if len(bytes.TrimLeft(want[hole.Offset:hole.End()], "\x00")) > 0 {
			m.t.Fatalf("%s of %s is said to be a hole", hole, id)
		}
	}
	if outside := data.Subtract(extent.List{e}); len(outside) > 0 {
		m.t.Fatalf("data %v is outside of %s", outside, e)
	}
}

// AC-11, AC-13: whatever chain of increments an image is in, and whatever other images are deleted and collected, it restores to the byte.
func TestEveryImageRestoresWhateverElseIsDeleted(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var c clock
		r := create(t, directory(t), image.Options{Parallelism: 3, Now: c.now})
		m := newModel(rt, r, &c)
		for range rapid.IntRange(2, 5).Draw(rt, "rounds") {
			for range rapid.IntRange(0, 3).Draw(rt, "changes") {
				if rapid.Bool().Draw(rt, "trim") {
					m.trim()
				} else {
					m.write()
				}
			}
			m.backup(rapid.IntRange(0, 4).Draw(rt, "full") > 0)
			if rapid.IntRange(0, 2).Draw(rt, "drop") == 0 {
				m.drop()
			}
		}
		m.check()
	})
}

func TestMaintenanceFreesWhatNoImageUses(t *testing.T) { // AC-13
	ctx := context.Background()
	var c clock
	r := create(t, directory(t), image.Options{Now: c.now})
	kept, gone := random(1, 8*mib), random(2, 40*mib) // a whole pack of it, which is not shared with what is kept
	backup(t, r, "kept", disk("d0"), allocated(kept))
	backup(t, r, "gone", disk("d0"), allocated(gone))
	before := stored(t, r)
	if err := r.Delete(ctx, "gone"); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(ctx, "gone"); err != nil {
		t.Errorf("the second time: %v", err)
	}
	if _, err := r.Maintain(ctx, image.MaintainOptions{Full: true, Safety: image.SafetyFull}); err != nil {
		t.Fatal(err)
	}
	if after := stored(t, r); after < before-mib {
		t.Errorf("safe maintenance freed %d bytes at once, which a running backup may need", before-after)
	}
	collect(t, r, &c)
	if after := stored(t, r); after > before-32*mib {
		t.Errorf("%d bytes before, %d after", before, after)
	}
	if _, err := r.Maintain(ctx, image.MaintainOptions{}); err != nil {
		t.Errorf("quick: %v", err)
	}
	mustRestore(t, r, "kept", "d0", kept)
}

func stored(t testing.TB, r *image.Repository) int64 {
	t.Helper()
	s, err := r.Stats(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if s.Blobs == 0 || s.IndexBlobs == 0 || s.CapacityBytes == 0 {
		t.Errorf("%+v", s)
	}
	return s.StoredBytes
}

// sparse is a huge disk: zeros, but for a few ranges, each filled with one byte.
type sparse struct {
	size  int64
	data  extent.List
	fill  func(offset int64) byte
	reads atomic.Int64
}

func (s *sparse) Size() int64 { return s.size }

func (s *sparse) Data(window extent.Extent) extent.Seq {
	return s.data.Intersect(extent.List{window}).Seq()
}

func (s *sparse) ReadAt(p []byte, offset int64) (int, error) {
	s.reads.Add(int64(len(p)))
	rng := rand.New(rand.NewPCG(uint64(offset), uint64(s.fill(offset)))) //nolint:gosec // content of a test disk
	for i := range p {
		p[i] = byte(rng.Uint32())
	}
	return len(p), nil
}

// counted is a storage that counts what is read of it.
type counted struct {
	blob.Storage
	gets, got, put *atomic.Int64
}

func (c counted) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	err := c.Storage.GetBlob(ctx, id, offset, length, out)
	c.gets.Add(1)
	c.got.Add(int64(out.Length()))
	return err
}

func (c counted) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	c.put.Add(int64(data.Length()))
	return c.Storage.PutBlob(ctx, id, data, opts)
}

// AC-10: what an increment costs follows the changed bytes. Beyond them there is one piece of the root list, and where the others are.
func TestAnIncrementOfAHugeDiskCostsWhatChanged(t *testing.T) {
	type cost struct{ gets, got, put, stored, reads int64 }
	measure := func(size int64) cost {
		var gets, got, put atomic.Int64
		r := create(t, directory(t), image.WithDecorator(image.Options{Parallelism: 1}, func(inner blob.Storage) blob.Storage {
			return counted{inner, &gets, &got, &put}
		}))
		src := &sparse{size: size, fill: func(int64) byte { return 1 }}
		for i := int64(0); i < 16; i++ { // data spread over the disk
			src.data = append(src.data, extent.Extent{Offset: i * (size / 16), Length: mib})
		}
		backup(t, r, "one", disk("d0"), src)
		for _, n := range []*atomic.Int64{&gets, &got, &put, &src.reads} {
			n.Store(0)
		}
		src.fill = func(int64) byte { return 2 }
		m := backup(t, r, "two", increment("d0", "one", src.data[8]), src)
		if d := m.Disks[0]; d.New.Leaves != 1 || d.Linked.Bytes != size-mib {
			t.Errorf("%+v", d)
		}
		return cost{gets: gets.Load(), got: got.Load(), put: put.Load(), stored: m.StoredBytes, reads: src.reads.Load()}
	}
	small := measure(64 << 30)
	for _, size := range []int64{1 << 40, 16 << 40} {
		large := measure(size)
		t.Logf("64 GiB: %+v, %d TiB: %+v", small, size>>40, large)
		if small.reads != mib || large.reads != mib {
			t.Errorf("read %d and %d bytes for a change of 1 MiB", small.reads, large.reads)
		}
		if large.stored-small.stored > 64<<10 {
			t.Errorf("stored %d bytes for 64 GiB, %d for %d TiB", small.stored, large.stored, size>>40)
		}
		if grown := large.gets - small.gets; grown > 6 {
			t.Errorf("%d requests for 64 GiB, %d for %d TiB: more is read of the root than a piece", small.gets, large.gets, size>>40)
		}
		if large.got-small.got > 128<<10 {
			t.Errorf("%d bytes fetched for 64 GiB, %d for %d TiB", small.got, large.got, size>>40)
		}
	}
}
