package image

import (
	"fmt"
	"io"
	"iter"
	"sync/atomic"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// Source is the frozen, guest-visible content of one disk. Both ways of reading may be used by several goroutines at once.
type Source interface {
	io.ReaderAt
	// Size is the virtual size in bytes.
	Size() int64
	// Data streams the extents within window that may hold something else than zeros. What lies outside of them is zeros and is not read.
	Data(window extent.Extent) extent.Seq
}

// Progress counts the work on one disk. It may be read at any time, also while the disk is written.
type Progress struct {
	// Processed is how many bytes of the disk are dealt with: read, linked, or found empty. It ends at the size of the disk.
	Processed atomic.Int64
	// Read is how many bytes were read from the source or, when verifying, checked.
	Read atomic.Int64
	// Written is how many bytes of leaves were handed to the repository, before deduplication and compression.
	Written atomic.Int64
	// Stored is how many bytes the repository's storage took while this disk was written, in compressed and encrypted form.
	Stored atomic.Int64
}

// span is a segment in which something has to be written: bit i stands for its leaf i.
type span struct {
	segment int64
	leaves  uint64
}

// spans groups extents by segment. It fails on extents that are not in order, and ignores what lies behind the end of the disk.
func spans(size int64, extents extent.Seq) iter.Seq2[span, error] {
	return func(yield func(span, error) bool) {
		next := span{segment: -1}
		var last int64
		for e, err := range extents {
			if err == nil && (e.Offset < last || e.Length < 0) {
				err = fmt.Errorf("extent %s is out of order", e)
			}
			if err != nil {
				yield(span{}, err)
				return
			}
			last = e.End()
			e = e.Clip(extent.Extent{Length: size})
			for leaf := e.Offset / LeafSize; leaf*LeafSize < e.End(); leaf++ {
				if segment := leaf / leavesPerSegment; segment != next.segment {
					if next.segment >= 0 && !yield(next, nil) {
						return
					}
					next = span{segment: segment}
				}
				next.leaves |= 1 << (leaf % leavesPerSegment)
			}
		}
		if next.segment >= 0 {
			yield(next, nil)
		}
	}
}
