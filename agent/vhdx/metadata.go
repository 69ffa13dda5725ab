package vhdx

import (
	"fmt"
	"io"
	"math/bits"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

const (
	metadataTableSize  = 64 * kib
	maxMetadataEntries = 2047
	maxMetadataItem    = mib

	flagUser        = 1 << 0
	flagVirtualDisk = 1 << 1
	flagRequired    = 1 << 2

	paramLeaveAllocated = 1 << 0
	paramHasParent      = 1 << 1
)

// The system metadata items ([MS-VHDX] 2.6.2).
var (
	itemFileParameters     = uuid.MustParse("CAA16737-FA36-4D43-B3B6-33F0AA44E76B")
	itemVirtualDiskSize    = uuid.MustParse("2FA54224-CD1B-4876-B211-5DBED83BF4B8")
	itemVirtualDiskID      = uuid.MustParse("BECA12AB-B2E6-4523-93EF-C309E000C746")
	itemLogicalSectorSize  = uuid.MustParse("8141BF1D-A96F-4709-BA47-F233A8FAAB5F")
	itemPhysicalSectorSize = uuid.MustParse("CDA348C7-445D-4471-9CC9-E9885251C556")
	itemParentLocator      = uuid.MustParse("A8D35F2D-B30B-454D-ABF7-D3D84834AB0C")
)

// itemLengths are the items that every file has, with their lengths.
var itemLengths = map[uuid.UUID]int64{
	itemFileParameters:     8,
	itemVirtualDiskSize:    8,
	itemVirtualDiskID:      16,
	itemLogicalSectorSize:  4,
	itemPhysicalSectorSize: 4,
}

// metadataItem is an entry of the metadata table.
type metadataItem struct {
	place extent.Extent // relative to the metadata region
	entry int64         // place of the entry in the table
}

// metadata is the decoded content of the metadata region.
type metadata struct {
	geometry
	kind           Kind
	virtualDiskID  uuid.UUID
	physicalSector int64
	locator        locator
	locatorItem    metadataItem
}

// metadataReader reads the items of one metadata region.
type metadataReader struct {
	r      io.ReaderAt
	region extent.Extent
	items  map[uuid.UUID]metadataItem
}

func readMetadata(r io.ReaderAt, region extent.Extent) (metadata, error) {
	m := metadataReader{r: r, region: region}
	if err := m.readTable(); err != nil {
		return metadata{}, err
	}
	md, err := m.parameters()
	if err != nil {
		return metadata{}, err
	}
	item, named := m.items[itemParentLocator]
	switch {
	case md.kind == Differencing && !named:
		return metadata{}, corruptf("it is a differencing disk but names no parent")
	case md.kind == Differencing:
		md.locatorItem = item
		md.locator, err = readLocator(r, region.Offset+item.place.Offset, item.place.Length)
	}
	return md, err
}

func (m *metadataReader) readTable() error {
	table := make([]byte, metadataTableSize)
	if err := readFull(m.r, table, m.region.Offset); err != nil {
		return err
	}
	if string(table[:8]) != "metadata" {
		return corruptf("its metadata region does not start with the signature \"metadata\"")
	}
	count := int(le.Uint16(table[10:]))
	if count > maxMetadataEntries {
		return corruptf("its metadata table claims %d entries; at most %d are possible", count, maxMetadataEntries)
	}
	m.items = make(map[uuid.UUID]metadataItem, len(itemLengths)+1)
	for i := range count {
		at := int64(32 + 32*i)
		if err := m.addItem(table[at:at+32], at); err != nil {
			return err
		}
	}
	return nil
}

func (m *metadataReader) addItem(b []byte, at int64) error {
	id, flags := readGUID(b), le.Uint32(b[24:])
	place := extent.Extent{Offset: int64(le.Uint32(b[16:])), Length: int64(le.Uint32(b[20:]))}
	_, known := itemLengths[id]
	if flags&flagUser != 0 || !known && id != itemParentLocator {
		if flags&flagRequired != 0 {
			return unsupportedf("it needs the metadata item %s, which this version does not know", id)
		}
		return nil
	}
	if _, twice := m.items[id]; twice {
		return corruptf("its metadata table names the item %s twice", id)
	}
	if place.Length == 0 || place.Length > maxMetadataItem || place.Offset < metadataTableSize || place.End() > m.region.Length {
		return corruptf("the metadata item %s lies at bytes %v, outside of the metadata region", id, place)
	}
	m.items[id] = metadataItem{place: place, entry: at}
	return nil
}

// value reads an item of known length.
func (m *metadataReader) value(id uuid.UUID) ([]byte, error) {
	item, want := m.items[id], itemLengths[id]
	if item.place.Length != want {
		return nil, corruptf("its metadata item %s has %d bytes instead of %d", id, item.place.Length, want)
	}
	b := make([]byte, want)
	return b, readFull(m.r, b, m.region.Offset+item.place.Offset)
}

func (m *metadataReader) parameters() (metadata, error) {
	values := make(map[uuid.UUID][]byte, len(itemLengths))
	for id := range itemLengths {
		b, err := m.value(id)
		if err != nil {
			return metadata{}, err
		}
		values[id] = b
	}
	md := metadata{
		virtualDiskID:  readGUID(values[itemVirtualDiskID]),
		physicalSector: int64(le.Uint32(values[itemPhysicalSectorSize])),
	}
	switch flags := le.Uint32(values[itemFileParameters][4:]); {
	case flags&paramHasParent != 0:
		md.kind = Differencing
	case flags&paramLeaveAllocated != 0:
		md.kind = Fixed
	default:
		md.kind = Dynamic
	}
	virtualSize := le.Uint64(values[itemVirtualDiskSize])
	if virtualSize > uint64(maxVirtualSize) {
		return metadata{}, corruptf("its virtual disk has %d bytes; at most 64 TiB are possible", virtualSize)
	}
	md.geometry = geometry{
		virtualSize:  int64(virtualSize),
		blockSize:    int64(le.Uint32(values[itemFileParameters])),
		sectorSize:   int64(le.Uint32(values[itemLogicalSectorSize])),
		differencing: md.kind == Differencing,
	}
	err := md.geometry.check()
	if err == nil {
		err = checkSectorSize("physical", md.physicalSector)
	}
	if err != nil {
		return metadata{}, corruptf("%w", err)
	}
	return md, nil
}

func checkSectorSize(name string, n int64) error {
	if n != 512 && n != 4096 {
		return fmt.Errorf("its %s sectors have %d bytes; only 512 and 4096 are possible", name, n)
	}
	return nil
}

// geometry is how a virtual disk is cut into blocks and chunks ([MS-VHDX] 2.5.1).
type geometry struct {
	virtualSize  int64
	blockSize    int64
	sectorSize   int64 // logical
	differencing bool
}

// check says what is wrong with the sizes of a file that is read or to be created.
func (g geometry) check() error {
	if err := checkSectorSize("logical", g.sectorSize); err != nil {
		return err
	}
	switch {
	case g.blockSize < minBlockSize || g.blockSize > maxBlockSize || bits.OnesCount64(uint64(g.blockSize)) != 1:
		return fmt.Errorf("its blocks have %d bytes, which is no power of two from 1 MiB to 256 MiB", g.blockSize)
	case g.virtualSize <= 0 || g.virtualSize > maxVirtualSize || g.virtualSize%g.sectorSize != 0:
		return fmt.Errorf("its virtual disk has %d bytes, which is no multiple of %d up to 64 TiB", g.virtualSize, g.sectorSize)
	}
	return nil
}

// whole is the extent of the virtual disk.
func (g geometry) whole() extent.Extent { return extent.Extent{Length: g.virtualSize} }

// blocks is the number of payload blocks.
func (g geometry) blocks() int64 { return (g.virtualSize + g.blockSize - 1) / g.blockSize }

// block is the part of the virtual disk in block n. The last one may be short.
func (g geometry) block(n int64) extent.Extent {
	return extent.Extent{Offset: n * g.blockSize, Length: g.blockSize}.Clip(g.whole())
}

// chunkRatio is the number of payload blocks that share one sector bitmap block of 2^23 bits.
func (g geometry) chunkRatio() int64 { return (1 << 23) * g.sectorSize / g.blockSize }

// payloadIndex is the place of payload block n in the BAT: every chunk is followed by the entry of its sector bitmap.
func (g geometry) payloadIndex(n int64) int64 { return n + n/g.chunkRatio() }

// bitmapIndex is the place in the BAT of the sector bitmap that covers payload block n.
func (g geometry) bitmapIndex(n int64) int64 {
	chunk := n / g.chunkRatio()
	return (chunk+1)*g.chunkRatio() + chunk
}

// batEntries is the number of entries that the BAT needs. Only differencing disks need the bitmap entry of the last chunk.
func (g geometry) batEntries() int64 {
	if g.differencing {
		return g.bitmapIndex(g.blocks()-1) + 1
	}
	return g.payloadIndex(g.blocks()-1) + 1
}
