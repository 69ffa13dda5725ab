package image

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"sync"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/object"
)

// rootList is the list of the segments of a disk. It is kept as its text, in the pieces that it is stored in, and a piece is fetched when a segment
// in it is asked for: so what an increment does to the root of a large disk follows what changed, and the rest of the pieces is linked. That
// works because the place of a segment's line in the text follows from its number. It is safe for concurrent use.
type rootList struct {
	repo   repo.Repository
	size   int64 // of the disk
	mu     sync.Mutex
	pieces []rootPiece
}

type rootPiece struct {
	object  object.ID // empty when the piece is not stored yet
	text    []byte    // nil until it is needed
	changed bool
}

const (
	// rootPieceSize is where listSplitter cuts.
	rootPieceSize = 128 << 10
	// segmentIDLength is that of "Ix" and 32 hexadecimal digits.
	segmentIDLength = 34
)

// newRootList is the list of a disk that is not stored yet.
func newRootList(size int64, segments iter.Seq[object.ID]) (*rootList, error) {
	var text bytes.Buffer
	err := encodeList(&text, func(yield func(entry) bool) {
		var i int64
		for id := range segments {
			start, length := segmentAt(i, size)
			if i++; !yield(entry{Start: start, Length: length, Object: id}) {
				return
			}
		}
	})
	if err != nil {
		return nil, err
	}
	if int64(text.Len()) != rootLength(size) {
		return nil, fmt.Errorf("the root list has %d bytes in place of %d", text.Len(), rootLength(size))
	}
	l := &rootList{size: size}
	for piece := range slices.Chunk(text.Bytes(), rootPieceSize) {
		l.pieces = append(l.pieces, rootPiece{text: piece, changed: true})
	}
	return l, nil
}

// openRootList reads where the pieces of a list are.
func openRootList(ctx context.Context, r repo.Repository, root object.ID, size int64) (*rootList, error) {
	list, ok := root.IndexObjectID()
	if !ok {
		return nil, fmt.Errorf("object %s is not a list", root)
	}
	l := &rootList{repo: r, size: size}
	if _, inPieces := list.IndexObjectID(); !inPieces {
		l.pieces = []rootPiece{{object: list}}
		return l, nil
	}
	pieces, err := readList(ctx, r, list, rootLength(size))
	if err != nil {
		return nil, err
	}
	for _, p := range pieces {
		if p.Start%rootPieceSize != 0 || p.Length > rootPieceSize {
			return nil, fmt.Errorf("the root list is not cut every %d bytes", rootPieceSize)
		}
		l.pieces = append(l.pieces, rootPiece{object: p.Object})
	}
	return l, nil
}

