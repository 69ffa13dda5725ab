package vhdx_test

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// made creates a file in memory and opens it for writing.
func made(t tester, o vhdx.Options, parents *vhdx.Disk) (*vhdx.Writer, *memory) {
	t.Helper()
	m := newMemory()
	size, err := vhdx.Create(m, o)
	must(t, err)
	w, err := vhdx.OpenWriter(m, size, parents)
	must(t, err)
	return w, m
}

// childOf creates a differencing file on top of a Writer's disk.
func childOf(t tester, parent *vhdx.Writer, o vhdx.Options) (*vhdx.Writer, *memory) {
	t.Helper()
	o.Parent = &vhdx.ParentRef{DataWriteID: parent.File().DataWriteID(), RelativePath: `.\parent.vhdx`}
	if o.VirtualSize == 0 {
		o.VirtualSize = parent.Size()
	}
	return made(t, o, parent.Disk())
}

func write(t tester, w *vhdx.Writer, off int64, p []byte) {
	t.Helper()
	_, err := w.WriteAt(p, off)
	must(t, err)
}

// TestChainsThatDoNotBelongTogether are refused with a reason, whoever opens them.
func TestChainsThatDoNotBelongTogether(t *testing.T) {
	base, _ := made(t, vhdx.Options{VirtualSize: 4 << 20}, nil)
	other, _ := made(t, vhdx.Options{VirtualSize: 4 << 20}, nil)
	child, _ := childOf(t, base, vhdx.Options{})
	wide, _ := made(t, vhdx.Options{VirtualSize: 4 << 20, LogicalSectorSize: 4096}, nil)
	m := newMemory()
	size, err := vhdx.Create(m, vhdx.Options{VirtualSize: 4 << 20, Parent: &vhdx.ParentRef{DataWriteID: wide.File().DataWriteID(), RelativePath: "w"}})
	must(t, err)
	narrow, err := vhdx.Open(m, size)
	must(t, err)
	cases := map[string]struct {
		members []*vhdx.File
		says    string
	}{
		"no files":                      {nil, "no files"},
		"a child alone":                 {[]*vhdx.File{child.File()}, "needs a parent"},
		"a child on another parent":     {[]*vhdx.File{child.File(), other.File()}, "replaced or written"},
		"files that are not related":    {[]*vhdx.File{base.File(), other.File()}, "has no parent"},
		"members in the wrong order":    {[]*vhdx.File{base.File(), child.File()}, "has no parent"},
		"sectors of different size":     {[]*vhdx.File{narrow, wide.File()}, "logical sectors"},
		"a child twice, without a base": {[]*vhdx.File{child.File(), child.File(), base.File()}, "replaced or written"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if _, err := vhdx.NewDisk(c.members...); !errors.Is(err, vhdx.ErrParentMismatch) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want a mismatch with %q", err, c.says)
			}
		})
	}
	t.Run("a parent that was written after the child was made", func(t *testing.T) {
		if _, err := vhdx.NewDisk(child.File(), base.File()); err != nil {
			t.Fatal(err)
		}
		must(t, base.Zero(0, 512))
		if _, err := vhdx.NewDisk(child.File(), base.File()); !errors.Is(err, vhdx.ErrParentMismatch) {
			t.Errorf("got %v", err)
		}
	})
}

// TestLinkageIsComparedWithoutCase accepts the upper-case GUIDs of other programs.
func TestLinkageIsComparedWithoutCase(t *testing.T) {
	base, _ := made(t, vhdx.Options{VirtualSize: 4 << 20}, nil)
	child, m := childOf(t, base, vhdx.Options{})
	linkage := utf16Bytes(base.File().DataWriteID().String())
	region := make([]byte, 8192)
	_, _ = m.ReadAt(region, metaAt+64<<10)
	upper := utf16Bytes(strings.ToUpper(base.File().DataWriteID().String()))
	if !bytes.Contains(region, linkage) {
		t.Fatal("the locator does not have the linkage")
	}
	_, _ = m.WriteAt(bytes.Replace(region, linkage, upper, 1), metaAt+64<<10)
	f, err := vhdx.Open(m, m.Size())
	must(t, err)
	if _, err := vhdx.NewDisk(f, base.File()); err != nil || f.ParentLinkage() != child.File().ParentLinkage() {
		t.Errorf("got %v", err)
	}
}

