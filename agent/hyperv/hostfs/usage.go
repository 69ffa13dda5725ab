package hostfs

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"
)

// usageAge is how long a measured usage is believed. Until then, writes are counted as if each of them took new space.
const usageAge = time.Second

// usage keeps account of volumes that were declared smaller than the file system below them.
type usage struct {
	root     *os.Root
	mu       sync.Mutex
	measured map[string]measurement // by Volume.Folder
}

type measurement struct {
	bytes int64
	at    time.Time
}

func newUsage(root *os.Root) *usage {
	return &usage{root: root, measured: make(map[string]measurement)}
}

// of returns the bytes that the files of a volume take.
func (u *usage) of(v Volume) (int64, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	m, err := u.measure(v, 0)
	return m.bytes, err
}

// reserve accounts for n bytes that are about to be written, or says ErrFull.
func (u *usage) reserve(v Volume, n int64) error {
	if v.SizeBytes == 0 {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	m, err := u.measure(v, usageAge)
	if err != nil {
		return err
	}
	if m.bytes+n > v.SizeBytes {
		// The account may be too high by overwritten bytes: only a fresh look refuses.
		if m, err = u.measure(v, 0); err != nil {
			return err
		}
		if m.bytes+n > v.SizeBytes {
			return ErrFull
		}
	}
	m.bytes += n
	u.measured[v.Folder] = m
	return nil
}

func (u *usage) measure(v Volume, age time.Duration) (measurement, error) {
	if m, ok := u.measured[v.Folder]; ok && time.Since(m.at) < age {
		return m, nil
	}
	folder := v.Folder
	if folder == "" {
		folder = "."
	}
	m := measurement{at: time.Now()}
	err := fs.WalkDir(u.root.FS(), folder, func(_ string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		m.bytes += allocated(info)
		return nil
	})
	if err != nil {
		return measurement{}, err
	}
	u.measured[v.Folder] = m
	return m, nil
}
