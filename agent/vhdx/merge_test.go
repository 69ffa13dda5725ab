package vhdx_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// TestMergeOfADiskInUse merges the topmost file into its parent while the guest goes on writing, and then lets the guest continue on the parent
// without a pause in its data.
func TestMergeOfADiskInUse(t *testing.T) {
	const size = 12 << 20
	base, baseStorage := made(t, vhdx.Options{VirtualSize: size, BlockSize: 4 << 20}, nil)
	write(t, base, 1<<20, bytes.Repeat([]byte{1}, 5<<20))
	must(t, base.Close())
	child, childStorage := childOf(t, base, vhdx.Options{})
	write(t, child, 0, bytes.Repeat([]byte{2}, 3<<20+512))

	parent, err := vhdx.OpenWriter(baseStorage, baseStorage.Size(), nil)
	must(t, err)
	below, err := vhdx.NewDisk(parent.File())
	must(t, err)
	must(t, child.SetParents(below))
	must(t, child.SetParent(vhdx.ParentRef{DataWriteID: parent.File().DataWriteID(), MergedID: child.File().DataWriteID(), RelativePath: `.\b`}))

	guest := make([]byte, size)
	_, err = child.ReadAt(guest, 0)
	must(t, err)
	var dirty []extent.Extent
	var wg sync.WaitGroup
	wg.Go(func() {
		random := rand.New(rand.NewPCG(9, 9))
		for range 300 {
			e := extent.Extent{Offset: random.Int64N(size-8192) / 512 * 512, Length: 512 * (1 + random.Int64N(15))}
			copy(guest[e.Offset:e.End()], bytes.Repeat([]byte{byte(random.Uint32())}, int(e.Length)))
			if _, err := child.WriteAt(guest[e.Offset:e.End()], e.Offset); err != nil {
				t.Error(err)
			}
			got := make([]byte, e.Length)
			if _, err := child.ReadAt(got, e.Offset); err != nil || !bytes.Equal(got, guest[e.Offset:e.End()]) {
				t.Errorf("the guest does not read what it wrote at %v: %v", e, err)
			}
			dirty = append(dirty, e)
		}
	})
	must(t, vhdx.MergeRange(child.File(), parent, extent.Extent{Length: size}))
	wg.Wait()
	verify(t, child.Disk(), guest)
	for _, e := range extent.Normalize(dirty) { // the guest is paused here
		must(t, vhdx.MergeRange(child.File(), parent, e))
	}
	must(t, parent.FinishMerge(child.File()))
	verify(t, parent.Disk(), guest)
	verify(t, openMembers(t, map[string]*memory{"c": childStorage, "p": baseStorage}, []string{"c", "p"}), guest)

	write(t, parent, 0, []byte{99})
	guest[0] = 99
	verify(t, openMembers(t, map[string]*memory{"p": baseStorage}, []string{"p"}), guest)
	if child.File().IsChildOf(parent.File()) {
		t.Error("the guest wrote to the parent, and the child still accepts it")
	}
}

// TestMergeMovesZerosAsStates: what was trimmed in the child takes no space in the parent.
func TestMergeMovesZerosAsStates(t *testing.T) {
	base, m := made(t, vhdx.Options{VirtualSize: 64 << 20, BlockSize: 2 << 20}, nil)
	write(t, base, 0, bytes.Repeat([]byte{1}, 8<<20))
	child, _ := childOf(t, base, vhdx.Options{})
	must(t, child.Zero(2<<20, 40<<20))
	must(t, base.Close())
	size := m.Size()
	must(t, vhdx.MergeRange(child.File(), base, extent.Extent{Length: 64 << 20}))
	must(t, base.Close())
	data, err := extent.Collect(base.Disk().Data(extent.Extent{Length: 64 << 20}))
	if err != nil || len(data) != 1 || data[0] != (extent.Extent{Length: 2 << 20}) || m.Size() != size {
		t.Errorf("the parent has data at %v, %v, and grew from %d to %d bytes", data, err, size, m.Size())
	}
}

// TestMergeIntoAStranger is refused, and so is the end of a merge that would leave the child without a parent.
func TestMergeIntoAStranger(t *testing.T) {
	base, _ := made(t, vhdx.Options{VirtualSize: 4 << 20}, nil)
	other, _ := made(t, vhdx.Options{VirtualSize: 4 << 20}, nil)
	child, _ := childOf(t, base, vhdx.Options{})
	if err := vhdx.MergeRange(child.File(), other, extent.Extent{Length: 4 << 20}); !errors.Is(err, vhdx.ErrParentMismatch) {
		t.Errorf("got %v", err)
	}
	if err := base.FinishMerge(child.File()); !errors.Is(err, vhdx.ErrParentMismatch) {
		t.Errorf("a merge was finished that the child is not prepared for: %v", err)
	}
	if err := base.SetParent(vhdx.ParentRef{DataWriteID: other.File().DataWriteID(), RelativePath: "x"}); !errors.Is(err, vhdx.ErrUnsupported) {
		t.Errorf("a disk without a parent was given one: %v", err)
	}
}

// TestSetParentManyTimes reuses the space of the metadata region.
func TestSetParentManyTimes(t *testing.T) {
	base, _ := made(t, vhdx.Options{VirtualSize: 4 << 20}, nil)
	child, m := childOf(t, base, vhdx.Options{})
	long := string(bytes.Repeat([]byte("x"), 30000))
	for _, path := range []string{long, "a", long, `.\b.vhdx`} {
		for range 10 {
			must(t, child.SetParent(vhdx.ParentRef{DataWriteID: base.File().DataWriteID(), AbsolutePath: path}))
		}
		f, err := vhdx.Open(m, m.Size())
		must(t, err)
		if got := f.Locator()[vhdx.KeyAbsolutePath]; got != path || child.File().Locator()[vhdx.KeyAbsolutePath] != path {
			t.Errorf("the path is %.20q, want %.20q", got, path)
		}
	}
}

// TestConcurrentWriters write different parts of the same blocks of a child at once.
func TestConcurrentWriters(t *testing.T) {
	const size, writers = 8 << 20, 8
	base, _ := made(t, vhdx.Options{VirtualSize: size}, nil)
	write(t, base, 0, bytes.Repeat([]byte{0xEE}, size))
	child, m := childOf(t, base, vhdx.Options{})
	want := bytes.Repeat([]byte{0xEE}, size)
	var wg sync.WaitGroup
	for i := range int64(writers) {
		for at := i * 1536; at+1536 < size; at += writers * 1536 * 3 {
			clear(want[at : at+1536])
			copy(want[at:], bytes.Repeat([]byte{byte(i)}, 1000))
		}
		wg.Go(func() {
			got := make([]byte, 1000)
			for at := i * 1536; at+1536 < size; at += writers * 1536 * 3 {
				p := bytes.Repeat([]byte{byte(i)}, 1000)
				if err := child.Zero(at, 1536); err != nil {
					t.Error(err)
				}
				if _, err := child.WriteAt(p, at); err != nil {
					t.Error(err)
				}
				if _, err := child.ReadAt(got, at); err != nil || !bytes.Equal(got, p) {
					t.Errorf("at %d: %v or another value", at, err)
				}
			}
		})
	}
	wg.Wait()
	verify(t, child.Disk(), want)
	must(t, child.Close())
	f, err := vhdx.Open(m, m.Size())
	must(t, err)
	disk, err := vhdx.NewDisk(f, base.File())
	must(t, err)
	verify(t, disk, want)
}