func utf16Bytes(s string) []byte {
	var b []byte
	for _, c := range s {
		b = append(b, byte(c), 0)
	}
	return b
}

// TestMembersOfDifferentSizes reads zeros behind the end of a smaller parent, and cuts a larger one.
func TestMembersOfDifferentSizes(t *testing.T) {
	base, _ := made(t, vhdx.Options{VirtualSize: 3<<20 + 512, BlockSize: 2 << 20}, nil)
	write(t, base, 0, bytes.Repeat([]byte{1}, 3<<20+512))
	for _, size := range []int64{8 << 20, 1 << 20} {
		child, m := childOf(t, base, vhdx.Options{VirtualSize: size, BlockSize: 1 << 20})
		want := make([]byte, size)
		copy(want, bytes.Repeat([]byte{1}, 3<<20+512))
		write(t, child, size-1024, []byte{7})
		want[size-1024] = 7
		verify(t, child.Disk(), want)
		if _, err := child.ReadAt(make([]byte, 10), size-5); err != io.EOF {
			t.Errorf("a read across the end returns %v", err)
		}
		f, err := vhdx.Open(m, m.Size())
		must(t, err)
		if err := vhdx.MergeRange(f, base, extent.Extent{Length: size}); !errors.Is(err, vhdx.ErrUnsupported) {
			t.Errorf("merging a disk of another size: %v", err)
		}
	}
}

// TestOptionsThatCannotBe are refused before the storage is touched.
func TestOptionsThatCannotBe(t *testing.T) {
	ref := &vhdx.ParentRef{DataWriteID: uuid.New(), RelativePath: "p"}
	for name, o := range map[string]vhdx.Options{
		"no size":                    {},
		"a size of half a sector":    {VirtualSize: 1<<20 + 1},
		"a size of more than 64 TiB": {VirtualSize: 64<<40 + 512},
		"blocks of 3 MiB":            {VirtualSize: 1 << 20, BlockSize: 3 << 20},
		"sectors of 1024 bytes":      {VirtualSize: 1 << 20, LogicalSectorSize: 1024},
		"physical sectors of 1 byte": {VirtualSize: 1 << 20, PhysicalSectorSize: 1},
		"a fixed child":              {VirtualSize: 1 << 20, Fixed: true, Parent: ref},
		"a parent without identity":  {VirtualSize: 1 << 20, Parent: &vhdx.ParentRef{RelativePath: "p"}},
		"a parent without a path":    {VirtualSize: 1 << 20, Parent: &vhdx.ParentRef{DataWriteID: uuid.New()}},
		"a parent with a long path":  {VirtualSize: 1 << 20, Parent: &vhdx.ParentRef{DataWriteID: uuid.New(), AbsolutePath: strings.Repeat("x", 40000)}},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			must(t, m.Truncate(77))
			if _, err := vhdx.Create(m, o); !errors.Is(err, vhdx.ErrUnsupported) || m.Size() != 77 {
				t.Errorf("got %v, and a storage of %d bytes", err, m.Size())
			}
		})
	}
}

// TestInfo shows what was asked for at creation.
func TestInfo(t *testing.T) {
	id := uuid.New()
	base, _ := made(t, vhdx.Options{VirtualSize: 40 << 40, VirtualDiskID: id, LogicalSectorSize: 4096, PhysicalSectorSize: 512}, nil)
	got := base.File().Info()
	if got.Kind != vhdx.Dynamic || got.VirtualSize != 40<<40 || got.BlockSize != 32<<20 || got.VirtualDiskID != id || got.LogicalSectorSize != 4096 ||
		got.PhysicalSectorSize != 512 || got.Creator != "Hyperkeep" || got.DirtyLog || len(got.Locator) != 0 {
		t.Errorf("got %+v", got)
	}
	child, _ := childOf(t, base, vhdx.Options{LogicalSectorSize: 4096, VirtualDiskID: id})
	got = child.File().Info()
	if got.Kind != vhdx.Differencing || got.BlockSize != 2<<20 || got.Locator[vhdx.KeyRelativePath] != `.\parent.vhdx` ||
		child.File().ParentLinkage() != base.File().DataWriteID() {
		t.Errorf("got %+v", got)
	}
	fixed, m := made(t, vhdx.Options{VirtualSize: 70 << 20, Fixed: true}, nil)
	if fixed.File().Kind() != vhdx.Fixed || m.Size() != 4<<20+96<<20 || fixed.File().ParentLinkage() != uuid.Nil {
		t.Errorf("got %+v in %d bytes", fixed.File().Info(), m.Size())
	}
}

