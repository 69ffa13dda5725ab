package vhdx

import (
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// Default block sizes are those of Hyper-V's New-VHD.
const (
	defaultBlockSize             = 32 * mib
	defaultDifferencingBlockSize = 2 * mib
)

// Places of the tables in files that Create makes.
const (
	createdLogOffset      = 1 * mib
	createdMetadataOffset = 2 * mib
	createdBATOffset      = 3 * mib
	tableLength           = mib // of the log and of the metadata region
)

// creator is written to the file identifier.
const creator = "Hyperkeep"

// Options describe a file to create. The zero value of a field means its default.
type Options struct {
	// VirtualSize in bytes: a multiple of the logical sector size, at most 64 TiB. Needed.
	VirtualSize int64

	// BlockSize in bytes: a power of two from 1 MiB to 256 MiB. Default 32 MiB, for differencing files 2 MiB.
	BlockSize int64

	// LogicalSectorSize is 512 (default) or 4096. A child needs that of its parent.
	LogicalSectorSize int64

	// PhysicalSectorSize is 512 or 4096 (default).
	PhysicalSectorSize int64

	// VirtualDiskID is the identity of the disk, by default a new one. A child has that of its parent.
	VirtualDiskID uuid.UUID

	// Parent makes a differencing file.
	Parent *ParentRef

	// Fixed allocates all blocks. The space is left to the storage, which may keep it sparse.
	Fixed bool
}

// Create makes an empty file and returns its size. Whatever the storage held is gone. The file becomes valid with the last write, so
// after a crash there is either no VHDX or a whole one; calling Create again starts over. Options that the format does not allow are an error that wraps
// ErrUnsupported.
func Create(s Storage, o Options) (int64, error) {
	o = o.withDefaults()
	g := geometry{virtualSize: o.VirtualSize, blockSize: o.BlockSize, sectorSize: o.LogicalSectorSize, differencing: o.Parent != nil}
	if err := o.check(g); err != nil {
		return 0, err
	}
	bat := extent.Extent{Offset: createdBATOffset, Length: alignUp(g.batEntries()*batEntrySize, alignment)}
	size := bat.End()
	if o.Fixed {
		size += g.blocks() * g.blockSize
	}
	if err := s.Truncate(0); err != nil {
		return 0, fmt.Errorf("create virtual disk: %w", err)
	}
	if err := s.Truncate(size); err != nil {
		return 0, fmt.Errorf("create virtual disk: %w", err)
	}
	if o.Fixed {
		if err := writeFixedBAT(s, g, bat); err != nil {
			return 0, fmt.Errorf("create virtual disk: %w", err)
		}
	}
	for _, part := range []struct {
		offset int64
		bytes  []byte
	}{
		{createdMetadataOffset, o.metadata()},
		{regionTable1Offset, regionTable(bat)},
		{regionTable2Offset, regionTable(bat)},
		{identifierOffset, append([]byte("vhdxfile"), encodeUTF16(creator)...)},
	} {
		if _, err := s.WriteAt(part.bytes, part.offset); err != nil {
			return 0, fmt.Errorf("create virtual disk: %w", err)
		}
	}
	if err := s.Sync(); err != nil {
		return 0, fmt.Errorf("create virtual disk: %w", err)
	}
	_, err := updateHeader(s, newHeader(), 1)
	return size, err
}

func (o Options) withDefaults() Options {
	if o.BlockSize == 0 {
		o.BlockSize = defaultBlockSize
		if o.Parent != nil {
			o.BlockSize = defaultDifferencingBlockSize
		}
	}
	if o.LogicalSectorSize == 0 {
		o.LogicalSectorSize = 512
	}
	if o.PhysicalSectorSize == 0 {
		o.PhysicalSectorSize = 4096
	}
	if o.VirtualDiskID == uuid.Nil {
		o.VirtualDiskID = uuid.New()
	}
	return o
}

func (o Options) check(g geometry) error {
	err := g.check()
	if err == nil {
		err = checkSectorSize("physical", o.PhysicalSectorSize)
	}
	switch {
	case err != nil:
		return unsupportedf("create virtual disk: %w", err)
	case o.Fixed && o.Parent != nil:
		return unsupportedf("create virtual disk: a fixed disk has no parent")
	case o.Parent != nil:
		return o.Parent.check()
	}
	return nil
}

func newHeader() header {
	return header{
		fileWriteID: uuid.New(), dataWriteID: uuid.New(), version: 1,
		logLength: tableLength, logOffset: uint64(createdLogOffset),
	}
}

func regionTable(bat extent.Extent) []byte {
	b := make([]byte, regionTableSize)
	copy(b, "regi")
	le.PutUint32(b[8:], 2)
	for i, r := range []struct {
		id uuid.UUID
		extent.Extent
	}{
		{batRegionID, bat},
		{metadataRegionID, extent.Extent{Offset: createdMetadataOffset, Length: tableLength}},
	} {
		entry := b[16+32*i:]
		putGUID(entry, r.id)
		le.PutUint64(entry[16:], uint64(r.Offset))
		le.PutUint32(entry[24:], uint32(r.Length))
		le.PutUint32(entry[28:], 1) // required
	}
	seal(b)
	return b
}

// metadata returns the metadata region up to the end of its last item.
func (o Options) metadata() []byte {
	table := make([]byte, metadataTableSize)
	copy(table, "metadata")
	var items []byte
	add := func(id uuid.UUID, flags uint32, value []byte) {
		count := le.Uint16(table[10:])
		entry := table[32+32*int(count):]
		putGUID(entry, id)
		le.PutUint32(entry[16:], uint32(len(table)+len(items)))
		le.PutUint32(entry[20:], uint32(len(value)))
		le.PutUint32(entry[24:], flags|flagRequired)
		le.PutUint16(table[10:], count+1)
		items = append(items, value...)
	}
	params := uint32(0)
	if o.Fixed {
		params = paramLeaveAllocated
	}
	if o.Parent != nil {
		params = paramHasParent
	}
	id := make([]byte, 16)
	putGUID(id, o.VirtualDiskID)
	add(itemFileParameters, 0, le.AppendUint32(le.AppendUint32(nil, uint32(o.BlockSize)), params))
	add(itemVirtualDiskSize, flagVirtualDisk, le.AppendUint64(nil, uint64(o.VirtualSize)))
	add(itemVirtualDiskID, flagVirtualDisk, id)
	add(itemLogicalSectorSize, flagVirtualDisk, le.AppendUint32(nil, uint32(o.LogicalSectorSize)))
	add(itemPhysicalSectorSize, flagVirtualDisk, le.AppendUint32(nil, uint32(o.PhysicalSectorSize)))
	if o.Parent != nil {
		add(itemParentLocator, 0, o.Parent.locator().encode())
	}
	return slices.Concat(table, items)
}

// writeFixedBAT places the blocks of a fixed disk one after the other behind its BAT.
func writeFixedBAT(s Storage, g geometry, bat extent.Extent) error {
	buf := make([]byte, 0, 64*kib)
	at := bat.Offset
	for index, n := int64(0), int64(0); n < g.blocks(); index++ {
		e := batEntry(0) // the unused entry of a sector bitmap
		if index == g.payloadIndex(n) {
			e = newEntry(stateFull, bat.End()+n*g.blockSize)
			n++
		}
		buf = le.AppendUint64(buf, uint64(e))
		if len(buf) == cap(buf) || n == g.blocks() {
			if _, err := s.WriteAt(buf, at); err != nil {
				return err
			}
			at, buf = at+int64(len(buf)), buf[:0]
		}
	}
	return nil
}
