package image

import "github.com/kopia/kopia/repo/compression"

// The tree beneath a disk. Stock kopia reads a nested list whole, which bounds a segment: 64 MiB is what it holds in memory at once.
const (
	// LeafSize is what a full read stores as one. The last leaf of a disk may be shorter.
	LeafSize = 1 << 20
	// GrainSize is the unit of change: a leaf of which an increment finds only a part changed is stored as leaves of this size, of which later
	// increments store those that changed. Smaller ones would save bytes with writes of a few KiB, and cost an index entry of 33 bytes each.
	GrainSize = 64 << 10
	// SegmentSize is what one list of leaves covers. The last segment of a disk may be shorter.
	SegmentSize = 64 << 20

	leavesPerSegment = SegmentSize / LeafSize
	grainsPerLeaf    = LeafSize / GrainSize
)

const (
	leafSplitter = "FIXED-1M" // never splits: a leaf is at most that long
	// listSplitter cuts long root lists at fixed places, so that an increment stores again only the pieces that differ.
	listSplitter   = "FIXED-128K"
	listPrefix     = "x" // kopia keeps contents with a prefix apart from data, in packs of metadata
	listCompressor = compression.Name("zstd-fastest")
)

func count(size, unit int64) int64 { return (size + unit - 1) / unit }

// segmentAt is the window of a segment in a disk.
func segmentAt(index, size int64) (start, length int64) {
	start = index * SegmentSize
	return start, min(SegmentSize, size-start)
}