// TestIdentityFollowsWrites: opening changes the FileWriteGuid only, the first write of a session the DataWriteGuid, once.
func TestIdentityFollowsWrites(t *testing.T) {
	w, m := made(t, vhdx.Options{VirtualSize: 4 << 20}, nil)
	first := w.File().Info()
	must(t, w.Close())
	w, err := vhdx.OpenWriter(m, m.Size(), nil)
	must(t, err)
	opened := w.File().Info()
	if opened.FileWriteID == first.FileWriteID || opened.DataWriteID != first.DataWriteID {
		t.Errorf("opening: %+v, before %+v", opened, first)
	}
	write(t, w, 0, []byte{1})
	written := w.File().DataWriteID()
	write(t, w, 0, []byte{2})
	if written == opened.DataWriteID || w.File().DataWriteID() != written {
		t.Error("the first write did not change the DataWriteGuid, or the second did")
	}
	if f, err := vhdx.Open(m, m.Size()); err != nil || f.DataWriteID() != written {
		t.Errorf("the file has %v, %v", f.DataWriteID(), err)
	}
}

// TestRangesOutsideOfTheDisk change nothing.
func TestRangesOutsideOfTheDisk(t *testing.T) {
	w, _ := made(t, vhdx.Options{VirtualSize: 4 << 20}, nil)
	id := w.File().DataWriteID()
	for _, e := range []extent.Extent{{Offset: -1, Length: 1}, {Offset: 4<<20 - 1, Length: 2}, {Offset: 1 << 62, Length: 1}} {
		if _, err := w.WriteAt(make([]byte, e.Length), e.Offset); !errors.Is(err, vhdx.ErrOutOfRange) {
			t.Errorf("write %v: %v", e, err)
		}
		if err := w.Zero(e.Offset, e.Length); !errors.Is(err, vhdx.ErrOutOfRange) {
			t.Errorf("zero %v: %v", e, err)
		}
		if err := w.Trim(e.Offset, e.Length); !errors.Is(err, vhdx.ErrOutOfRange) {
			t.Errorf("trim %v: %v", e, err)
		}
	}
	if _, err := w.ReadAt(make([]byte, 1), -1); !errors.Is(err, vhdx.ErrOutOfRange) {
		t.Errorf("read: %v", err)
	}
	if w.File().DataWriteID() != id {
		t.Error("the DataWriteGuid changed")
	}
}

// TestPresentIsWhatTheMemberHolds at the granularity of sectors, with zeros that hide the parent.
func TestPresentIsWhatTheMemberHolds(t *testing.T) {
	base, _ := made(t, vhdx.Options{VirtualSize: 16 << 20, BlockSize: 1 << 20}, nil)
	write(t, base, 0, bytes.Repeat([]byte{1}, 16<<20))
	child, _ := childOf(t, base, vhdx.Options{})
	write(t, child, 1<<20+512, make([]byte, 1024))
	write(t, child, 1<<20+3*512, make([]byte, 1))
	must(t, child.Trim(4<<20, 2<<20))
	write(t, child, 6<<20, make([]byte, 2<<20))
	got, err := extent.Collect(child.Present(extent.Extent{Length: 7 << 20}))
	want := extent.List{{Offset: 1<<20 + 512, Length: 3 * 512}, {Offset: 4 << 20, Length: 3 << 20}}
	if err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	data, err := extent.Collect(child.Disk().Data(extent.Extent{Offset: 3 << 20, Length: 1 << 40}))
	if err != nil || len(data) != 2 || data[0] != (extent.Extent{Offset: 3 << 20, Length: 1 << 20}) || data[1] != (extent.Extent{Offset: 6 << 20, Length: 10 << 20}) {
		t.Errorf("data %v, %v", data, err)
	}
	for range child.Disk().Data(extent.Extent{Length: 16 << 20}) {
		break // a consumer may stop at any time
	}
}

