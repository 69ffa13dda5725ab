package hostfs

import (
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
)

// localFile is an open file of a Local.
type localFile struct {
	*os.File
	path    string
	volume  Volume
	usage   *usage
	created bool
	synced  atomic.Bool
}

// WriteAt implements File.
func (f *localFile) WriteAt(p []byte, offset int64) (int, error) {
	if err := f.usage.reserve(f.volume, int64(len(p))); err != nil {
		return 0, wrap("write to", f.path, err)
	}
	n, err := f.File.WriteAt(p, offset)
	if err != nil {
		return n, wrap("write to", f.path, err)
	}
	return n, nil
}

// Size implements File.
func (f *localFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, wrap("stat", f.path, err)
	}
	return info.Size(), nil
}

// Truncate implements File.
func (f *localFile) Truncate(size int64) error {
	if err := f.File.Truncate(size); err != nil {
		return wrap("resize", f.path, err)
	}
	return nil
}

// Sync implements File. The first one of a new file also makes its name durable.
func (f *localFile) Sync() error {
	if err := f.File.Sync(); err != nil {
		return wrap("sync", f.path, err)
	}
	if !f.created || f.synced.Load() {
		return nil
	}
	if err := syncDir(filepath.Dir(f.Name())); err != nil {
		return wrap("sync the folder of", f.path, err)
	}
	f.synced.Store(true)
	return nil
}

// syncFolder makes the names in a folder below root durable.
func syncFolder(root *os.Root, name string) error {
	folder, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return err
	}
	return errors.Join(fsyncFolder(folder), folder.Close())
}

func syncDir(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(fsyncFolder(folder), folder.Close())
}

// fsyncFolder ignores file systems, and Windows, that cannot sync a folder.
func fsyncFolder(folder *os.File) error {
	if err := folder.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, os.ErrPermission) {
		return err
	}
	return nil
}
