package vhdx

import (
	"io"
	"slices"
	"sort"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// overlay is a file with its log replayed in memory. Data stays in the log and is read from there; only places are kept.
type overlay struct {
	r       io.ReaderAt
	raw     int64 // size of the file before the replay
	size    int64 // size after it
	patches []patch
}

// patch is what the log puts over a range of the file. Patches are sorted and do not overlap.
type patch struct {
	extent.Extent
	zero     bool
	data     int64 // place in the file of the data sector in the log
	leading  [8]byte
	trailing [4]byte
}

// replay reads the log of a file that was not closed in an orderly way.
func replay(r io.ReaderAt, size int64, h header) (*overlay, error) {
	log, err := checkRegion("log", h.logOffset, h.logLength, size)
	if err != nil {
		return nil, err
	}
	if h.logLength > maxDirtyLog {
		return nil, unsupportedf("it was not closed properly and its log has %d MiB; at most %d MiB are replayed", h.logLength/mib, maxDirtyLog/mib)
	}
	l := newLogReader(r, h)
	entries, err := l.active()
	if err != nil {
		return nil, err
	}
	newest := entries[len(entries)-1]
	if newest.flushed > uint64(size) {
		return nil, corruptf("it has %d bytes, but had %d when its log was written: its end was cut off", size, newest.flushed)
	}
	if newest.last > uint64(maxFileSize) {
		return nil, corruptf("its log would extend it to %d bytes", newest.last)
	}
	o := &overlay{r: r, raw: size, size: max(size, int64(newest.last))}
	zeros := 0
	for _, e := range entries {
		err := l.descriptors(e, func(d logDescriptor, _ bool) error {
			if d.zero {
				zeros++
			}
			if zeros > maxLogZeros {
				return unsupportedf("its log zeroes more than %d ranges", maxLogZeros)
			}
			return o.apply(d, log)
		})
		if err != nil {
			return nil, err
		}
	}
	return o, nil
}

// apply checks a descriptor and paints it. The headers and the log itself are never changed through the log.
func (o *overlay) apply(d logDescriptor, log extent.Extent) error {
	end := d.fileOffset + d.length
	if d.fileOffset%uint64(logSector) != 0 || d.length%uint64(logSector) != 0 || end < d.fileOffset || end > uint64(o.size) ||
		d.fileOffset < uint64(regionTable1Offset) {
		return corruptf("its log changes %d bytes at byte %d, which no log may do", d.length, d.fileOffset)
	}
	p := patch{
		Extent: extent.Extent{Offset: int64(d.fileOffset), Length: int64(d.length)},
		zero:   d.zero, data: log.Offset + d.data, leading: d.leading, trailing: d.trailing,
	}
	if p.Clip(log).Length > 0 {
		return corruptf("its log changes itself at bytes %v", p.Extent)
	}
	if p.Length > 0 {
		o.paint(p)
	}
	return nil
}

// paint puts a patch over those that came before. All are made of whole sectors and only zeros are longer than one, so only
// ranges of zeros are ever cut.
func (o *overlay) paint(p patch) {
	first := o.search(p.Offset)
	last := first
	var kept []patch
	for ; last < len(o.patches) && o.patches[last].Offset < p.End(); last++ {
		old := o.patches[last]
		if old.Offset < p.Offset {
			before := old
			before.Length = p.Offset - old.Offset
			kept = append(kept, before)
		}
	}
	kept = append(kept, p)
	if last > first {
		if after := o.patches[last-1]; after.End() > p.End() {
			after.Extent = extent.Extent{Offset: p.End(), Length: after.End() - p.End()}
			kept = append(kept, after)
		}
	}
	o.patches = slices.Replace(o.patches, first, last, kept...)
}

// search returns the first patch that ends behind an offset.
func (o *overlay) search(offset int64) int {
	return sort.Search(len(o.patches), func(i int) bool { return o.patches[i].End() > offset })
}

// ReadAt reads the file as it is after the replay.
func (o *overlay) ReadAt(p []byte, offset int64) (int, error) {
	want := len(p)
	p = p[:max(0, min(int64(len(p)), o.size-offset))]
	for done, i := 0, o.search(offset); done < len(p); {
		at := offset + int64(done)
		rest := p[done:]
		var n int
		var err error
		if i < len(o.patches) && o.patches[i].Offset <= at {
			n, err = o.readPatch(o.patches[i], rest, at)
			i++
		} else {
			if i < len(o.patches) {
				rest = rest[:min(int64(len(rest)), o.patches[i].Offset-at)]
			}
			n, err = len(rest), o.readRaw(rest, at)
		}
		if err != nil {
			return done, err
		}
		done += n
	}
	if len(p) < want {
		return len(p), io.EOF
	}
	return len(p), nil
}

// readRaw reads what the log does not touch. Behind the old end of the file there are zeros.
func (o *overlay) readRaw(p []byte, offset int64) error {
	inside := max(0, min(int64(len(p)), o.raw-offset))
	clear(p[inside:])
	return readFull(o.r, p[:inside], offset)
}

func (o *overlay) readPatch(from patch, p []byte, offset int64) (int, error) {
	n := int(min(int64(len(p)), from.End()-offset))
	if from.zero {
		clear(p[:n])
		return n, nil
	}
	var sector [logSector]byte
	if err := readFull(o.r, sector[:], from.data); err != nil {
		return 0, err
	}
	copy(sector[:], from.leading[:])
	copy(sector[logSector-4:], from.trailing[:])
	copy(p[:n], sector[offset-from.Offset:])
	return n, nil
}