// readSizes notes the length of every read.
type readSizes struct {
	*memory
	mu    sync.Mutex
	sizes []int
}

func (r *readSizes) ReadAt(p []byte, off int64) (int, error) {
	r.mu.Lock()
	r.sizes = append(r.sizes, len(p))
	r.mu.Unlock()
	return r.memory.ReadAt(p, off)
}

// TestReadsAreCoalesced: neighbouring sectors, and blocks that lie side by side in the file, are one read.
func TestReadsAreCoalesced(t *testing.T) {
	base, _ := made(t, vhdx.Options{VirtualSize: 8 << 20}, nil)
	child, m := childOf(t, base, vhdx.Options{})
	write(t, child, 4096, bytes.Repeat([]byte{1}, 100*512))
	write(t, child, 2<<20, bytes.Repeat([]byte{2}, 4<<20))
	must(t, child.Close())
	r := &readSizes{memory: m}
	f, err := vhdx.Open(r, m.Size())
	must(t, err)
	disk, err := vhdx.NewDisk(f, base.File())
	must(t, err)
	if _, err := extent.Collect(disk.Data(extent.Extent{Length: 8 << 20})); err != nil {
		t.Fatal(err)
	}
	r.sizes = nil
	_, err = disk.ReadAt(make([]byte, 8<<20), 0)
	must(t, err)
	if len(r.sizes) != 2 || r.sizes[0] != 100*512 || r.sizes[1] != 4<<20 {
		t.Errorf("reads of %v bytes, want one of %d and one of %d", r.sizes, 100*512, 4<<20)
	}
}

// TestTablesOfHugeDisksStayOnDisk walks and writes a disk of 64 TiB with a BAT of 128 MiB in little memory (T10).
func TestTablesOfHugeDisksStayOnDisk(t *testing.T) {
	w, _ := made(t, vhdx.Options{VirtualSize: 64 << 40, BlockSize: 4 << 20}, nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var want extent.List
	for i := range int64(2000) {
		at := i * 32 << 30
		write(t, w, at, []byte{1})
		want = append(want, extent.Extent{Offset: at, Length: 4 << 20})
	}
	got, err := extent.Collect(w.Disk().Data(extent.Extent{Length: w.Size()}))
	must(t, err)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if len(got.Subtract(want)) != 0 || len(want.Subtract(got)) != 0 {
		t.Errorf("got %d extents, want %d", len(got), len(want))
	}
	// The storage of the test takes up to two pages for each block.
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 2000*2*pageSize+32<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

// BenchmarkReadSequential reads 256 MiB of a chain whose sectors come from two members.
func BenchmarkReadSequential(b *testing.B) {
	base, _ := made(b, vhdx.Options{VirtualSize: 256 << 20}, nil)
	write(b, base, 0, bytes.Repeat([]byte{1}, 256<<20))
	child, _ := childOf(b, base, vhdx.Options{})
	for at := int64(0); at < 256<<20; at += 1 << 20 {
		write(b, child, at, make([]byte, 64<<10))
	}
	buf := make([]byte, 1<<20)
	b.SetBytes(256 << 20)
	for b.Loop() {
		for at := int64(0); at < 256<<20; at += int64(len(buf)) {
			if _, err := child.ReadAt(buf, at); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkDataWalk finds the data of a disk of 16 TiB in blocks of 2 MiB of which every 1024th is in use, below an empty child.
func BenchmarkDataWalk(b *testing.B) {
	base, _ := made(b, vhdx.Options{VirtualSize: 16 << 40, BlockSize: 2 << 20}, nil)
	for at := int64(0); at < 16<<40; at += 2 << 30 {
		write(b, base, at, []byte{1})
	}
	child, _ := childOf(b, base, vhdx.Options{})
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range child.Disk().Data(extent.Extent{Length: 16 << 40}) {
			if n++; err != nil {
				b.Fatal(err)
			}
		}
		if n != 16<<40/(2<<30) {
			b.Fatal(n)
		}
	}
}
