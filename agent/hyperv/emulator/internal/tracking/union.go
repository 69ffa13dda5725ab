package tracking

import (
	"errors"
	"io"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// Union returns what any of the bitmaps has within window, in multiples of Granularity but cut at the window. It stops after limit extents: processed
// is how far it came, counted from the start of the window.
func Union(bitmaps []*Bitmap, window extent.Extent, limit int) (changed extent.List, processed int64, err error) {
	for at := window.Offset; at < window.End(); {
		number := at / Granularity / pageBits
		page, err := unionPage(bitmaps, number)
		if err != nil {
			return nil, 0, err
		}
		end := min(window.End(), (number+1)*pageBits*Granularity)
		for at < end {
			next := min(end, (at/Granularity+1)*Granularity)
			bit := at / Granularity % pageBits
			if page[bit/8]&(1<<(bit%8)) != 0 {
				if full := len(changed) == limit; full && changed[limit-1].End() != at {
					return changed, at - window.Offset, nil
				}
				changed = changed.Append(extent.Extent{Offset: at, Length: next - at})
			}
			at = next
		}
	}
	return changed, window.Length, nil
}

// unionPage reads the files, not the pages in memory: both are the same, and sealed bitmaps are read only once.
func unionPage(bitmaps []*Bitmap, number int64) (union [pageSize]byte, err error) {
	var page [pageSize]byte
	for _, b := range bitmaps {
		n, err := b.file.ReadAt(page[:], number*pageSize)
		if err != nil && !errors.Is(err, io.EOF) {
			return union, err
		}
		for i := range n {
			union[i] |= page[i]
		}
	}
	return union, nil
}
