package storage

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/kopia/kopia/repo/blob"
	kopiafs "github.com/kopia/kopia/repo/blob/filesystem"
	"github.com/kopia/kopia/repo/blob/sharded"
	"github.com/kopia/kopia/repo/format"
)

// Modes of what is created, as kopia's own provider sets them.
const (
	fileMode fs.FileMode = 0o600
	dirMode  fs.FileMode = 0o700
)

// directory is a blob store in a directory with the layout of kopia's own, which stock kopia reads and writes. Kopia's provider never
// calls fsync, so a power cut after a backup can leave packs of zero length behind a snapshot that counts as taken. Here a blob is
// durable when PutBlob returns: the file is synced, renamed into place, and the directory is synced.
type directory struct {
	sharded.Storage
	blob.DefaultProviderImplementation
	volume blob.Volume
	path   string
}

func openFilesystem(ctx context.Context, l FilesystemLocation, mode Mode) (place, error) {
	root := filepath.Clean(l.Path)
	if !filepath.IsAbs(root) {
		return nil, newError("open directory", ErrNotUsable, "the path is not absolute")
	}
	if err := prepareRoot(root, mode); err != nil {
		return nil, err
	}
	// Kopia's provider serves for the one call that differs between operating systems.
	stock, err := kopiafs.New(ctx, &kopiafs.Options{Path: root}, false)
	if err != nil {
		return nil, err
	}
	return &directory{
		Storage: sharded.New(&files{root: root, create: createFile}, root, sharded.Options{}, mode == Creating),
		volume:  stock,
		path:    root,
	}, nil
}

// prepareRoot checks the directory. When creating, it makes the last element of the path and no more: a missing parent is usually
// a file system that is not mounted.
func prepareRoot(root string, mode Mode) error {
	if mode == Creating {
		if err := os.Mkdir(root, dirMode); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	info, err := os.Stat(root)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return newError("open directory", ErrNoRepository, "the directory does not exist")
	case err != nil:
		return err
	case !info.IsDir():
		return newError("open directory", ErrNotUsable, "it is not a directory")
	case mode == Creating:
		return syncDirectory(filepath.Dir(root))
	}
	// Asked here because kopia's layout code would write its parameters into any directory that it looks at.
	_, err = os.Stat(filepath.Join(root, format.KopiaRepositoryBlobID+sharded.CompleteBlobSuffix))
	if errors.Is(err, fs.ErrNotExist) {
		return newError("open directory", ErrNoRepository, "")
	}
	return err
}

// lockable says that nothing locks a file: whoever may write to the directory may remove what is in it.
func (d *directory) lockable(context.Context) error {
	return newError("look for a lock", ErrNoLock, "it is a directory")
}

// durableNames asks the file system whether it syncs directories. Windows has no such call, and syncName another way.
func (d *directory) durableNames() (bool, error) {
	if runtime.GOOS == "windows" {
		return true, nil
	}
	return syncNames(d.path)
}

func (d *directory) lockedUntil(context.Context, blob.ID) (time.Time, error) { return time.Time{}, nil }

// GetCapacity tells the size and the free space of the volume.
func (d *directory) GetCapacity(ctx context.Context) (blob.Capacity, error) {
	return d.volume.GetCapacity(ctx)
}

// ConnectionInfo is what stock kopia needs to open the same directory.
func (d *directory) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: "filesystem", Config: &kopiafs.Options{Path: d.path}}
}

// DisplayName names the directory for people.
func (d *directory) DisplayName() string { return "directory " + d.path }

// file is what is written of an open file. Tests put failing ones in its place.
type file interface {
	io.Writer
	Sync() error
	Close() error
}

func createFile(name string) (file, error) {
	return os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fileMode)
}

// files does the work below kopia's layout.
type files struct {
	root   string
	create func(name string) (file, error)
}

// GetBlobFromPath reads length bytes at offset, the whole file when length is negative.
func (f *files) GetBlobFromPath(_ context.Context, _, path string, offset, length int64, out blob.OutputBuffer) error {
	out.Reset()
	in, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return blob.ErrBlobNotFound
	}
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	var part io.Reader = in
	if length >= 0 {
		part = io.NewSectionReader(in, offset, length)
	}
	if _, err := io.Copy(out, part); err != nil {
		return err
	}
	return blob.EnsureLengthExactly(out.Length(), length)
}

