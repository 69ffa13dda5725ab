package vhdx

import (
	"errors"
	"math/bits"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// segmentKind says what a member holds for a range of the virtual disk.
type segmentKind uint8

const (
	absent segmentKind = iota // ask the parent
	zeros                     // zeros, whatever the parent holds
	data                      // bytes in this file
)

// segment is a range of the virtual disk of one kind.
type segment struct {
	extent.Extent
	kind segmentKind
	at   int64 // place in the file, for data
}

// follows says whether s continues prev, in the disk and in the file.
func (s segment) follows(prev segment) bool {
	return s.kind == prev.kind && s.Offset == prev.End() && (s.kind != data || s.at == prev.at+prev.Length)
}

// joiner joins segments before it hands them on.
type joiner struct {
	emit func(segment) error
	held segment
}

func (j *joiner) add(s segment) error {
	if s.Length <= 0 {
		return nil
	}
	if s.follows(j.held) {
		j.held.Length += s.Length
		return nil
	}
	err := j.flush()
	j.held = s
	return err
}

func (j *joiner) flush() error {
	if j.held.Length == 0 {
		return nil
	}
	return j.emit(j.held)
}

// walk emits what this member holds for window, in ascending order, joined and without gaps. It reads the BAT and sector bitmaps, no payload.
func (f *File) walk(window extent.Extent, emit func(segment) error) error {
	window = window.Clip(f.meta.whole())
	j := joiner{emit: emit}
	var batch [batBatch]batEntry
	for at := window.Offset; at < window.End(); {
		n := at / f.meta.blockSize
		last := (window.End() - 1) / f.meta.blockSize
		count, err := f.entries(n, batch[:min(batBatch, last-n+1)])
		if err != nil {
			return err
		}
		for i, e := range batch[:count] {
			if err := f.walkBlock(n+int64(i), e, window, &j); err != nil {
				return err
			}
		}
		at = (n + int64(count)) * f.meta.blockSize
	}
	return j.flush()
}

func (f *File) walkBlock(n int64, e batEntry, window extent.Extent, j *joiner) error {
	block := f.meta.block(n)
	part := block.Clip(window)
	switch {
	case e.hides(), e.state() == stateNotPresent && !f.meta.differencing:
		return j.add(segment{Extent: part, kind: zeros})
	case e.state() == stateNotPresent:
		return j.add(segment{Extent: part, kind: absent})
	case e.state() == stateFull:
		space, err := f.space(e, block.Length)
		if err != nil {
			return err
		}
		return j.add(segment{Extent: part, kind: data, at: space.Offset + part.Offset - block.Offset})
	case e.state() == statePartial && f.meta.differencing:
		space, err := f.space(e, block.Length)
		if err != nil {
			return err
		}
		return f.walkBitmap(n, space.Offset, part, j)
	}
	return corruptf("block %d has the state %d, which a %s disk cannot have", n, e.state(), f.meta.kind)
}

// walkBitmap adds a part of block n, whose data lies at a place of the file, by its sector bitmap: a set bit means data in this file.
func (f *File) walkBitmap(n, at int64, part extent.Extent, j *joiner) error {
	bitmap, err := f.bitmap(n)
	if err != nil {
		return err
	}
	block, sector := f.meta.block(n), f.meta.sectorSize
	base := n % f.meta.chunkRatio() * (f.meta.blockSize / sector) // the block's first bit
	first := (part.Offset - block.Offset) / sector
	end := (part.End() - block.Offset + sector - 1) / sector
	return eachRun(f.tables, bitmap.Offset, base+first, base+end, func(from, to int64, set bool) error {
		run := extent.Extent{Offset: block.Offset + (from-base)*sector, Length: (to - from) * sector}.Clip(part)
		if !set {
			return j.add(segment{Extent: run, kind: absent})
		}
		return j.add(segment{Extent: run, kind: data, at: at + run.Offset - block.Offset})
	})
}

// eachRun calls each for the runs of equal bits in [first, end) of the bitmap at a place of the file. A run may come in several pieces.
func eachRun(tables *pageCache, bitmap, first, end int64, each func(from, to int64, set bool) error) error {
	var buf [512]byte
	for at := first; at < end; {
		start := at / 64 * 8
		chunk := buf[:min(int64(len(buf)), (end+63)/64*8-start)]
		if err := tables.read(chunk, bitmap+start); err != nil {
			return err
		}
		for limit := min(end, (start+int64(len(chunk)))*8); at < limit; {
			word := le.Uint64(chunk[at/64*8-start:]) >> (at % 64)
			set := word&1 != 0
			if set {
				word = ^word
			}
			to := min(at+int64(bits.TrailingZeros64(word)), (at/64+1)*64, limit)
			if err := each(at, to, set); err != nil {
				return err
			}
			at = to
		}
	}
	return nil
}

// errStop ends a walk whose consumer has seen enough.
var errStop = errors.New("stop")

// stream turns a walk that emits extents in ascending order into a stream in which neighbours are joined.
func stream(walk func(emit func(extent.Extent) error) error) extent.Seq {
	return func(yield func(extent.Extent, error) bool) {
		var held extent.Extent
		err := walk(func(e extent.Extent) error {
			if held.Length > 0 && e.Offset == held.End() {
				held.Length += e.Length
				return nil
			}
			if held.Length > 0 && !yield(held, nil) {
				return errStop
			}
			held = e
			return nil
		})
		switch {
		case errors.Is(err, errStop):
		case held.Length > 0 && !yield(held, nil):
		case err != nil:
			yield(extent.Extent{}, err)
		}
	}
}
