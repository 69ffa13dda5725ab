package vhdx

import (
	"github.com/hyperkeep/hyperkeep/agent/extent"
)

const (
	batEntrySize = 8
	bitmapBlock  = mib // a sector bitmap has 2^23 bits
)

// blockState says what a block holds ([MS-VHDX] 2.5.1.1, 2.5.1.2).
type blockState uint8

const (
	stateNotPresent  blockState = 0
	stateUndefined   blockState = 1
	stateZero        blockState = 2
	stateUnmapped    blockState = 3
	stateUnmappedOld blockState = 5 // drafts before version 1.0
	stateFull        blockState = 6
	statePartial     blockState = 7
)

// batEntry is one entry of the BAT: the state in bits 0-2, the place in the file in MiB in bits 20-63 ([MS-VHDX] 2.5.1). Bits 3-19 are reserved
// and ignored.
type batEntry uint64

func newEntry(s blockState, offset int64) batEntry { return batEntry(uint64(offset) | uint64(s)) }

func (e batEntry) state() blockState { return blockState(e & 7) }

// offset is the place in the file in bytes. It is not to be trusted before File.space has checked it.
func (e batEntry) offset() uint64 { return uint64(e) &^ uint64(alignment-1) }

// hides says whether the block reads as zeros whatever a parent holds.
func (e batEntry) hides() bool {
	switch e.state() {
	case stateUndefined, stateZero, stateUnmapped, stateUnmappedOld:
		return true
	}
	return false
}

// space returns where in the file a block lies, after checking that this is inside the file and outside of all tables.
func (f *File) space(e batEntry, length int64) (extent.Extent, error) {
	size := f.size.Load()
	if e.offset() < uint64(headerAreaSize) || e.offset() > uint64(size) || length > size-int64(e.offset()) {
		return extent.Extent{}, corruptf("its block allocation table places a block of %d bytes at byte %d of a file of %d bytes", length, e.offset(), size)
	}
	at := extent.Extent{Offset: int64(e.offset()), Length: length}
	if touches(f.layout.occupied, at) {
		return extent.Extent{}, corruptf("its block allocation table places a block over its tables, at bytes %v", at)
	}
	return at, nil
}

// entries reads the BAT entries of payload block n and those behind it, at most to the end of the chunk, and returns how many it read.
func (f *File) entries(n int64, into []batEntry) (int, error) {
	count := min(int64(len(into)), f.meta.chunkRatio()-n%f.meta.chunkRatio(), f.meta.blocks()-n)
	var buf [batBatch * batEntrySize]byte
	raw := buf[:count*batEntrySize]
	if err := f.tables.read(raw, f.entryPlace(f.meta.payloadIndex(n))); err != nil {
		return 0, err
	}
	for i := range count {
		into[i] = batEntry(le.Uint64(raw[i*batEntrySize:]))
	}
	return int(count), nil
}

// batBatch is how many entries are decoded at once.
const batBatch = 512

// entryPlace is where in the file the BAT entry with an index lies.
func (f *File) entryPlace(index int64) int64 { return f.layout.bat.Offset + index*batEntrySize }

// entry reads one BAT entry.
func (f *File) entry(index int64) (batEntry, error) {
	var b [batEntrySize]byte
	err := f.tables.read(b[:], f.entryPlace(index))
	return batEntry(le.Uint64(b[:])), err
}

// bitmap returns where in the file the sector bitmap lies that covers payload block n.
func (f *File) bitmap(n int64) (extent.Extent, error) {
	e, err := f.entry(f.meta.bitmapIndex(n))
	if err != nil {
		return extent.Extent{}, err
	}
	if e.state() != stateFull {
		return extent.Extent{}, corruptf("block %d is partially present but its sector bitmap is not", n)
	}
	return f.space(e, bitmapBlock)
}
