package recovery

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

const mib = 1 << 20

// memory is the disk that was backed up.
type memory struct {
	bytes []byte
	data  extent.List
}

func (m *memory) Size() int64                     { return int64(len(m.bytes)) }
func (m *memory) Data(w extent.Extent) extent.Seq { return m.data.Intersect(extent.List{w}).Seq() }
func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.bytes).ReadAt(p, off)
}
func (m *memory) fill(seed uint64, parts ...extent.Extent) {
	random := rand.NewChaCha8([32]byte{byte(seed)})
	for _, e := range parts {
		_, _ = random.Read(m.bytes[e.Offset:e.End()])
	}
	m.data = extent.Normalize(append(m.data, parts...))
}

// scattered is a disk of 200 MiB and one sector, with data in all of its windows, a long hole and some zeros that count as data.
func scattered() *memory {
	m := &memory{bytes: make([]byte, 200*mib+512)}
	m.fill(1, extent.Extent{Offset: mib / 2, Length: 6 * mib}, extent.Extent{Offset: 63 * mib, Length: 4*mib + 512}, extent.Extent{Offset: 130 * mib, Length: 7 * mib},
		extent.Extent{Offset: 199 * mib, Length: mib + 512})
	clear(m.bytes[132*mib+4096 : 134*mib])
	return m
}

