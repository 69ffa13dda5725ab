package image

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/object"
)

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
	listStream     = "kopia:indirect"

	// maxListBytes bounds what a list read from a repository may occupy: the root of a 64 TiB disk has some 70 MB.
	maxListBytes = 256 << 20
)

// objectList is the JSON of a list.
type objectList struct {
	Stream  string  `json:"stream"`
	Entries []entry `json:"entries"`
}

var errNoList = errors.New("not a list of objects")

// entry is one line of a list: length bytes at start are those of an object, which is a leaf or, in a root list, another list.
type entry = object.IndirectObjectEntry

func count(size, unit int64) int64 { return (size + unit - 1) / unit }

// segmentAt is the window of a segment in a disk.
func segmentAt(index, size int64) (start, length int64) {
	start = index * SegmentSize
	return start, min(SegmentSize, size-start)
}

// writeList stores a list and returns the object that has the content of everything it lists. Entries must follow each other without a
// gap. They are streamed: a root list can be larger than what a session should hold.
func writeList(ctx context.Context, w repo.RepositoryWriter, entries iter.Seq[entry]) (object.ID, error) {
	out := w.NewObjectWriter(ctx, object.WriterOptions{
		Prefix: listPrefix, Splitter: listSplitter, Compressor: listCompressor, MetadataCompressor: listCompressor,
	})
	defer out.Close() //nolint:errcheck // it only gives buffers back
	if err := encodeList(out, entries); err != nil {
		return object.EmptyID, err
	}
	list, err := out.Result()
	if err != nil {
		return object.EmptyID, err
	}
	// The object that a list describes is named by the list's own id behind one more "I".
	return object.ParseID("I" + list.String())
}

// encodeList writes the same bytes as kopia's own encoder, and the same bytes again for the same entries: equal lists are stored once.
func encodeList(w io.Writer, entries iter.Seq[entry]) error {
	out := bufio.NewWriterSize(w, 64<<10)
	out.WriteString(`{"stream":"` + listStream + `","entries":[`) //nolint:errcheck // Flush returns the error
	separator := ""
	for e := range entries {
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		out.WriteString(separator) //nolint:errcheck // as above
		out.Write(line)            //nolint:errcheck // as above
		separator = ","
	}
	out.WriteString("]}\n") //nolint:errcheck // as above
	return out.Flush()
}

// readList reads the list behind an object and checks that its entries cover size bytes without gap or overlap.
func readList(ctx context.Context, r repo.Repository, id object.ID, size int64) ([]entry, error) {
	list, ok := id.IndexObjectID()
	if !ok {
		return nil, fmt.Errorf("object %s is not a list", id)
	}
	in, err := r.OpenObject(ctx, list)
	if err != nil {
		return nil, err
	}
	defer in.Close() //nolint:errcheck // read only
	var decoded objectList
	if err := json.NewDecoder(io.LimitReader(in, maxListBytes)).Decode(&decoded); err != nil {
		return nil, err
	}
	if decoded.Stream != listStream {
		return nil, errNoList
	}
	return decoded.Entries, checkList(decoded.Entries, size)
}

func checkList(entries []entry, size int64) error {
	var at int64
	for _, e := range entries {
		if e.Start != at || e.Length <= 0 || e.Length > size-at {
			return fmt.Errorf("list has a gap or an overlap at %d", at)
		}
		at += e.Length
	}
	if at != size {
		return fmt.Errorf("list covers %d bytes in place of %d", at, size)
	}
	return nil
}
