package vhdx

import "github.com/hyperkeep/hyperkeep/agent/extent"

// usage is what a scan of the whole BAT found.
type usage struct {
	end       int64 // first byte behind everything that is in use
	exclusive bool  // space that the BAT reserves for blocks without data belongs to them alone and can be written
}

// Check reads the whole BAT and says whether every block lies inside of the file and none overlaps another: a small file whose
// blocks overlap can pretend to hold many TiB. It runs once; NewDisk and OpenWriter call it. Memory: one bit for each MiB in use.
func (f *File) Check() error {
	f.scanOnce.Do(func() { f.scanned, f.scanErr = f.scan() })
	return f.scanErr
}

// scanBytes is how much of the BAT a scan reads at once. It reads past the cache, whose pages are for those who look up a few entries.
const scanBytes = mib

func (f *File) scan() (usage, error) {
	s := scan{file: f, reservedFits: true, end: headerAreaSize}
	for _, e := range f.layout.occupied {
		s.end = max(s.end, e.End())
	}
	all := f.meta.batEntries()
	table := make([]byte, min(scanBytes, all*batEntrySize))
	for first := int64(0); first < all; {
		raw := table[:min(scanBytes, (all-first)*batEntrySize)]
		if err := readFull(f.r, raw, f.entryPlace(first)); err != nil {
			return usage{}, err
		}
		for at := 0; at < len(raw); at += batEntrySize {
			if e := batEntry(le.Uint64(raw[at:])); e != 0 {
				if err := s.entry(first+int64(at/batEntrySize), e); err != nil {
					return usage{}, err
				}
			}
		}
		first += int64(len(raw) / batEntrySize)
	}
	return usage{end: s.end, exclusive: s.reservedFits}, nil
}

// scan gathers which MiB of a file are in use.
type scan struct {
	file         *File
	present      bitset // by blocks with data
	reserved     bitset // by blocks that read as zeros but keep their space
	reservedFits bool
	end          int64
}

// entry deals with the entry at an index of the BAT. Those behind the last block, up to the last sector bitmap, mean nothing.
func (s *scan) entry(index int64, e batEntry) error {
	meta := s.file.meta
	chunk, within := index/(meta.chunkRatio()+1), index%(meta.chunkRatio()+1)
	n := chunk*meta.chunkRatio() + within
	switch {
	case within == meta.chunkRatio() && meta.differencing:
		return s.bitmap(chunk*meta.chunkRatio(), e)
	case within == meta.chunkRatio(), n >= meta.blocks():
		return nil
	}
	return s.payload(n, e)
}

func (s *scan) payload(n int64, e batEntry) error {
	length := s.file.meta.block(n).Length
	switch {
	case e.state() == stateNotPresent:
		return nil
	case e.hides():
		s.reserve(e, length)
		return nil
	case e.state() == stateFull, e.state() == statePartial && s.file.meta.differencing:
		return s.occupy(e, length)
	}
	return corruptf("block %d has the state %d, which a %s disk cannot have", n, e.state(), s.file.meta.kind)
}

func (s *scan) bitmap(n int64, e batEntry) error {
	switch e.state() {
	case stateNotPresent:
		return nil
	case stateFull:
		return s.occupy(e, bitmapBlock)
	}
	return corruptf("the sector bitmap of block %d has the state %d", n, e.state())
}

func (s *scan) occupy(e batEntry, length int64) error {
	at, err := s.file.space(e, length)
	if err != nil {
		return err
	}
	if s.present.add(at) {
		return corruptf("its block allocation table places two blocks at bytes %v", at)
	}
	s.reservedFits = s.reservedFits && !s.reserved.has(at)
	s.end = max(s.end, alignUp(at.End(), alignment))
	return nil
}

// reserve notes the space of a block without data. The specification lets such entries hold anything, so nothing here is an error.
func (s *scan) reserve(e batEntry, length int64) {
	if e.offset() == 0 {
		return
	}
	at, err := s.file.space(e, length)
	if err != nil || s.reserved.add(at) || s.present.has(at) {
		s.reservedFits = false
		return
	}
	s.end = max(s.end, alignUp(at.End(), alignment))
}

// bitset has a bit for each MiB of a file. Its memory follows what is set, in pages that cover 32 GiB each.
type bitset struct {
	pages map[int64]*[512]uint64
}

// add sets the bits of an extent and says whether one was set before.
func (b *bitset) add(e extent.Extent) (twice bool) {
	if b.pages == nil {
		b.pages = make(map[int64]*[512]uint64)
	}
	for i := e.Offset / mib; i < (e.End()+mib-1)/mib; i++ {
		page := b.pages[i>>15]
		if page == nil {
			page = new([512]uint64)
			b.pages[i>>15] = page
		}
		word, bit := &page[i>>6&511], uint64(1)<<(i&63)
		twice = twice || *word&bit != 0
		*word |= bit
	}
	return twice
}

// has says whether a bit of an extent is set.
func (b *bitset) has(e extent.Extent) bool {
	for i := e.Offset / mib; i < (e.End()+mib-1)/mib; i++ {
		if page := b.pages[i>>15]; page != nil && page[i>>6&511]&(1<<(i&63)) != 0 {
			return true
		}
	}
	return false
}