// backedUp is a repository with an image of disks, by key.
func backedUp(t testing.TB, disks map[string]*memory) *image.Repository {
	t.Helper()
	ctx := context.Background()
	at := image.Location{Filesystem: &image.FilesystemLocation{Path: filepath.Join(t.TempDir(), "repository")}}
	r, err := image.OpenOrCreate(ctx, at, "correct horse", image.Options{WorkDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(ctx) })
	w, err := r.Begin(ctx, image.ImageSpec{ID: "one", TaskUID: "one", VM: image.VM{ID: "4f3c1e0a", Name: "web 01"}})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	for key, content := range disks {
		spec := image.DiskSpec{Key: key, Name: key + ".vhdx", LogicalSectorSize: 512, PhysicalSectorSize: 4096}
		if _, err := w.AddDisk(ctx, spec, content, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.AddFile(ctx, "machine.vmcx", bytes.NewReader([]byte("settings"))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Publish(ctx, func(context.Context) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return r
}

func openDisk(t testing.TB, r *image.Repository, key string) *image.DiskReader {
	t.Helper()
	img, err := r.Image(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	disk, err := img.Disk(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

// volatile is a file of a machine that loses power: after so many more changes nothing happens any more, and of what was not synced a part is lost.
type volatile struct {
	mu      sync.Mutex
	left    int
	durable []byte
	now     []byte
	pending []func([]byte) []byte
}

var errPower = errors.New("the power is gone")

func (v *volatile) change(how func([]byte) []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.left--; v.left < 0 {
		return errPower
	}
	v.now = how(v.now)
	v.pending = append(v.pending, how)
	return nil
}

func (v *volatile) ReadAt(p []byte, off int64) (int, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if off >= int64(len(v.now)) {
		return 0, io.EOF
	}
	n := copy(p, v.now[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (v *volatile) WriteAt(p []byte, off int64) (int, error) {
	kept := slices.Clone(p)
	err := v.change(func(b []byte) []byte {
		if missing := int(off) + len(kept) - len(b); missing > 0 {
			b = append(b, make([]byte, missing)...)
		}
		copy(b[off:], kept)
		return b
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

func (v *volatile) Truncate(size int64) error {
	return v.change(func(b []byte) []byte {
		if int64(len(b)) >= size {
			return slices.Clone(b[:size])
		}
		return append(b, make([]byte, size-int64(len(b)))...)
	})
}

func (v *volatile) Sync() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.left--; v.left < 0 {
		return errPower
	}
	for _, how := range v.pending {
		v.durable = how(v.durable)
	}
	v.pending = nil
	return nil
}

// fail loses a part of what was not synced, and gives the machine power again for so many changes.
func (v *volatile) fail(random *rand.Rand, left int) {
	for _, how := range v.pending {
		if random.IntN(2) == 0 {
			v.durable = how(v.durable)
		}
	}
	v.now, v.pending, v.left = slices.Clone(v.durable), nil, left
}

// A restore that loses power at any point goes on from its last checkpoint, and ends with the bytes of the image.
func TestACopyGoesOnAfterALossOfPower(t *testing.T) {
	content := scattered()
	source := openDisk(t, backedUp(t, map[string]*memory{"d0": content}), "d0")
	for _, format := range []Format{Raw, VHDX} {
		t.Run(string(format), func(t *testing.T) {
			for seed := range uint64(8) {
				survives(t, source, content, format, rand.New(rand.NewPCG(seed, 7)))
			}
		})
	}
}

func survives(t *testing.T, source *image.DiskReader, content *memory, format Format, random *rand.Rand) {
	file := &volatile{}
	var saved extent.List
	for attempt := 0; ; attempt++ {
		file.fail(random, 15+random.IntN(60))
		before := saved
		var written atomic.Int64
		err := attemptCopy(t.Context(), source, file, format, &saved, &written)
		if err == nil {
			break
		}
		if !errors.Is(err, errPower) {
			t.Fatal(err)
		}
		if lost := before.Subtract(saved); len(lost) > 0 {
			t.Fatalf("a checkpoint forgot %v", lost)
		}
		if attempt > 100 {
			t.Fatalf("no progress beyond %v", saved)
		}
	}
	if got := contentOf(t, file, format); !bytes.Equal(got, content.bytes) {
		t.Fatal("the restored disk differs")
	}
}

// attemptCopy does what an owner of the copy does: it makes the file, or goes on with it when there was a checkpoint.
func attemptCopy(ctx context.Context, source *image.DiskReader, file *volatile, format Format, saved *extent.List, written *atomic.Int64) error {
	var target Target
	var err error
	if len(*saved) > 0 {
		target, err = Reopen(file, int64(len(file.now)), format, source.Record())
	} else {
		target, err = Create(file, format, source.Record(), uuid.New())
	}
	if err != nil {
		return err
	}
	job := &Copy{Source: source, Target: target, Finished: *saved, Written: written, Parallelism: 2, every: 1, Checkpoint: func(l extent.List) error {
		*saved = slices.Clone(l)
		return nil
	}}
	if err := job.Run(ctx); err != nil {
		return err
	}
	return target.Close()
}

func contentOf(t *testing.T, file *volatile, format Format) []byte {
	if format == Raw {
		return file.now
	}
	opened, err := vhdx.Open(file, int64(len(file.now)))
	if err != nil {
		t.Fatal(err)
	}
	disk, err := vhdx.NewDisk(opened)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, disk.Size())
	if _, err := disk.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	return got
}

// What a checkpoint said is finished is neither read nor written again.
func TestAFinishedWindowIsLeftAlone(t *testing.T) {
	content := scattered()
	source := openDisk(t, backedUp(t, map[string]*memory{"d0": content}), "d0")
	file := &volatile{left: 1 << 20}
	target, err := Create(file, Raw, source.Record(), uuid.Nil)
	if err != nil {
		t.Fatal(err)
	}
	var written atomic.Int64
	job := &Copy{Source: source, Target: target, Finished: extent.List{{Length: 128 * mib}}, Written: &written}
	if err := job.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := bytes.Clone(content.bytes)
	clear(want[:128*mib])
	if !bytes.Equal(file.now, want) {
		t.Error("a finished window was written, or another was not")
	}
	if data, _, err := Needs(source, Raw); err != nil || written.Load() != data {
		t.Errorf("%d of %d bytes are said to be behind the copy: %v", written.Load(), data, err)
	}
}

// TestWriteDataLeavesHolesOut writes pieces with runs of zeros and reads them back through the VHDX reader.
func TestWriteDataLeavesHolesOut(t *testing.T) {
	const size = 8 << 20
	path := filepath.Join(t.TempDir(), "disk.vhdx")
	rapid.Check(t, func(t *rapid.T) {
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		target, err := Create(file, VHDX, image.DiskRecord{Size: size}, uuid.New())
		if err != nil {
			t.Fatal(err)
		}
		disk := target.(*vhdx.Writer)
		filled := make([]byte, piece)
		for _, at := range rapid.SliceOfN(rapid.IntRange(0, len(filled)-1), 0, 5).Draw(t, "bytes") {
			filled[at] = 1
		}
		at := rapid.Int64Range(0, size/piece-1).Draw(t, "place") * piece
		if err := writeData(target, filled, at); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, size)
		if _, err := disk.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		want := make([]byte, size)
		copy(want[at:], filled)
		if !bytes.Equal(got, want) {
			t.Fatal("the disk differs")
		}
		if data, err := extent.Collect(disk.Disk().Data(extent.Extent{Length: size})); err != nil || bytes.Count(filled, []byte{1}) == 0 && len(data) > 0 {
			t.Fatalf("zeros were written: %v, %v", data, err)
		}
	})
}
