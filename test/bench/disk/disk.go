// Package disk makes the virtual disks that the benchmarks use: the same bytes on every run with the same Go distribution.
package disk

import (
	"encoding/binary"
	"math/rand/v2"
)

const (
	// Piece is the unit of content and of change, in bytes.
	Piece = 64 << 10
	// Block is the unit of allocation, in bytes: that of a dynamic VHDX file as Windows makes it.
	Block = 32 << 20

	piecesPerBlock = Block / Piece
)

type kind byte

const (
	hole       kind = iota
	text            // pieces of source code and programs
	noise           // cannot be compressed, as media and encrypted files
	duplicated      // content that is elsewhere on the disk already
)

// Disk is a disk with a past: its pieces change. It is not safe for concurrent use while it changes.
type Disk struct {
	size    int64
	corpus  []byte
	kinds   []kind  // by piece
	copied  []int64 // by piece: offset of the original of a duplicated one
	changes []uint32
}

// Size is the virtual size in bytes.
func (d *Disk) Size() int64 { return d.size }

// shares of the disk, in percent.
const (
	holes      = 40
	noises     = 26
	duplicates = 6 // the rest is text
)

// New makes a disk of size bytes, a multiple of Block: 40 % unallocated, 28 % compressible, 26 % not, 6 % duplicates.
func New(size int64, corpus []byte) *Disk {
	pieces := size / Piece
	d := &Disk{size: size, corpus: corpus, kinds: make([]kind, pieces), copied: make([]int64, pieces), changes: make([]uint32, pieces)}
	random := rand.New(rand.NewPCG(1, uint64(size)))
	var past []run
	for first := int64(0); first < pieces; first += piecesPerBlock {
		if random.IntN(100) < holes {
			continue
		}
		for at := first; at < first+piecesPerBlock; {
			next := run{at, min(16+random.Int64N(113), first+piecesPerBlock-at)}
			switch share := random.IntN(100 - holes); {
			case share < duplicates && d.duplicate(next, past, random):
			case share < duplicates+noises:
				d.fill(next, noise)
				past = append(past, next)
			default:
				d.fill(next, text)
				past = append(past, next)
			}
			at += next.length
		}
	}
	return d
}

// NewSparse makes a disk of size bytes with a little data that lies scattered over it: count pieces, each in a block of its own.
func NewSparse(size int64, count int, corpus []byte) *Disk {
	d := &Disk{size: size, corpus: corpus, kinds: make([]kind, size/Piece), copied: make([]int64, 0), changes: make([]uint32, size/Piece)}
	stride := size / Piece / int64(count)
	for i := range int64(count) {
		d.kinds[i*stride] = text
	}
	return d
}

// run is consecutive pieces.
type run struct{ first, length int64 }

func (d *Disk) fill(r run, k kind) {
	for i := r.first; i < r.first+r.length; i++ {
		d.kinds[i] = k
	}
}

// duplicate makes a run that repeats a former one. Half of them lie at the same place within a MiB as the original, the others are moved
// by a multiple of 4 KiB, as a file system does.
func (d *Disk) duplicate(r run, past []run, random *rand.Rand) bool {
	if len(past) == 0 {
		return false
	}
	from := past[random.IntN(len(past))]
	start := from.first
	if random.IntN(2) == 0 {
		const perMiB = 1 << 20 / Piece
		start += ((r.first-from.first)%perMiB + perMiB) % perMiB
		if start+r.length > from.first+from.length {
			return false
		}
	} else if r.length >= from.length {
		return false
	}
	shift := (start - r.first) * Piece
	if start == from.first {
		shift += 4096
	}
	for i := r.first; i < r.first+r.length; i++ {
		d.kinds[i] = duplicated
		d.copied[i] = i*Piece + shift
	}
	return true
}

// empty says whether a piece has no content.
func (d *Disk) empty(piece int64) bool { return d.changes[piece] == 0 && d.kinds[piece] == hole }

// Read fills p, a piece long, with the content of a piece.
func (d *Disk) Read(p []byte, piece int64) {
	if d.changes[piece] == 0 && d.kinds[piece] == duplicated {
		d.original(p, d.copied[piece])
		return
	}
	d.written(p, piece, d.changes[piece])
}

// original reads a piece's length from an offset, as it was before any change. No duplicate is there.
func (d *Disk) original(p []byte, offset int64) {
	both := make([]byte, 2*Piece)
	piece := offset / Piece
	d.written(both[:Piece], piece, 0)
	if offset%Piece != 0 {
		d.written(both[Piece:], piece+1, 0)
	}
	copy(p, both[offset%Piece:])
}

func (d *Disk) written(p []byte, piece int64, change uint32) {
	k := d.kinds[piece]
	if change > 0 {
		k = text + kind((uint32(piece)+change)%2)
	}
	switch k {
	case noise:
		var seed [32]byte
		binary.LittleEndian.PutUint64(seed[:], uint64(piece))
		binary.LittleEndian.PutUint32(seed[8:], change)
		rand.NewChaCha8(seed).Read(p)
	case text:
		random := rand.New(rand.NewPCG(uint64(piece), uint64(change)))
		for filled := 0; filled < len(p); {
			length := 1<<10 + random.IntN(15<<10)
			filled += copy(p[filled:], d.corpus[random.IntN(len(d.corpus)-length):][:length])
		}
	case hole, duplicated:
		clear(p)
	}
}