// GetMetadataFromPath tells the length and the time of a file.
func (f *files) GetMetadataFromPath(_ context.Context, _, path string) (blob.Metadata, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return blob.Metadata{}, blob.ErrBlobNotFound
	}
	if err != nil {
		return blob.Metadata{}, err
	}
	return blob.Metadata{Length: info.Size(), Timestamp: info.ModTime()}, nil
}

// PutBlobInPath stores a file so that it is either there whole, whatever happens, or not at all.
func (f *files) PutBlobInPath(_ context.Context, dir, path string, data blob.Bytes, opts blob.PutOptions) error {
	if opts.HasRetentionOptions() {
		return fmt.Errorf("lock a file: %w", blob.ErrUnsupportedPutBlobOption)
	}
	if err := f.makeDirectory(dir); err != nil {
		return err
	}
	temporary := path + ".tmp." + randomSuffix()
	if err := f.write(temporary, data); err != nil {
		os.Remove(temporary) //nolint:errcheck // the error that counts is returned
		return err
	}
	if !opts.SetModTime.IsZero() {
		if err := os.Chtimes(temporary, opts.SetModTime, opts.SetModTime); err != nil {
			os.Remove(temporary) //nolint:errcheck // as above
			return err
		}
	}
	name := os.Rename
	if opts.DoNotRecreate {
		name = nameOnce
	}
	if err := name(temporary, path); err != nil {
		os.Remove(temporary) //nolint:errcheck // as above
		return err
	}
	if err := syncName(path); err != nil {
		return err
	}
	return modTime(path, opts)
}

// nameOnce gives a finished file its name unless the name is taken. A link does both in one step, on the file server too. Where there are no
// links, nothing does.
func nameOnce(temporary, path string) error {
	err := os.Link(temporary, path)
	switch {
	case err == nil:
		return os.Remove(temporary)
	case errors.Is(err, fs.ErrExist):
		return blob.ErrBlobAlreadyExists
	case linkless(err):
		return fmt.Errorf("create a file by linking it: %w", blob.ErrUnsupportedPutBlobOption)
	}
	return err
}

func modTime(path string, opts blob.PutOptions) error {
	if opts.GetModTime == nil {
		return nil
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	*opts.GetModTime = info.ModTime()
	return nil
}

func (f *files) write(name string, data blob.Bytes) error {
	out, err := f.create(name)
	if err != nil {
		return err
	}
	if _, err := data.WriteTo(out); err != nil {
		out.Close() //nolint:errcheck // the error that counts is returned
		return err
	}
	if err := out.Sync(); err != nil {
		out.Close() //nolint:errcheck // as above
		return err
	}
	return out.Close()
}

// makeDirectory makes a directory below the root, durably. The root itself is never made: when it is gone, so is the mount.
func (f *files) makeDirectory(dir string) error {
	if dir == f.root {
		return nil
	}
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if err := f.makeDirectory(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, dirMode); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		return err
	}
	return syncDirectory(parent)
}

// DeleteBlobInPath removes a file. A missing one is success.
func (f *files) DeleteBlobInPath(_ context.Context, _, path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// ReadDir lists a directory, without files that vanished meanwhile.
func (f *files) ReadDir(_ context.Context, dir string) ([]os.FileInfo, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	infos := make([]os.FileInfo, 0, len(entries))
	for _, e := range entries {
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		infos = append(infos, info)
	}
	return infos, nil
}

func randomSuffix() string {
	var b [8]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// syncName makes the new name of a file durable. On Windows, which cannot sync a directory, flushing the renamed file flushes the journal of the volume,
// or of the server that holds it, up to the rename (FlushFileBuffers).
func syncName(path string) error {
	if runtime.GOOS != "windows" {
		return syncDirectory(filepath.Dir(path))
	}
	f, err := os.OpenFile(path, os.O_RDWR, fileMode)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncDirectory makes the names in a directory durable, where that can be done. Elsewhere the file server journals them itself.
func syncDirectory(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	_, err := syncNames(dir)
	return err
}

// syncNames syncs a directory and says whether that can be done: some network file systems answer EINVAL or ENOTSUP.
func syncNames(dir string) (bool, error) {
	d, err := os.Open(dir)
	if err != nil {
		return false, err
	}
	err = d.Sync()
	refused := errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP)
	if refused {
		err = nil
	}
	return !refused, errors.Join(err, d.Close())
}
