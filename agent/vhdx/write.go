package vhdx

import (
	"errors"
	"fmt"
	"slices"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// The file grows by an eighth when it has no space left, within these bounds: each time it is synced.
const (
	leastGrowth = 16 * mib
	mostGrowth  = 256 * mib
)

// write stores bytes block by block.
func (w *Writer) write(p []byte, off int64) (int, error) {
	for done := 0; done < len(p); {
		at := off + int64(done)
		block := w.file.meta.block(at / w.file.meta.blockSize)
		part := p[done : done+int(min(int64(len(p)-done), block.End()-at))]
		if err := w.writeBlock(part, at); err != nil {
			return done, fmt.Errorf("write %d bytes at byte %d of a virtual disk: %w", len(p), off, err)
		}
		done += len(part)
	}
	return len(p), nil
}

// writeBlock writes within one block: in place where this member holds all of it, else with a change of tables.
func (w *Writer) writeBlock(p []byte, off int64) error {
	w.mu.RLock()
	done, err := w.overwrite(p, off)
	w.mu.RUnlock()
	if done || err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.place(p, off)
}

// overwrite writes p if this member has data for all of it already, and says whether it did.
func (w *Writer) overwrite(p []byte, off int64) (bool, error) {
	var held segment
	err := w.file.walk(extent.Extent{Offset: off, Length: int64(len(p))}, func(s segment) error {
		held = s
		if s.kind != data || s.Length != int64(len(p)) {
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		return false, nil
	}
	if err == nil {
		_, err = w.storage.WriteAt(p, held.at)
	}
	return true, err
}

// place writes p into one block and makes the tables say so, in the order payload, sector bitmap, BAT: a crash in between leaves bytes that nothing
// refers to.
func (w *Writer) place(p []byte, off int64) error {
	n := off / w.file.meta.blockSize
	index := w.file.meta.payloadIndex(n)
	e, err := w.file.entry(index)
	if err != nil {
		return err
	}
	block := w.file.meta.block(n)
	part := extent.Extent{Offset: off, Length: int64(len(p))}
	switch {
	case e.state() == stateFull:
		_, err = w.overwrite(p, off) // another writer was faster
		return err
	case e.state() == statePartial, e.state() == stateNotPresent && w.file.meta.differencing && part != block:
		return w.placeSectors(n, e, p, off)
	}
	space, fresh, err := w.spaceFor(n, e)
	if err != nil {
		return err
	}
	if !fresh {
		if err := w.scrub(space, block.Length); err != nil {
			return err
		}
	}
	if _, err := w.storage.WriteAt(p, space+off-block.Offset); err != nil {
		return err
	}
	return w.setEntry(index, newEntry(stateFull, space))
}

// spaceFor returns where block n goes: the space that its entry still has, or new space, which is fresh, that is, zero.
func (w *Writer) spaceFor(n int64, e batEntry) (at int64, fresh bool, err error) {
	if e.hides() && e.offset() != 0 && w.reuse {
		space, err := w.file.space(e, w.file.meta.block(n).Length)
		return space.Offset, false, err
	}
	at, err = w.allocate(w.file.meta.blockSize)
	return at, true, err
}

// scrub zeroes space that a block kept. It syncs, because zeros that were synced must not turn into older data by a loss of power.
func (w *Writer) scrub(offset, length int64) error {
	if err := writeZeros(w.storage, offset, length); err != nil {
		return err
	}
	return w.storage.Sync()
}

// placeSectors writes sectors of a block that shows its parent elsewhere.
func (w *Writer) placeSectors(n int64, e batEntry, p []byte, off int64) error {
	p, off, err := w.wholeSectors(p, off)
	if err != nil {
		return err
	}
	bitmap, err := w.ensureBitmap(n)
	if err != nil {
		return err
	}
	var at int64
	if e.state() == statePartial {
		space, err := w.file.space(e, w.file.meta.block(n).Length)
		if err != nil {
			return err
		}
		at = space.Offset
	} else if at, err = w.allocate(w.file.meta.blockSize); err != nil {
		return err
	}
	block := w.file.meta.block(n)
	if _, err := w.storage.WriteAt(p, at+off-block.Offset); err != nil {
		return err
	}
	part := extent.Extent{Offset: off, Length: int64(len(p))}
	full, err := w.setBits(n, bitmap, part, e.state() == stateNotPresent)
	switch {
	case err != nil:
		return err
	case full:
		return w.setEntry(w.file.meta.payloadIndex(n), newEntry(stateFull, at))
	case e.state() == stateNotPresent:
		return w.setEntry(w.file.meta.payloadIndex(n), newEntry(statePartial, at))
	}
	return nil
}

// wholeSectors widens a write to whole logical sectors with the bytes that the disk has now.
func (w *Writer) wholeSectors(p []byte, off int64) ([]byte, int64, error) {
	part := extent.Extent{Offset: off, Length: int64(len(p))}
	wide := part.Align(w.file.meta.sectorSize, w.file.meta.virtualSize)
	if wide == part {
		return p, off, nil
	}
	b := make([]byte, wide.Length)
	if _, err := w.chain.ReadAt(b, wide.Offset); err != nil {
		return nil, 0, err
	}
	copy(b[off-wide.Offset:], p)
	return b, wide.Offset, nil
}

// ensureBitmap returns the place of the sector bitmap of block n and makes an empty one where there is none. It syncs then, because a block
// that is partially present without a bitmap would be corrupt.
func (w *Writer) ensureBitmap(n int64) (int64, error) {
	index := w.file.meta.bitmapIndex(n)
	e, err := w.file.entry(index)
	if err != nil {
		return 0, err
	}
	if e.state() == stateFull {
		space, err := w.file.space(e, bitmapBlock)
		return space.Offset, err
	}
	at, err := w.allocate(bitmapBlock)
	if err != nil {
		return 0, err
	}
	if err := w.setEntry(index, newEntry(stateFull, at)); err != nil {
		return 0, err
	}
	return at, w.storage.Sync()
}

// setBits marks sectors of block n as held by this member and says whether all sectors of the block are now. For a block that is fresh, bits
// that a crash, or whoever wrote the file before, left behind are cleared first.
func (w *Writer) setBits(n, bitmap int64, part extent.Extent, fresh bool) (full bool, err error) {
	g := w.file.meta.geometry
	block := g.block(n)
	perBlock := g.blockSize / g.sectorSize
	bits := make([]byte, perBlock/8) // 64 KiB at most
	place := bitmap + n%g.chunkRatio()*perBlock/8
	first, end := (part.Offset-block.Offset)/g.sectorSize, (part.End()-block.Offset)/g.sectorSize
	if err := w.file.tables.read(bits, place); err != nil {
		return false, err
	}
	if fresh && slices.Max(bits) != 0 {
		clear(bits)
		if err := w.file.tables.write(w.storage, bits, place); err != nil {
			return false, err
		}
		if err := w.storage.Sync(); err != nil {
			return false, err
		}
	}
	from, to := first/8, (end+7)/8
	for i := first; i < end; i++ {
		bits[i/8] |= 1 << (i % 8)
	}
	if err := w.file.tables.write(w.storage, bits[from:to], place+from); err != nil {
		return false, err
	}
	for i := range block.Length / g.sectorSize {
		if bits[i/8]&(1<<(i%8)) == 0 {
			return false, nil
		}
	}
	return true, nil
}

// setEntry changes one BAT entry, with one aligned store of eight bytes.
func (w *Writer) setEntry(index int64, e batEntry) error {
	return w.file.tables.write(w.storage, le.AppendUint64(nil, uint64(e)), w.file.entryPlace(index))
}

// allocate returns the place of length bytes that are zero, at a multiple of 1 MiB. The file grows in bulk and is synced then, so that after a loss
// of power no BAT entry points behind its end.
func (w *Writer) allocate(length int64) (int64, error) {
	if w.end-w.next < length {
		if w.file.size.Load() > w.next && w.end == w.next {
			// Behind the last block lies what a crash left: cut off, it comes back as zeros.
			if err := w.storage.Truncate(w.next); err != nil {
				return 0, err
			}
		}
		end := w.next + max(length, leastGrowth, min(w.next/8/mib*mib, mostGrowth))
		if err := w.storage.Truncate(end); err != nil {
			end = w.next + length // on a volume that is almost full
			if err := w.storage.Truncate(end); err != nil {
				return 0, err
			}
		}
		if err := w.storage.Sync(); err != nil {
			return 0, err
		}
		w.end = end
		w.file.size.Store(end)
	}
	at := w.next
	w.next += length
	return at, nil
}

// clear makes a range zero: whole blocks by their state, the rest by writing zeros where something else could show.
func (w *Writer) clear(window extent.Extent, state blockState) error {
	size := w.file.meta.blockSize
	for at := window.Offset; at < window.End(); {
		n := at / size
		part := w.file.meta.block(n).Clip(window)
		var err error
		if part == w.file.meta.block(n) {
			err = w.clearBlock(n, state)
		} else {
			err = w.clearPart(part)
		}
		if err != nil {
			return fmt.Errorf("zero %d bytes at byte %d of a virtual disk: %w", window.Length, window.Offset, err)
		}
		at = part.End()
	}
	return nil
}

// clearBlock leaves the block its space, so that writing it again needs no new one and no other block ever gets it.
func (w *Writer) clearBlock(n int64, state blockState) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	index := w.file.meta.payloadIndex(n)
	e, err := w.file.entry(index)
	if err != nil || e.hides() || e.state() == stateNotPresent && !w.file.meta.differencing {
		return err
	}
	kept := int64(0)
	if e.state() != stateNotPresent {
		kept = int64(e.offset())
	}
	return w.setEntry(index, newEntry(state, kept))
}

func (w *Writer) clearPart(part extent.Extent) error {
	blank := true
	err := w.file.walk(part, func(s segment) error {
		blank = blank && s.kind == zeros
		return nil
	})
	if err != nil || blank {
		return err
	}
	for part.Length > 0 {
		n := min(part.Length, int64(len(zeroPiece)))
		if err := w.writeBlock(zeroPiece[:n], part.Offset); err != nil {
			return err
		}
		part = extent.Extent{Offset: part.Offset + n, Length: part.Length - n}
	}
	return nil
}
