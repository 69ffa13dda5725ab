package vhdx

import (
	"fmt"
	"io"

	"github.com/google/uuid"
)

// Storage is where a file that is written lies. An *os.File is one.
type Storage interface {
	io.ReaderAt
	io.WriterAt

	// Truncate changes the size. What is added reads as zeros.
	Truncate(size int64) error

	// Sync returns when everything that was written before is durable.
	Sync() error
}

// zeroPiece is written over ranges that become zero.
var zeroPiece [mib]byte

func writeZeros(s io.WriterAt, offset, length int64) error {
	for length > 0 {
		n := min(length, int64(len(zeroPiece)))
		if _, err := s.WriteAt(zeroPiece[:n], offset); err != nil {
			return err
		}
		offset, length = offset+n, length-n
	}
	return nil
}

// updateHeader makes a header the current one: the copy that is not current is written with the next sequence number and flushed, then the same for the
// other one, so that one whole header exists at any time ([MS-VHDX] 2.2.2.1).
func updateHeader(s Storage, h header, slot int) (header, error) {
	for _, offset := range []int64{headerOffsets[1-slot], headerOffsets[slot]} {
		h.sequence++
		if _, err := s.WriteAt(h.encode(), offset); err != nil {
			return h, fmt.Errorf("write header: %w", err)
		}
		if err := s.Sync(); err != nil {
			return h, fmt.Errorf("flush header: %w", err)
		}
	}
	return h, nil
}

// recoverLog brings a file into the state after its log, if it has one, and returns its size then. A crash in between is harmless: the log
// stays until everything from it is durable, and replaying it again changes nothing.
func recoverLog(s Storage, size int64) (int64, error) {
	f, err := Open(s, size)
	if err != nil || !f.HasDirtyLog() {
		return size, err
	}
	o := f.dirty
	if o.size > o.raw {
		if err := s.Truncate(o.size); err != nil {
			return 0, fmt.Errorf("replay log: %w", err)
		}
	}
	sector := make([]byte, logSector)
	for _, p := range o.patches {
		if p.zero {
			err = writeZeros(s, p.Offset, min(p.Length, max(0, o.raw-p.Offset)))
		} else if err = readFull(o, sector, p.Offset); err == nil {
			_, err = s.WriteAt(sector, p.Offset)
		}
		if err != nil {
			return 0, fmt.Errorf("replay log: %w", err)
		}
	}
	if err := s.Sync(); err != nil {
		return 0, fmt.Errorf("replay log: %w", err)
	}
	clean := *f.head.Load()
	clean.logID = uuid.Nil
	_, err = updateHeader(s, clean, f.slot)
	return o.size, err
}
