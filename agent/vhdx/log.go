package vhdx

import (
	"hash/crc32"
	"io"

	"github.com/google/uuid"
)

const (
	logSector         = 4 * kib
	logEntryHeader    = 64
	logDescriptorSize = 32

	// maxDirtyLog bounds the work of a replay. Hyper-V and qemu make logs of 1 MiB.
	maxDirtyLog = 64 * mib

	// maxLogZeros bounds the memory of a replay: a descriptor that zeroes a range needs no data sector in the log.
	maxLogZeros = 8192
)

// logEntry is a valid entry of the log ([MS-VHDX] 2.3.1.1). Offsets are relative to the log.
type logEntry struct {
	offset      int64
	length      int64
	tail        int64
	sequence    uint64
	descriptors int64
	flushed     uint64 // the file had at least this size when the entry was written
	last        uint64 // the file needs at least this size after replay
}

// logDescriptor is one change in an entry: a sector of data, or a range of zeros.
type logDescriptor struct {
	zero       bool
	fileOffset uint64
	length     uint64
	data       int64 // place of the data sector, relative to the log
	leading    [8]byte
	trailing   [4]byte
}

// logReader finds what must be replayed. The log is a ring of sectors; nothing in it is trusted before its checksum matches.
type logReader struct {
	r      io.ReaderAt
	offset int64
	length int64
	id     uuid.UUID
	seen   map[int64]*logEntry // entries that were looked at, nil when invalid
	budget int64               // bytes that may still be hashed: overlapping entries of a hostile log must not cost more than an honest one
}

func newLogReader(r io.ReaderAt, h header) *logReader {
	return &logReader{
		r: r, offset: int64(h.logOffset), length: h.logLength, id: h.logID,
		seen: make(map[int64]*logEntry), budget: 4 * h.logLength,
	}
}

// read fills p, one sector at most, from the place at in the ring. Sectors never straddle the end of the ring.
func (l *logReader) read(p []byte, at int64) error { return readFull(l.r, p, l.offset+at%l.length) }

// active returns the entries to replay, oldest first ([MS-VHDX] 2.3.3): of all runs of valid entries with ascending sequence numbers
// whose newest entry points back into the run, the one with the highest number.
func (l *logReader) active() ([]*logEntry, error) {
	var best []*logEntry
	for tail := int64(0); tail < l.length; {
		run, err := l.run(tail)
		if err != nil {
			return nil, err
		}
		live := sinceTail(run)
		if live == nil {
			tail += logSector
			continue
		}
		newest := run[len(run)-1]
		if best == nil || newest.sequence > best[len(best)-1].sequence {
			best = live
		}
		if next := newest.offset + newest.length; next > tail {
			tail = next
		} else {
			break // the run went around the ring
		}
	}
	if best == nil {
		return nil, corruptf("it was not closed properly and its log holds no complete sequence of entries")
	}
	return best, nil
}

// run follows valid entries with consecutive sequence numbers, at most once around the ring.
func (l *logReader) run(at int64) ([]*logEntry, error) {
	var run []*logEntry
	for total := int64(0); total < l.length; {
		e, err := l.entry((at + total) % l.length)
		if err != nil {
			return nil, err
		}
		if e == nil || len(run) > 0 && e.sequence != run[len(run)-1].sequence+1 || total+e.length > l.length {
			break
		}
		run = append(run, e)
		total += e.length
	}
	return run, nil
}

// sinceTail cuts a run at the entry that its newest one names as the oldest that matters. It is nil when that entry is not in the run.
func sinceTail(run []*logEntry) []*logEntry {
	for i, e := range run {
		if e.offset == run[len(run)-1].tail {
			return run[i:]
		}
	}
	return nil
}

// entry returns the entry at a place of the ring, or nil when there is no valid one.
func (l *logReader) entry(at int64) (*logEntry, error) {
	if e, ok := l.seen[at]; ok {
		return e, nil
	}
	e, err := l.decodeEntry(at)
	if err != nil {
		return nil, err
	}
	l.seen[at] = e
	return e, nil
}

func (l *logReader) decodeEntry(at int64) (*logEntry, error) {
	var b [logEntryHeader]byte
	if err := l.read(b[:], at); err != nil {
		return nil, err
	}
	if string(b[:4]) != "loge" {
		return nil, nil
	}
	e := &logEntry{
		offset:      at,
		length:      int64(le.Uint32(b[8:])),
		tail:        int64(le.Uint32(b[12:])),
		sequence:    le.Uint64(b[16:]),
		descriptors: int64(le.Uint32(b[24:])),
		flushed:     le.Uint64(b[48:]),
		last:        le.Uint64(b[56:]),
	}
	switch {
	case e.length < logSector, e.length > l.length, e.length%logSector != 0, e.tail%logSector != 0, e.tail >= l.length,
		e.sequence == 0, readGUID(b[32:]) != l.id, logEntryHeader+e.descriptors*logDescriptorSize > e.length:
		return nil, nil
	}
	if sum, err := l.checksum(e); err != nil || sum != le.Uint32(b[4:]) {
		return nil, err
	}
	whole := true
	err := l.descriptors(e, func(_ logDescriptor, ok bool) error {
		whole = whole && ok
		return nil
	})
	if err != nil || !whole {
		return nil, err
	}
	return e, nil
}

// checksum hashes an entry sector by sector, its checksum field counting as zero.
func (l *logReader) checksum(e *logEntry) (uint32, error) {
	if l.budget -= e.length; l.budget < 0 {
		return 0, corruptf("its log is made of entries that overlap")
	}
	var sector [logSector]byte
	crc := uint32(0)
	for at := int64(0); at < e.length; at += logSector {
		if err := l.read(sector[:], e.offset+at); err != nil {
			return 0, err
		}
		if at == 0 {
			clear(sector[4:8])
		}
		crc = crc32.Update(crc, castagnoli, sector[:])
	}
	return crc, nil
}

// descriptors calls each for every descriptor of an entry, with false when the descriptor or its data sector belongs to another entry.
func (l *logReader) descriptors(e *logEntry, each func(logDescriptor, bool) error) error {
	data := alignUp(logEntryHeader+e.descriptors*logDescriptorSize, logSector)
	var b [logDescriptorSize]byte
	for i := range e.descriptors {
		if err := l.read(b[:], e.offset+logEntryHeader+i*logDescriptorSize); err != nil {
			return err
		}
		d := logDescriptor{fileOffset: le.Uint64(b[16:])}
		ok := le.Uint64(b[24:]) == e.sequence
		switch string(b[:4]) {
		case "zero":
			d.zero, d.length = true, le.Uint64(b[8:])
		case "desc":
			d.length, d.data = uint64(logSector), (e.offset+data)%l.length
			copy(d.trailing[:], b[4:8])
			copy(d.leading[:], b[8:16])
			whole, err := l.dataSector(d.data, e.sequence)
			if err != nil {
				return err
			}
			ok = ok && whole && data+logSector <= e.length
			data += logSector
		default:
			ok = false
		}
		if err := each(d, ok); err != nil {
			return err
		}
		if !ok {
			return nil
		}
	}
	return nil
}

// dataSector says whether the sector at a place of the ring was written with the entry of a sequence number.
func (l *logReader) dataSector(at int64, sequence uint64) (bool, error) {
	var sector [logSector]byte
	if err := l.read(sector[:], at); err != nil {
		return false, err
	}
	high, low := uint64(le.Uint32(sector[4:])), uint64(le.Uint32(sector[logSector-4:]))
	return string(sector[:4]) == "data" && high<<32|low == sequence, nil
}
