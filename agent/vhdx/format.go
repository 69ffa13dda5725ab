package vhdx

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"unicode/utf16"

	"github.com/google/uuid"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	tib = int64(1) << 40

	// Fixed places of the first MiB ([MS-VHDX] 2.2).
	identifierOffset   = 0
	header1Offset      = 64 * kib
	header2Offset      = 128 * kib
	regionTable1Offset = 192 * kib
	regionTable2Offset = 256 * kib
	headerAreaSize     = mib

	// All tables and blocks start at multiples of 1 MiB ([MS-VHDX] 2.2).
	alignment = mib

	maxVirtualSize = 64 * tib // [MS-VHDX] 2.6.2.2
	minBlockSize   = 1 * mib  // [MS-VHDX] 2.6.2.1
	maxBlockSize   = 256 * mib

	// maxFileSize is twice the payload of the largest disk. It bounds the memory of the overlap check (one bit for each MiB).
	maxFileSize = 128 * tib
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
)

// readGUID reads a GUID in Windows' binary order: the first three groups are little-endian.
func readGUID(b []byte) uuid.UUID {
	var g uuid.UUID
	binary.BigEndian.PutUint32(g[0:], le.Uint32(b[0:]))
	binary.BigEndian.PutUint16(g[4:], le.Uint16(b[4:]))
	binary.BigEndian.PutUint16(g[6:], le.Uint16(b[6:]))
	copy(g[8:], b[8:16])
	return g
}

// putGUID is the reverse of readGUID.
func putGUID(b []byte, g uuid.UUID) {
	le.PutUint32(b[0:], binary.BigEndian.Uint32(g[0:]))
	le.PutUint16(b[4:], binary.BigEndian.Uint16(g[4:]))
	le.PutUint16(b[6:], binary.BigEndian.Uint16(g[6:]))
	copy(b[8:16], g[8:])
}

// checksum is the CRC-32C of a structure whose checksum field, four bytes at offset 4, counts as zero.
func checksum(b []byte) uint32 {
	crc := crc32.Update(0, castagnoli, b[:4])
	crc = crc32.Update(crc, castagnoli, make([]byte, 4))
	return crc32.Update(crc, castagnoli, b[8:])
}

// seal stores the checksum of a structure in it.
func seal(b []byte) { le.PutUint32(b[4:], checksum(b)) }

// sealed says whether a structure starts with a signature and carries its checksum.
func sealed(b []byte, signature string) bool {
	return string(b[:4]) == signature && le.Uint32(b[4:]) == checksum(b)
}

func encodeUTF16(s string) []byte {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = le.AppendUint16(b, u)
	}
	return b
}

func decodeUTF16(b []byte) string {
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = le.Uint16(b[2*i:])
	}
	return string(utf16.Decode(units))
}

// readFull fills p, or says that the file ends early.
func readFull(r io.ReaderAt, p []byte, offset int64) error {
	n, err := r.ReadAt(p, offset)
	switch {
	case n == len(p):
		return nil
	case err == nil, errors.Is(err, io.EOF):
		return corruptf("it ends at byte %d, inside of something that starts at byte %d", offset+int64(n), offset)
	default:
		return err
	}
}

func alignUp(n, to int64) int64 { return (n + to - 1) / to * to }
