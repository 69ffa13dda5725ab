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
}

// span is a segment of which something was written: bit i stands for the leaf i of an unsplit segment.
type span struct {
	segment int64
	leaves  uint64
}

// change is a segment in which something changed: bit j of grains[i] stands for grain j of leaf i.
type change struct {
	segment int64
	grains  [leavesPerSegment]uint16
}

func (c *change) span() span {
	s := span{segment: c.segment}
	for i, grains := range c.grains {
		if grains != 0 {
			s.leaves |= 1 << i
		}
	}
	return s
}

// grainsOf marks the grains of a leaf that an extent meets. Both are given within the same segment or disk.
func grainsOf(leaf, e extent.Extent) uint16 {
	e = e.Clip(leaf)
	if e.Length == 0 {
		return 0
	}
	first, last := (e.Offset-leaf.Offset)/GrainSize, (e.End()-1-leaf.Offset)/GrainSize
	return ^uint16(0) << first & (^uint16(0) >> (grainsPerLeaf - 1 - last))
}

// changes groups extents by segment. It fails on extents that are not in order, and ignores what lies behind the end of the disk.
func changes(size int64, extents extent.Seq) iter.Seq2[change, error] {
	return func(yield func(change, error) bool) {
		next := change{segment: -1}
		var last int64
		for e, err := range extents {
			if err == nil && (e.Offset < last || e.Length < 0) {
				err = fmt.Errorf("extent %s is out of order", e)
			}
			if err != nil {
				yield(change{}, err)
				return
			}
			last = e.End()
			e = e.Clip(extent.Extent{Length: size})
			for leaf := e.Offset / LeafSize; leaf*LeafSize < e.End(); leaf++ {
				if segment := leaf / leavesPerSegment; segment != next.segment {
					if next.segment >= 0 && !yield(next, nil) {
						return
					}
					next = change{segment: segment}
				}
				next.grains[leaf%leavesPerSegment] |= grainsOf(extent.Extent{Offset: leaf * LeafSize, Length: LeafSize}, e)
			}
		}
		if next.segment >= 0 {
			yield(next, nil)
		}
	}
}
