package image

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"
)

// name stands for an object or a content of the repository in as few bytes as can be: there may be a hundred million.
type name [nameBytes]byte

// What the bytes of a name are, in the order in which names are sorted.
const (
	nameKind   = iota // of an object, zero in that of a content
	nameDepth         // how many lists lie over an object's contents
	namePrefix        // of the content: a letter, or zero
	nameHash

	nameBytes = nameHash + hashBytes
	hashBytes = 16 // of BLAKE3-256-128
)

var errOtherHash = errors.New("the repository was made with another hash than BLAKE3-256-128, by another program")

func nameOfContent(id content.ID) (n name, err error) {
	hash := id.Hash()
	if len(hash) != hashBytes {
		return n, errOtherHash
	}
	if id.HasPrefix() {
		n[namePrefix] = id.Prefix()[0]
	}
	copy(n[nameHash:], hash)
	return n, nil
}

func nameOfObject(kind byte, id object.ID) (name, error) {
	depth := 0
	for list, ok := id.IndexObjectID(); ok; list, ok = id.IndexObjectID() {
		id = list
		depth++
	}
	direct, _, ok := id.ContentID()
	if !ok || depth > maxDepth {
		return name{}, fmt.Errorf("object %s cannot be read", id)
	}
	n, err := nameOfContent(direct)
	n[nameKind], n[nameDepth] = kind, byte(depth)
	return n, err
}

// maxDepth is more than kopia nests lists, and stops a forged name.
const maxDepth = 8

func (n name) content() (content.ID, error) {
	prefix := content.IDPrefix("")
	if n[namePrefix] != 0 {
		prefix = content.IDPrefix(n[namePrefix : namePrefix+1])
	}
	return content.IDFromHash(prefix, n[nameHash:])
}

func (n name) object() (object.ID, error) {
	direct, err := n.content()
	if err != nil {
		return object.EmptyID, err
	}
	return object.ParseID(string(bytes.Repeat([]byte("I"), int(n[nameDepth]))) + direct.String())
}

func (n name) compare(other name) int { return bytes.Compare(n[:], other[:]) }

// nameSet is a set of names that may be far larger than memory. Names are sorted into buckets by the first byte of their hash. What a bucket
// cannot keep goes to a temporary file, and is sorted and rid of duplicates when the bucket is read. Each bucket remembers the names that it wrote
// out last, so that lists which repeat from image to image do not fill the file.
//
// A set holds at most 30 MiB, whatever is in it, and while a bucket is read that bucket: 1/256 of all. The file takes 19 bytes a name. Adding is
// safe for concurrent use; reading must not begin before.
type nameSet struct {
	dir     string
	buckets [256]nameBucket
	mu      sync.Mutex // over the two below
	file    *os.File
	end     int64
}

type nameBucket struct {
	mu     sync.Mutex
	names  []name
	pieces []filePiece
	seen   []name // at the place that the hash gives; nil until something was written out
}

type filePiece struct{ offset, count int64 }

const (
	bucketNames = 2048 // kept in memory, 38 KiB
	bucketSeen  = 4096 // 76 KiB
)

func newNameSet(dir string) *nameSet { return &nameSet{dir: dir} }

func (n name) place() int { return (int(n[nameHash+1])<<8 | int(n[nameHash+2])) % bucketSeen }

// add puts a name into the set. A second time does nothing.
func (s *nameSet) add(n name) error {
	b := &s.buckets[n[nameHash]]
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.seen != nil {
		at := &b.seen[n.place()]
		if *at == n {
			return nil
		}
		*at = n
	}
	b.names = append(b.names, n)
	if len(b.names) < bucketNames {
		return nil
	}
	b.names = sortedUnique(b.names)
	if len(b.names) < bucketNames/2 {
		return nil
	}
	if b.seen == nil {
		b.seen = make([]name, bucketSeen)
		for _, n := range b.names {
			b.seen[n.place()] = n
		}
	}
	piece, err := s.writeOut(b.names)
	b.pieces = append(b.pieces, piece)
	b.names = b.names[:0]
	return err
}

func sortedUnique(names []name) []name {
	slices.SortFunc(names, name.compare)
	return slices.Compact(names)
}

func (s *nameSet) writeOut(names []name) (filePiece, error) {
	raw := make([]byte, 0, len(names)*nameBytes)
	for _, n := range names {
		raw = append(raw, n[:]...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		file, err := os.CreateTemp(s.dir, "names-")
		if err != nil {
			return filePiece{}, fmt.Errorf("write names out: %w", err)
		}
		s.file = file
	}
	piece := filePiece{offset: s.end, count: int64(len(names))}
	if _, err := s.file.WriteAt(raw, s.end); err != nil {
		return piece, fmt.Errorf("write names out: %w", err)
	}
	s.end += int64(len(raw))
	return piece, nil
}

// bucket reads the names whose hash starts with a byte, sorted.
func (s *nameSet) bucket(first byte) ([]name, error) {
	b := &s.buckets[first]
	total := len(b.names)
	for _, p := range b.pieces {
		total += int(p.count)
	}
	names := append(make([]name, 0, total), b.names...)
	for _, p := range b.pieces {
		raw := make([]byte, p.count*nameBytes)
		if _, err := s.file.ReadAt(raw, p.offset); err != nil {
			return nil, fmt.Errorf("read names: %w", err)
		}
		for part := range slices.Chunk(raw, nameBytes) {
			names = append(names, name(part))
		}
	}
	return sortedUnique(names), nil
}

// close removes the file. A second call does nothing.
func (s *nameSet) close() error {
	if s.file == nil {
		return nil
	}
	file := s.file
	s.file = nil
	return errors.Join(file.Close(), os.Remove(file.Name()))
}
