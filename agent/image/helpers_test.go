package image_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

const password = "correct horse"

func directory(t testing.TB) image.Location {
	return image.Location{Filesystem: &image.FilesystemLocation{Path: filepath.Join(t.TempDir(), "repository")}}
}

func create(t testing.TB, loc image.Location, opts image.Options) *image.Repository {
	t.Helper()
	if opts.WorkDir == "" {
		opts.WorkDir = t.TempDir()
	}
	r, err := image.OpenOrCreate(context.Background(), loc, password, image.WithFastPassword(opts))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if left, _ := os.ReadDir(opts.WorkDir); len(left) > 0 {
			t.Errorf("the working directory still has %v", left)
		}
	})
	return r
}

// memory is a disk in memory. What no extent of data covers must be zeros and must not be read.
type memory struct {
	bytes []byte
	data  extent.List
	reads atomic.Int64
}

func allocated(b []byte) *memory {
	return &memory{bytes: b, data: extent.Normalize([]extent.Extent{{Length: int64(len(b))}})}
}

func (m *memory) Size() int64 { return int64(len(m.bytes)) }

func (m *memory) Data(window extent.Extent) extent.Seq {
	return m.data.Intersect(extent.List{window}).Seq()
}

func (m *memory) ReadAt(p []byte, offset int64) (int, error) {
	asked := extent.List{{Offset: offset, Length: int64(len(p))}}
	if holes := asked.Subtract(m.data); len(holes) > 0 {
		return 0, fmt.Errorf("the hole %v was read", holes)
	}
	m.reads.Add(int64(len(p)))
	return bytes.NewReader(m.bytes).ReadAt(p, offset)
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func spec(id string) image.ImageSpec {
	return image.ImageSpec{
		ID: id, TaskUID: "task-" + id, Policy: "daily", Tool: "test",
		VM:      image.VM{ID: "4f3c1e0a-0000-4000-8000-000000000001", Name: "web 01", Host: "hv01"},
		TakenAt: epoch, Consistency: "ApplicationConsistent", Method: "RCT",
	}
}

func disk(key string) image.DiskSpec {
	return image.DiskSpec{Key: key, Name: key, VirtualDiskID: "vd-" + key, LogicalSectorSize: 512, PhysicalSectorSize: 4096}
}

func increment(key, base string, changed ...extent.Extent) image.DiskSpec {
	d := disk(key)
	d.Increment = &image.Increment{BaseImageID: base, Changed: extent.Normalize(changed).Seq()}
	return d
}

func open(context.Context) error { return nil }

// backup publishes an image of one disk.
func backup(t testing.TB, r *image.Repository, id string, d image.DiskSpec, src image.Source) image.Manifest {
	t.Helper()
	m, err := tryBackup(r, id, d, src)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func tryBackup(r *image.Repository, id string, d image.DiskSpec, src image.Source) (m image.Manifest, err error) {
	ctx := context.Background()
	w, err := r.Begin(ctx, spec(id))
	if err != nil {
		return m, err
	}
	defer w.Close(ctx)
	if _, err := w.AddDisk(ctx, d, src, nil); err != nil {
		return m, err
	}
	return w.Publish(ctx, open)
}

// restore reads a disk whole.
func restore(r *image.Repository, id, key string) ([]byte, error) {
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

func mustRestore(t testing.TB, r *image.Repository, id, key string, want []byte) {
	t.Helper()
	got, err := restore(r, id, key)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("disk %s of image %s differs from what was backed up", key, id)
	}
}