// segment is the line of one segment.
func (l *rootList) segment(ctx context.Context, index int64) (entry, error) {
	start, length := segmentAt(index, l.size)
	e := entry{Start: start, Length: length}
	if index < 0 || length <= 0 {
		return e, fmt.Errorf("the disk has no segment %d", index)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	from, to := linePlace(index, l.size), linePlace(index+1, l.size)
	line, err := l.read(ctx, from, to)
	if err != nil {
		return e, err
	}
	e.Object, err = object.ParseID(string(line[len(line)-segmentIDLength-len(`"}`) : len(line)-len(`"}`)]))
	if err != nil || !bytes.Equal(line, l.line(index, e.Object)) {
		return e, fmt.Errorf("the root list has no segment at %d", start)
	}
	return e, nil
}

// set replaces the object of a segment.
func (l *rootList) set(ctx context.Context, index int64, id object.ID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	from, line := linePlace(index, l.size), l.line(index, id)
	if int64(len(line)) != linePlace(index+1, l.size)-from {
		return fmt.Errorf("%s cannot be the list of a segment", id)
	}
	for len(line) > 0 {
		piece, err := l.piece(ctx, from/rootPieceSize)
		if err != nil {
			return err
		}
		n := copy(piece.text[from%rootPieceSize:], line)
		piece.changed = true
		line, from = line[n:], from+int64(n)
	}
	return nil
}

// line is the text of a segment, with the comma before it.
func (l *rootList) line(index int64, id object.ID) []byte {
	start, length := segmentAt(index, l.size)
	var line []byte
	if index > 0 {
		line = append(line, ',')
	}
	return appendEntry(line, entry{Start: start, Length: length, Object: id})
}

func (l *rootList) read(ctx context.Context, from, to int64) ([]byte, error) {
	text := make([]byte, 0, to-from)
	for from < to {
		piece, err := l.piece(ctx, from/rootPieceSize)
		if err != nil {
			return nil, err
		}
		at := from % rootPieceSize
		part := piece.text[at:min(at+to-from, int64(len(piece.text)))]
		text, from = append(text, part...), from+int64(len(part))
	}
	return text, nil
}

// piece is a piece with its text.
func (l *rootList) piece(ctx context.Context, n int64) (*rootPiece, error) {
	if n >= int64(len(l.pieces)) {
		return nil, fmt.Errorf("the root list ends at piece %d", len(l.pieces))
	}
	p := &l.pieces[n]
	if p.text != nil {
		return p, nil
	}
	text, err := readWhole(ctx, l.repo, p.object, rootPieceSize)
	if err != nil {
		return nil, err
	}
	if want := min(rootPieceSize, rootLength(l.size)-n*rootPieceSize); int64(len(text)) != want {
		return nil, fmt.Errorf("piece %d of the root list has %d bytes in place of %d", n, len(text), want)
	}
	p.text = text
	return p, nil
}

// objects are what the list is stored in.
func (l *rootList) objects() []object.ID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []object.ID
	for _, p := range l.pieces {
		out = append(out, p.object)
	}
	return out
}

// store stores the pieces that changed, each by a call of put, and a list of all. It returns the object that is the disk.
func (l *rootList) store(ctx context.Context, w repo.RepositoryWriter, put func(func() (object.ID, error)) (object.ID, error)) (object.ID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	entries := make([]entry, 0, len(l.pieces))
	for n := range l.pieces {
		p := &l.pieces[n]
		if p.changed {
			id, err := put(func() (object.ID, error) {
				return writeListObject(ctx, w, func(out io.Writer) error {
					_, err := out.Write(p.text)
					return err
				})
			})
			if err != nil {
				return object.EmptyID, err
			}
			p.object, p.changed = id, false
		}
		start := int64(n) * rootPieceSize
		entries = append(entries, entry{Start: start, Length: min(rootPieceSize, rootLength(l.size)-start), Object: p.object})
	}
	if len(entries) == 1 {
		return listedBy(entries[0].Object)
	}
	list, err := put(func() (object.ID, error) { return writeList(ctx, w, slices.Values(entries)) })
	if err != nil {
		return object.EmptyID, err
	}
	return listedBy(list)
}

// rootLength is how many bytes the root list of a disk has.
func rootLength(size int64) int64 {
	return linePlace(count(size, SegmentSize), size) + int64(len(listTail))
}

// linePlace is where the line of a segment begins in the root list, with the comma before it; that of the segment behind the last is where
// the lines end.
func linePlace(index, size int64) int64 {
	const around = int64(len(`,{"s":`) + len(`,"l":`) + len(`,"o":"`) + segmentIDLength + len(`"}`))
	if index == 0 {
		return int64(len(listHead))
	}
	last := index == count(size, SegmentSize)
	full := index // lines of whole segments
	if last && size%SegmentSize != 0 {
		full--
	}
	place := int64(len(listHead)) + index*around - int64(len(`,`)+len(`"s":,`)) + startDigits(index) + full*digits(SegmentSize)
	if last && full < index {
		place += digits(size % SegmentSize)
	}
	return place
}

// startDigits is how many digits the starts of the first so many segments have together. The first start is left out.
func startDigits(segments int64) int64 {
	var sum int64
	for power := int64(1); power <= (segments-1)*SegmentSize; power *= 10 {
		sum += segments - max(1, count(power, SegmentSize)) // those that are at least so large have one digit more
	}
	return sum
}

func digits(n int64) int64 { return int64(len(strconv.FormatInt(n, 10))) }
