package vhdx

import (
	"bytes"
	"io"

	"github.com/google/uuid"
)

const headerSize = 4 * kib

var headerOffsets = [2]int64{header1Offset, header2Offset}

// header is the structure that exists twice, so that one copy is whole while the other one is written ([MS-VHDX] 2.2.2).
type header struct {
	sequence    uint64
	fileWriteID uuid.UUID
	dataWriteID uuid.UUID
	logID       uuid.UUID // uuid.Nil: there is nothing to replay
	logVersion  uint16
	version     uint16
	logLength   int64
	logOffset   uint64
}

func decodeHeader(b []byte) header {
	return header{
		sequence:    le.Uint64(b[8:]),
		fileWriteID: readGUID(b[16:]),
		dataWriteID: readGUID(b[32:]),
		logID:       readGUID(b[48:]),
		logVersion:  le.Uint16(b[64:]),
		version:     le.Uint16(b[66:]),
		logLength:   int64(le.Uint32(b[68:])),
		logOffset:   le.Uint64(b[72:]),
	}
}

func (h header) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, "head")
	le.PutUint64(b[8:], h.sequence)
	putGUID(b[16:], h.fileWriteID)
	putGUID(b[32:], h.dataWriteID)
	putGUID(b[48:], h.logID)
	le.PutUint16(b[64:], h.logVersion)
	le.PutUint16(b[66:], h.version)
	le.PutUint32(b[68:], uint32(h.logLength))
	le.PutUint64(b[72:], h.logOffset)
	seal(b)
	return b
}

// readHeader chooses the current one of the two headers and says which slot it came from. Disk2VHD writes two identical headers with one
// sequence number, which the specification does not allow and every reader accepts.
func readHeader(r io.ReaderAt) (header, int, error) {
	var raw [2][headerSize]byte
	var valid [2]bool
	for slot, offset := range headerOffsets {
		if err := readFull(r, raw[slot][:], offset); err != nil {
			return header{}, 0, err
		}
		valid[slot] = sealed(raw[slot][:], "head")
	}
	first, second := decodeHeader(raw[0][:]), decodeHeader(raw[1][:])
	current, slot := first, 0
	switch {
	case !valid[0] && !valid[1]:
		return header{}, 0, corruptf("neither of its two headers has a signature and a matching checksum")
	case !valid[0], valid[1] && second.sequence > first.sequence:
		current, slot = second, 1
	case valid[1] && first.sequence == second.sequence && !bytes.Equal(raw[0][:], raw[1][:]):
		return header{}, 0, corruptf("its two headers differ but both have sequence number %d", first.sequence)
	}
	return current, slot, current.check()
}

func (h header) check() error {
	switch {
	case h.version != 1:
		return unsupportedf("it has format version %d; only version 1 is known", h.version)
	case h.logVersion != 0:
		return unsupportedf("its log has version %d; only version 0 is known", h.logVersion)
	case h.logLength%alignment != 0:
		return corruptf("its log is %d bytes long, which is no multiple of 1 MiB", h.logLength)
	case h.logLength == 0 && h.logID != uuid.Nil:
		return corruptf("it refers to a log of length zero")
	case h.logLength > 0 && (h.logOffset < uint64(headerAreaSize) || h.logOffset%uint64(alignment) != 0):
		return corruptf("its log starts at byte %d, which is no multiple of 1 MiB behind the headers", h.logOffset)
	}
	return nil
}
