package vhdx

import (
	"fmt"
	"sync"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// Writer is read-write access to one member of a chain; its parents are only read. It is safe for concurrent use. No one else may write the
// file meanwhile.
//
// Writes are acknowledged when the storage took them: they survive the process, and after Sync a loss of power.
type Writer struct {
	storage Storage
	file    *File

	// mu is held for reading by writes to space that is allocated already, and for writing by everything that changes tables. Reads of
	// the disk need neither: blocks never move, and a table entry is read as a whole.
	mu     sync.RWMutex
	chain  *Disk
	marked bool  // the file has a DataWriteGuid of this session
	next   int64 // where the next block goes
	end    int64 // the file is zero from next to here
	reuse  bool  // usage.exclusive
}

// OpenWriter opens a file of size bytes for writing. parents is the chain below a differencing file, and nil for others.
// A log is replayed into the file first, and the file gets a new FileWriteGuid; a second call after a crash does the same again. Errors wrap
// ErrCorrupt, ErrUnsupported or ErrParentMismatch, or are those of the storage.
func OpenWriter(s Storage, size int64, parents *Disk) (*Writer, error) {
	size, err := recoverLog(s, size)
	if err != nil {
		return nil, err
	}
	f, err := Open(s, size)
	if err != nil {
		return nil, err
	}
	chain, err := chainOf(f, parents)
	if err != nil {
		return nil, err
	}
	w := &Writer{storage: s, file: f, chain: chain, next: f.scanned.end, end: f.scanned.end, reuse: f.scanned.exclusive}
	h := *f.head.Load()
	h.fileWriteID = uuid.New()
	return w, w.setHeader(h)
}

func chainOf(f *File, parents *Disk) (*Disk, error) {
	members := []*File{f}
	if parents != nil {
		members = append(members, parents.members...)
	}
	return NewDisk(members...)
}

// File is the member that is written. It shows every change at once; as a member of another Disk it lets a child be read while
// this file is written, which is how a merge of a disk in use works.
func (w *Writer) File() *File { return w.file }

// Size is the size in bytes of the disk that the guest sees.
func (w *Writer) Size() int64 { return w.file.VirtualSize() }

// Disk is the chain with this file on top.
func (w *Writer) Disk() *Disk {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.chain
}

// SetParents replaces the chain below the file with one that holds the same bytes, such as one whose first member is Writer.File of
// the parent. The chain is verified as in NewDisk.
func (w *Writer) SetParents(parents *Disk) error {
	chain, err := chainOf(w.file, parents)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.chain = chain
	return nil
}

// ReadAt reads the guest's bytes, as Disk.ReadAt does.
func (w *Writer) ReadAt(p []byte, off int64) (int, error) { return w.Disk().ReadAt(p, off) }

// Present streams what this member itself holds, as File.Present does.
func (w *Writer) Present(window extent.Extent) extent.Seq { return w.file.Present(window) }

// WriteAt writes the guest's bytes. Offset and length may be any; writes of whole logical sectors are cheaper. Nothing outside of
// the disk is written: such a write is refused with ErrOutOfRange. Concurrent writes to one sector leave it in the state of either of them.
func (w *Writer) WriteAt(p []byte, off int64) (int, error) {
	if err := w.begin(off, int64(len(p))); err != nil {
		return 0, err
	}
	return w.write(p, off)
}

// Zero makes a range read as zeros, whatever the parents hold. Blocks that lie in it as a whole need no space for that.
func (w *Writer) Zero(off, length int64) error {
	if err := w.begin(off, length); err != nil {
		return err
	}
	return w.clear(extent.Extent{Offset: off, Length: length}, stateZero)
}

// Trim does the same for a range whose content the guest no longer needs. Other programs that read the file may show
// old data there, as the format allows; this package shows zeros.
func (w *Writer) Trim(off, length int64) error {
	if err := w.begin(off, length); err != nil {
		return err
	}
	return w.clear(extent.Extent{Offset: off, Length: length}, stateUnmapped)
}

// Sync returns when everything that was acknowledged before is durable.
func (w *Writer) Sync() error { return w.storage.Sync() }

// Close gives back the space that was held in reserve and syncs. The storage stays open. The Writer must not be used afterwards; a Writer that is
// dropped without Close leaves a valid file.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.end > w.next {
		if err := w.storage.Truncate(w.next); err != nil {
			return fmt.Errorf("close virtual disk: %w", err)
		}
		w.end = w.next
		w.file.size.Store(w.next)
	}
	return w.storage.Sync()
}

// begin checks a range and gives the file a new DataWriteGuid before the first change of the guest's data, so that children that were made
// before no longer accept it as their parent.
func (w *Writer) begin(off, length int64) error {
	if off < 0 || length < 0 || length > w.Size()-off {
		return fmt.Errorf("%w: %d bytes at byte %d of a disk of %d bytes", ErrOutOfRange, length, off, w.Size())
	}
	w.mu.RLock()
	marked := w.marked
	w.mu.RUnlock()
	if marked {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.marked {
		return nil
	}
	h := *w.file.head.Load()
	h.dataWriteID = uuid.New()
	if err := w.setHeader(h); err != nil {
		return err
	}
	w.marked = true
	return nil
}

// setHeader makes h the current header. Its slot stays the same, because both copies are written.
func (w *Writer) setHeader(h header) error {
	h, err := updateHeader(w.storage, h, w.file.slot)
	if err != nil {
		return err
	}
	w.file.head.Store(&h)
	return nil
}
