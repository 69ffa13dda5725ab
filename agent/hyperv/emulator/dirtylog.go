package emulator

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
)

// Places and sizes of [MS-VHDX] 2.2 and 2.3.
const (
	vhdxHeader1, vhdxHeader2 = 64 << 10, 128 << 10
	vhdxRegions              = 192 << 10
	vhdxSector               = 4096
)

// batRegion is the GUID of the BAT in a region table, as it lies in the file ([MS-VHDX] 2.2.3.2).
var batRegion = [16]byte{0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08}

// soil leaves a log in the frozen parent of the leaf. The guest goes on over what the log says. The caller holds d.mu.
func (d *disk) soil() error {
	frozen := d.chain[1]
	if err := d.vm.host.soil(frozen.path); err != nil {
		return err
	}
	again, err := openMember(d.vm.host.ctx, d.vm.host.files, frozen.path)
	if err != nil {
		return err
	}
	d.chain[1] = again
	return errors.Join(d.reconnect(), frozen.close())
}

// soil leaves a frozen disk file as a host does that was not done with it: the first sector of its BAT lies in the log only. Who does not replay the log
// reads nonsense.
func (h *Host) soil(path string) (err error) {
	f, err := h.files.OpenWrite(h.ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	header, slot, err := currentHeader(f)
	if err != nil {
		return err
	}
	bat, err := batOffset(f)
	if err != nil {
		return err
	}
	sector := make([]byte, vhdxSector)
	if _, err := f.ReadAt(sector, bat); err != nil {
		return err
	}
	size, err := f.Size()
	if err != nil {
		return err
	}
	log := uuid.New()
	le := binary.LittleEndian
	if _, err := f.WriteAt(logEntry(log, sector, bat, size), int64(le.Uint64(header[72:]))); err != nil {
		return err
	}
	le.PutUint64(header[8:], le.Uint64(header[8:])+1)
	copy(header[48:64], log[:])
	if _, err := f.WriteAt(sealed(header), int64(vhdxHeader1+vhdxHeader2)-slot); err != nil { // the other one, which is the current one then
		return err
	}
	_, err = f.WriteAt(make([]byte, vhdxSector), bat)
	return err
}

// currentHeader returns the header with the higher number, and where it lies.
func currentHeader(f hostfs.File) (header []byte, slot int64, err error) {
	var newest uint64
	for _, at := range []int64{vhdxHeader1, vhdxHeader2} {
		b := make([]byte, vhdxSector)
		if _, err := f.ReadAt(b, at); err != nil {
			return nil, 0, err
		}
		if number := binary.LittleEndian.Uint64(b[8:]); string(b[:4]) == "head" && (header == nil || number > newest) {
			header, slot, newest = b, at, number
		}
	}
	if header == nil {
		return nil, 0, fmt.Errorf("the file has no header")
	}
	return header, slot, nil
}

// batOffset finds the BAT in the region table, whose entries have 32 bytes each.
func batOffset(f hostfs.File) (int64, error) {
	table := make([]byte, 16+32*2)
	if _, err := f.ReadAt(table, vhdxRegions); err != nil {
		return 0, err
	}
	for entry := 16; entry < len(table); entry += 32 {
		if [16]byte(table[entry:]) == batRegion {
			return int64(binary.LittleEndian.Uint64(table[entry+16:])), nil
		}
	}
	return 0, fmt.Errorf("the file has no BAT")
}

// logEntry is a log of one entry with one sector of data ([MS-VHDX] 2.3.1).
func logEntry(log uuid.UUID, sector []byte, offset, size int64) []byte {
	const sequence = 1
	le := binary.LittleEndian
	b := make([]byte, 2*vhdxSector)
	copy(b, "loge")
	le.PutUint32(b[8:], uint32(len(b)))
	le.PutUint64(b[16:], sequence)
	le.PutUint32(b[24:], 1) // descriptors
	copy(b[32:], log[:])
	le.PutUint64(b[48:], uint64(size)) // flushed
	le.PutUint64(b[56:], uint64(size)) // and as long as needed
	descriptor, data := b[64:], b[vhdxSector:]
	copy(descriptor, "desc")
	copy(descriptor[4:8], sector[vhdxSector-4:])
	copy(descriptor[8:16], sector[:8])
	le.PutUint64(descriptor[16:], uint64(offset))
	le.PutUint64(descriptor[24:], sequence)
	copy(data, "data")
	copy(data[8:vhdxSector-4], sector[8:])
	le.PutUint32(data[vhdxSector-4:], sequence)
	return sealed(b)
}

// sealed puts the checksum into a structure that has it behind its signature.
func sealed(b []byte) []byte {
	clear(b[4:8])
	binary.LittleEndian.PutUint32(b[4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}
