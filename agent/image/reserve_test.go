package image

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/manifest"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// calendar is a clock that a test moves on, and the times that a storage gave its blobs by it.
type calendar struct {
	mu     sync.Mutex
	at     time.Time
	stored map[blob.ID]time.Time
}

func newCalendar() *calendar {
	return &calendar{at: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), stored: map[blob.ID]time.Time{}}
}

func (c *calendar) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(time.Millisecond) // no two things happen at once
	return c.at
}

func (c *calendar) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func (c *calendar) options(t testing.TB) Options {
	return WithFastPassword(Options{WorkDir: t.TempDir(), Parallelism: 1, Now: c.now, decorate: func(inner blob.Storage) blob.Storage {
		return dated{inner, c}
	}})
}

// dated is a storage with the calendar's clock.
type dated struct {
	blob.Storage
	*calendar
}

func (d dated) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	err := d.Storage.PutBlob(ctx, id, data, opts)
	now := d.now()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.stored[id] = now
	return err
}

func (d dated) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	m, err := d.Storage.GetMetadata(ctx, id)
	return d.date(m), err
}

func (d dated) ListBlobs(ctx context.Context, prefix blob.ID, callback func(blob.Metadata) error) error {
	return d.Storage.ListBlobs(ctx, prefix, func(m blob.Metadata) error { return callback(d.date(m)) })
}

func (c *calendar) date(m blob.Metadata) blob.Metadata {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.Timestamp = c.stored[m.BlobID]
	return m
}

// CollectWithCare deletes an image and maintains the repository for days, as safely as next to running backups. It tells what that freed.
func CollectWithCare(t testing.TB, where Location, password, deleted string) (freed int64) {
	t.Helper()
	c := newCalendar()
	c.at = time.Now()
	keeper, err := Open(t.Context(), where, password, c.options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close(context.Background())
	if err := keeper.Delete(t.Context(), deleted); err != nil {
		t.Fatal(err)
	}
	for range 6 {
		c.advance(25 * time.Hour)
		done, err := keeper.Maintain(t.Context(), MaintainOptions{Full: true})
		if err != nil {
			t.Fatal(err)
		}
		freed += done.FreedBytes
	}
	return freed
}

// pausing is a disk with something at the start of each segment, and in the second one with enough for a pack of its own, that calls a function when a segment is read.
type pausing struct {
	bytes []byte
	data  extent.List
	read  func(segment int64)
}

func newPausing(segments int, seed uint64) *pausing {
	p := &pausing{bytes: make([]byte, segments*SegmentSize), read: func(int64) {}}
	for i := range segments {
		length := int64(LeafSize)
		if i == 1 {
			length = 24 * LeafSize // thin packs are rewritten again and again, which puts dropping them off
		}
		p.data = append(p.data, p.fill(int64(i), seed, length))
	}
	return p
}

// fill writes something new to the start of a segment.
func (p *pausing) fill(segment int64, seed uint64, length int64) extent.Extent {
	e := extent.Extent{Offset: segment * SegmentSize, Length: length}
	rand.NewChaCha8([32]byte{byte(seed), byte(segment)}).Read(p.bytes[e.Offset:e.End()])
	return e
}

func (p *pausing) Size() int64 { return int64(len(p.bytes)) }

func (p *pausing) Data(window extent.Extent) extent.Seq {
	return p.data.Intersect(extent.List{window}).Seq()
}

func (p *pausing) ReadAt(b []byte, offset int64) (int, error) {
	p.read(offset / SegmentSize)
	return bytes.NewReader(p.bytes).ReadAt(b, offset)
}

func backupOf(ctx context.Context, r *Repository, id string, increment *Increment, src Source) error {
	w, err := r.Begin(ctx, ImageSpec{ID: id, TaskUID: id, VM: VM{ID: "vm", Name: "vm", Host: "hv"}, TakenAt: r.opts.Now()})
	if err != nil {
		return err
	}
	defer w.Close(ctx)
	spec := DiskSpec{Key: "d0", Name: "d0", VirtualDiskID: "v", Increment: increment}
	if _, err := w.AddDisk(ctx, spec, src, nil); err != nil {
		return err
	}
	_, err = w.Publish(ctx, func(context.Context) error { return nil })
	return err
}

func checkDisk(t *testing.T, r *Repository, id string, want []byte) {
	t.Helper()
	img, err := r.Image(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	d, err := img.Disk(t.Context(), "d0")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(d, 0, d.Size()))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("image %s differs: %v", id, err)
	}
}

// R6: the base of a running increment is deleted, and everything that it alone had is collected as often as it takes to drop it, while the increment
// still reads. What it links to is reserved: it publishes, restores, and loses nothing later.
func TestARunningIncrementKeepsWhatItsBaseHad(t *testing.T) {
	c := newCalendar()
	where := Location{Filesystem: &FilesystemLocation{Path: filepath.Join(t.TempDir(), "repository")}}
	r, err := OpenOrCreate(t.Context(), where, "correct horse", c.options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(context.Background())
	keeper, err := Open(t.Context(), where, "correct horse", c.options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close(context.Background())
	maintain := func(after time.Duration) {
		t.Helper()
		c.advance(after)
		if done, err := keeper.Maintain(t.Context(), MaintainOptions{Full: true}); err != nil {
			t.Fatalf("%+v, %v", done, err)
		}
	}

	disk := newPausing(4, 1)
	if err := backupOf(t.Context(), r, "base", nil, disk); err != nil {
		t.Fatal(err)
	}
	c.advance(30 * time.Hour) // old enough to be collected
	changed := []extent.Extent{disk.fill(0, 2, LeafSize), disk.fill(2, 2, LeafSize)}
	paused := 0
	disk.read = func(segment int64) {
		switch {
		case segment == 0:
			c.advance(50 * time.Minute)
		case segment == 2 && paused == 0:
			paused++
			if err := keeper.Delete(t.Context(), "base"); err != nil {
				t.Fatal(err)
			}
			for range 4 {
				maintain(5 * time.Hour)
			}
		}
	}
	if err := backupOf(t.Context(), r, "two", &Increment{BaseImageID: "base", Changed: extent.Normalize(changed).Seq()}, disk); err != nil {
		t.Fatal(err)
	}
	if paused == 0 {
		t.Fatal("nothing was collected while the increment ran")
	}
	checkDisk(t, r, "two", disk.bytes)
	if err := keeper.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := keeper.session.FindManifests(t.Context(), map[string]string{manifest.TypeLabelKey: reservationType})
	if err != nil || len(left) > 0 {
		t.Errorf("still reserved: %v, %v", left, err)
	}
	for range 4 {
		maintain(25 * time.Hour)
	}
	checkDisk(t, keeper, "two", disk.bytes)
	if found, err := keeper.Verify(t.Context(), "two", nil); err != nil || !found.Sound() {
		t.Errorf("%+v, %v", found, err)
	}
}
