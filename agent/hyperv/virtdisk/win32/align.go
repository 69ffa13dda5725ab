package win32

import (
	"unsafe"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// alignment is the largest sector size ([MS-VHDX] 2.6.2.4). A handle without buffering takes whole sectors in memory that begins at a multiple of one.
const alignment = 4096

// largestRead is what one read asks for at most.
const largestRead = 1 << 20

// window is what has to be read of a disk for length bytes at an offset, or for the first of them, and how many bytes in front of them it begins. The end of
// the disk may be in the middle of an alignment unit; its sectors are whole.
func window(offset, length, size int64) (read extent.Extent, skip int) {
	wide := extent.Extent{Offset: offset, Length: length}.Align(alignment, size)
	wide.Length = min(wide.Length, largestRead)
	return wide, int(offset - wide.Offset)
}

// alignedBuffer is memory for one read. Go does not move what lies on its heap.
type alignedBuffer struct{ bytes []byte }

func newAlignedBuffer(size int) *alignedBuffer {
	memory := make([]byte, size+alignment)
	first := int(-uintptr(unsafe.Pointer(&memory[0])) & (alignment - 1))
	return &alignedBuffer{bytes: memory[first : first+size : first+size]}
}
