package vhdx

import (
	"cmp"
	"io"
	"slices"
	"sort"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

const (
	regionTableSize  = 64 * kib
	maxRegionEntries = 2047
)

// The two regions that every file has ([MS-VHDX] 2.2.3.2).
var (
	batRegionID      = uuid.MustParse("2DC27766-F623-4200-9D64-115E9BFD4A08")
	metadataRegionID = uuid.MustParse("8B7CA206-4790-4B9A-B8FE-575F050F886E")
)

// layout is where the tables of a file lie.
type layout struct {
	bat      extent.Extent
	metadata extent.Extent
	occupied extent.List // headers, log and all regions: no block may touch them
}

// readLayout reads the first region table, or the second one if the first is damaged, and checks that nothing overlaps.
func readLayout(r io.ReaderAt, size int64, h header) (layout, error) {
	table := make([]byte, regionTableSize)
	if err := readFull(r, table, regionTable1Offset); err != nil {
		return layout{}, err
	}
	if !sealed(table, "regi") {
		if err := readFull(r, table, regionTable2Offset); err != nil {
			return layout{}, err
		}
	}
	if !sealed(table, "regi") {
		return layout{}, corruptf("neither of its two region tables has a signature and a matching checksum")
	}
	taken := []extent.Extent{{Length: headerAreaSize}}
	if h.logLength > 0 {
		log, err := checkRegion("log", h.logOffset, h.logLength, size)
		if err != nil {
			return layout{}, err
		}
		taken = append(taken, log)
	}
	return decodeRegions(table, size, taken)
}

func decodeRegions(table []byte, size int64, taken []extent.Extent) (layout, error) {
	count := le.Uint32(table[8:])
	if count > maxRegionEntries {
		return layout{}, corruptf("its region table claims %d entries; at most %d are possible", count, maxRegionEntries)
	}
	seen := make(map[uuid.UUID]extent.Extent, 2)
	for i := range int(count) {
		entry := table[16+32*i:]
		id := readGUID(entry)
		if _, twice := seen[id]; twice {
			return layout{}, corruptf("its region table names region %s twice", id)
		}
		region, err := checkRegion("region "+id.String(), le.Uint64(entry[16:]), int64(le.Uint32(entry[24:])), size)
		if err != nil {
			return layout{}, err
		}
		required := le.Uint32(entry[28:])&1 != 0
		if required && id != batRegionID && id != metadataRegionID {
			return layout{}, unsupportedf("it needs region %s, which this version does not know", id)
		}
		seen[id] = region
		taken = append(taken, region)
	}
	for id, name := range map[uuid.UUID]string{batRegionID: "block allocation table", metadataRegionID: "metadata"} {
		if seen[id].Length == 0 {
			return layout{}, corruptf("its region table does not name the %s region", name)
		}
	}
	occupied, err := disjoint(taken)
	return layout{bat: seen[batRegionID], metadata: seen[metadataRegionID], occupied: occupied}, err
}

// checkRegion checks the place of a region: in multiples of 1 MiB, behind the headers and inside the file.
func checkRegion(name string, offset uint64, length, size int64) (extent.Extent, error) {
	switch {
	case offset < uint64(headerAreaSize) || offset%uint64(alignment) != 0 || length%alignment != 0:
		return extent.Extent{}, corruptf("the %s at byte %d with %d bytes is not made of whole MiB behind the headers", name, offset, length)
	case offset > uint64(size) || length > size-int64(offset):
		return extent.Extent{}, corruptf("the %s at byte %d with %d bytes lies behind the end of the file (%d bytes)", name, offset, length, size)
	}
	return extent.Extent{Offset: int64(offset), Length: length}, nil
}

// disjoint makes a list of extents that must not overlap.
func disjoint(taken []extent.Extent) (extent.List, error) {
	slices.SortFunc(taken, func(a, b extent.Extent) int { return cmp.Compare(a.Offset, b.Offset) })
	for i := 1; i < len(taken); i++ {
		if taken[i].Offset < taken[i-1].End() {
			return nil, corruptf("the regions at bytes %v and %v overlap", taken[i-1], taken[i])
		}
	}
	return extent.Normalize(taken), nil
}

// touches says whether e meets anything in the list.
func touches(l extent.List, e extent.Extent) bool {
	i := sort.Search(len(l), func(i int) bool { return l[i].End() > e.Offset })
	return i < len(l) && l[i].Offset < e.End()
}
