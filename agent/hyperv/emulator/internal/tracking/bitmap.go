// Package tracking keeps which parts of a disk were written, in files that survive the process at any moment.
package tracking

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
)

// Granularity is the bytes of the disk that one bit stands for.
const Granularity = 64 << 10

const (
	pageSize = 4 << 10             // of the bitmap
	pageBits = int64(pageSize) * 8 // 2 GiB of the disk
)

// ErrLost says that a bitmap is not there, or not the one of this disk.
var ErrLost = errors.New("the change tracking file is lost")

// Bitmap is the writes of one epoch: of the time between two seals. It is safe for concurrent use.
type Bitmap struct {
	file *os.File
	size int64 // of the disk

	mu    sync.Mutex
	pages map[int64]*[pageSize]byte // those that were looked at, as the file has them
}

func fileLength(diskSize int64) int64 { return (diskSize + 8*Granularity - 1) / (8 * Granularity) }

// Create makes the empty bitmap of a disk of diskSize bytes. A file of that name, left by an operation that was not committed, is replaced.
func Create(path string, diskSize int64) (*Bitmap, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("create change tracking file: %w", err)
	}
	if err := errors.Join(f.Truncate(fileLength(diskSize)), f.Sync()); err != nil {
		return nil, errors.Join(fmt.Errorf("create change tracking file: %w", err), f.Close())
	}
	return &Bitmap{file: f, size: diskSize, pages: make(map[int64]*[pageSize]byte)}, nil
}

// Open opens the bitmap of a disk of diskSize bytes. ErrLost when it is missing or has another length.
func Open(path string, diskSize int64) (*Bitmap, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s is missing", ErrLost, path)
	}
	if err != nil {
		return nil, fmt.Errorf("open change tracking file: %w", err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() != fileLength(diskSize) {
		err = fmt.Errorf("%w: %s has %d bytes, not %d", ErrLost, path, info.Size(), fileLength(diskSize))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Bitmap{file: f, size: diskSize, pages: make(map[int64]*[pageSize]byte)}, nil
}

// Mark notes that a range is about to be written. When it returns, the note survives the process: call it before the write.
func (b *Bitmap) Mark(offset, length int64) error {
	if length <= 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	first, last := offset/Granularity, (offset+length-1)/Granularity
	for bit := first; bit <= last; {
		end := min(last, bit/pageBits*pageBits+pageBits-1)
		if err := b.markPage(bit/pageBits, bit%pageBits, end%pageBits); err != nil {
			return fmt.Errorf("track a write: %w", err)
		}
		bit = end + 1
	}
	return nil
}

// markPage sets the bits [first, last] of a page, and stores only the bytes that change.
func (b *Bitmap) markPage(number, first, last int64) error {
	page, err := b.page(number)
	if err != nil {
		return err
	}
	from, to := int64(-1), int64(-1)
	next := *page
	for bit := first; bit <= last; bit++ {
		if next[bit/8]&(1<<(bit%8)) == 0 {
			next[bit/8] |= 1 << (bit % 8)
			if from < 0 {
				from = bit / 8
			}
			to = bit/8 + 1
		}
	}
	if from < 0 {
		return nil
	}
	if _, err := b.file.WriteAt(next[from:to], number*pageSize+from); err != nil {
		return err
	}
	*page = next
	return nil
}

func (b *Bitmap) page(number int64) (*[pageSize]byte, error) {
	if p, ok := b.pages[number]; ok {
		return p, nil
	}
	p := new([pageSize]byte)
	if _, err := b.file.ReadAt(p[:], number*pageSize); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	b.pages[number] = p
	return p, nil
}

// Sync makes the notes survive a loss of power.
func (b *Bitmap) Sync() error { return b.file.Sync() }

// Close closes the file.
func (b *Bitmap) Close() error { return b.file.Close() }
