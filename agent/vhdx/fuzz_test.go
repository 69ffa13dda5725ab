package vhdx_test

import (
	"errors"
	"io"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// countingReader counts what is read.
type countingReader struct {
	r     io.ReaderAt
	bytes int64
}

func (c *countingReader) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(p, off)
	atomic.AddInt64(&c.bytes, int64(n))
	return n, err
}

// specimens are the files that the fuzzer bends.
func specimens(t tester) []*memory {
	dynamic := newMemory()
	size, err := vhdx.Create(dynamic, vhdx.Options{VirtualSize: 8 << 20, BlockSize: 1 << 20})
	must(t, err)
	w, err := vhdx.OpenWriter(dynamic, size, nil)
	must(t, err)
	_, err = w.WriteAt(patterned(5), 1<<20-2048)
	must(t, err)
	must(t, w.Close())
	child := newMemory()
	size, err = vhdx.Create(child, vhdx.Options{VirtualSize: 8 << 20, Parent: &vhdx.ParentRef{DataWriteID: w.File().DataWriteID(), RelativePath: `.\p.vhdx`}})
	must(t, err)
	c, err := vhdx.OpenWriter(child, size, w.Disk())
	must(t, err)
	_, err = c.WriteAt(patterned(6), 3<<20)
	must(t, err)
	must(t, c.Zero(4<<20, 2<<20))
	must(t, c.Close())
	dirty, bat := dirtyFile(t)
	putLog(dirty, 0, entry{sequence: 1, changes: []change{{offset: batAt, data: bat}, {offset: batAt + 4096, zeros: 4096}}})
	return []*memory{dynamic, child, dirty}
}

// interesting are the places of a file where the fuzzer changes bytes: everything that is parsed.
var interesting = []int64{0, 64 << 10, 128 << 10, 192 << 10, 256 << 10, logAt, logAt + 4096, metaAt, metaAt + 64<<10, batAt, payloadAt}

// bendAt applies patches to a file: each is a byte for the place, one for the distance, one for the length, then bytes. Checksums are set right
// afterwards, so that changes get past them, unless the first byte is odd.
func bendAt(m *memory, patches []byte) {
	if len(patches) == 0 {
		return
	}
	keepSums := patches[0]&1 == 0
	for p := patches[1:]; len(p) > 3; {
		at := interesting[int(p[0])%len(interesting)] + int64(p[1])*8
		n := min(int(p[2]%16)+1, len(p)-3)
		_, _ = m.WriteAt(p[3:3+n], at)
		p = p[3+n:]
	}
	if keepSums {
		bend(m, 64<<10, 4096, func([]byte) {})
		bend(m, 128<<10, 4096, func([]byte) {})
		bend(m, 192<<10, 64<<10, func([]byte) {})
		bend(m, 256<<10, 64<<10, func([]byte) {})
		bend(m, logAt, 8192, func([]byte) {})
	}
}

// exercise does everything with a file that may be broken, within bounds of memory and I/O.
func exercise(t tester, m *memory) {
	t.Helper()
	const budget = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	r := &countingReader{r: m}
	f, err := vhdx.Open(r, m.Size())
	if err == nil {
		err = f.Check()
		_ = f.Info()
	}
	if err == nil && f.Kind() != vhdx.Differencing {
		var disk *vhdx.Disk
		disk, err = vhdx.NewDisk(f)
		if err == nil {
			err = readSome(disk)
		}
	}
	if err == nil {
		for _, err = range f.Present(extent.Extent{Length: min(f.VirtualSize(), 1<<40)}) {
		}
	}
	if err != nil && !errors.Is(err, vhdx.ErrCorrupt) && !errors.Is(err, vhdx.ErrUnsupported) {
		t.Fatalf("an error of no known kind: %v", err)
	}
	runtime.ReadMemStats(&after)
	if grown := after.TotalAlloc - before.TotalAlloc; grown > budget {
		t.Fatalf("allocated %d bytes", grown)
	}
	if r.bytes > budget {
		t.Fatalf("read %d bytes", r.bytes)
	}
}

func readSome(disk *vhdx.Disk) error {
	buf := make([]byte, 64<<10)
	n := 0
	for e, err := range disk.Data(extent.Extent{Length: disk.Size()}) {
		if n++; err != nil || n > 16 {
			return err
		}
		if _, err := disk.ReadAt(buf[:min(e.Length, int64(len(buf)))], e.Offset); err != nil {
			return err
		}
	}
	return nil
}

// FuzzOpen bends valid files (T10): no panic, no unknown error, bounded memory and reads.
func FuzzOpen(f *testing.F) {
	for which := range 3 {
		f.Add(byte(which), []byte{})
		for place := range interesting {
			f.Add(byte(which), []byte{0, byte(place), 1, 7, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF})
			f.Add(byte(which), []byte{0, byte(place), 0, 15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
			f.Add(byte(which), []byte{1, byte(place), 2, 3, 1, 2, 3, 4})
		}
	}
	f.Fuzz(func(t *testing.T, which byte, patches []byte) {
		all := specimens(t)
		m := all[int(which)%len(all)]
		bendAt(m, patches)
		exercise(t, m)
	})
}
