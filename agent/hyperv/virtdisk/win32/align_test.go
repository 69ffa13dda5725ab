package win32

import (
	"testing"
	"unsafe"
)

func TestReadsAreOfWholeSectorsIntoAlignedMemory(t *testing.T) {
	const size = 10<<20 + 512
	for name, c := range map[string]struct{ offset, length, from, to int64 }{
		"whole sectors":               {8192, 4096, 8192, 12288},
		"a byte":                      {5000, 1, 4096, 8192},
		"across a border":             {4095, 2, 0, 8192},
		"more than one read may have": {100, 5 << 20, 0, 1 << 20},
		"the last sector of 512":      {size - 1, 1, 10 << 20, size},
	} {
		got, skip := window(c.offset, c.length, size)
		if got.Offset != c.from || got.End() != c.to || int64(skip) != c.offset-c.from {
			t.Errorf("%s: %v, skipping %d", name, got, skip)
		}
	}
	b := newAlignedBuffer(largestRead).bytes
	if uintptr(unsafe.Pointer(&b[0]))%alignment != 0 || len(b) != largestRead {
		t.Errorf("%d bytes at %p", len(b), &b[0])
	}
}
