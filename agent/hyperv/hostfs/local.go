package hostfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	pathpkg "path"
	"path/filepath"
	"slices"
	"strings"
)

// Local reaches the files of a host through local folders, as a Mapping says. Bytes are read and written by this process itself, so its
// I/O counters tell what was really moved.
type Local struct {
	mapping Mapping
	root    *os.Root
	usage   *usage
}

var _ FS = (*Local)(nil)

// NewLocal opens the folder of the mapping. Close it when it is no longer used.
func NewLocal(m Mapping) (*Local, error) {
	root, err := os.OpenRoot(m.Root)
	if err != nil {
		return nil, fmt.Errorf("open the host's volumes: %w", err)
	}
	return &Local{mapping: m, root: root, usage: newUsage(root)}, nil
}

// Close releases the folder. Open files stay open.
func (l *Local) Close() error { return l.root.Close() }

// Mapping is what NewLocal was given.
func (l *Local) Mapping() Mapping { return l.mapping }

// LocalPath returns where the file of a Windows path lies. It says nothing about symlinks; opening does.
func (l *Local) LocalPath(path string) (string, error) {
	name, _, err := l.mapping.Resolve(path)
	if err != nil {
		return "", err
	}
	return filepath.Join(l.mapping.Root, filepath.FromSlash(name)), nil
}

// Open implements FS.
func (l *Local) Open(ctx context.Context, path string) (File, error) {
	return l.open(ctx, path, os.O_RDONLY)
}

// OpenWrite implements FS.
func (l *Local) OpenWrite(ctx context.Context, path string) (File, error) {
	return l.open(ctx, path, os.O_RDWR)
}

// Create implements FS.
func (l *Local) Create(ctx context.Context, path string) (File, error) {
	name, volume, err := l.mapping.Resolve(path)
	if err == nil && volume.shadow {
		err = wrap("create", path, fs.ErrPermission)
	}
	if err != nil {
		return nil, err
	}
	if err := l.makeFolders(name); err != nil {
		return nil, wrap("create the folder of", path, err)
	}
	return l.open(ctx, path, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (l *Local) open(ctx context.Context, path string, flags int) (File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, volume, err := l.mapping.Resolve(path)
	if err != nil {
		return nil, err
	}
	if volume.shadow && flags != os.O_RDONLY {
		return nil, wrap("open", path, fs.ErrPermission)
	}
	f, err := l.root.OpenFile(filepath.FromSlash(name), flags, 0o644)
	if err != nil {
		return nil, wrap("open", path, err)
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("it is a folder: %w", fs.ErrInvalid)
	}
	if err != nil {
		return nil, errors.Join(wrap("open", path, err), f.Close())
	}
	return &localFile{File: f, path: path, volume: volume, usage: l.usage, created: flags&os.O_CREATE != 0}, nil
}

// makeFolders creates the folders above a file and makes their names durable.
func (l *Local) makeFolders(name string) error {
	parent := pathpkg.Dir(name)
	if _, err := l.root.Stat(filepath.FromSlash(parent)); err == nil {
		return nil
	}
	if parent != "." {
		if err := l.makeFolders(parent); err != nil {
			return err
		}
	}
	if err := l.root.Mkdir(filepath.FromSlash(parent), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncFolder(l.root, pathpkg.Dir(parent))
}

// Rename implements FS.
func (l *Local) Rename(ctx context.Context, from, to string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	source, sourceVolume, err := l.mapping.Resolve(from)
	if err != nil {
		return err
	}
	target, targetVolume, err := l.mapping.Resolve(to)
	if err != nil {
		return err
	}
	if sourceVolume.shadow || targetVolume.shadow {
		return wrap("rename to "+to, from, fs.ErrPermission)
	}
	if !strings.EqualFold(sourceVolume.Prefix[:2], targetVolume.Prefix[:2]) {
		return fmt.Errorf("%w: %s and %s lie on different volumes", ErrPath, from, to)
	}
	if err := l.makeFolders(target); err != nil {
		return wrap("create the folder of", to, err)
	}
	if err := renameNew(l.root, source, target); err != nil {
		return wrap("rename to "+to, from, err)
	}
	return errors.Join(syncFolder(l.root, pathpkg.Dir(source)), syncFolder(l.root, pathpkg.Dir(target)))
}

// renameNew refuses a target that exists, which rename(2) would replace. Windows refuses it too.
func renameNew(root *os.Root, source, target string) error {
	if _, err := root.Lstat(filepath.FromSlash(target)); err == nil {
		return fs.ErrExist
	}
	return root.Rename(filepath.FromSlash(source), filepath.FromSlash(target))
}

// Remove implements FS.
func (l *Local) Remove(ctx context.Context, path string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name, volume, err := l.mapping.Resolve(path)
	if err != nil {
		return err
	}
	if volume.shadow {
		return wrap("remove", path, fs.ErrPermission)
	}
	if err := l.root.Remove(filepath.FromSlash(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return wrap("remove", path, err)
	}
	return nil
}

// ReadDir implements FS.
func (l *Local) ReadDir(ctx context.Context, path string) ([]fs.FileInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, _, err := l.mapping.Resolve(path)
	if err != nil {
		return nil, err
	}
	folder, err := l.root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, wrap("list", path, err)
	}
	defer func() { _ = folder.Close() }() // read only
	infos, err := folder.Readdir(-1)
	if err != nil {
		return nil, wrap("list", path, err)
	}
	slices.SortFunc(infos, func(a, b fs.FileInfo) int { return strings.Compare(a.Name(), b.Name()) })
	return infos, nil
}

// Stat implements FS.
func (l *Local) Stat(ctx context.Context, path string) (fs.FileInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, _, err := l.mapping.Resolve(path)
	if err != nil {
		return nil, err
	}
	info, err := l.root.Stat(filepath.FromSlash(name))
	if err != nil {
		return nil, wrap("stat", path, err)
	}
	return info, nil
}

// Space implements FS.
func (l *Local) Space(ctx context.Context, path string) (Space, error) {
	if err := ctx.Err(); err != nil {
		return Space{}, err
	}
	_, volume, err := l.mapping.Resolve(path)
	if err != nil {
		return Space{}, err
	}
	out := Space{Volume: l.mapping.VolumeOf(path)}
	if out.Free, out.Total, err = diskSpace(l.mapping.Root); err != nil {
		return Space{}, wrap("ask for the space of", path, err)
	}
	if volume.SizeBytes == 0 {
		return out, nil
	}
	used, err := l.usage.of(volume)
	if err != nil {
		return Space{}, wrap("ask for the space of", path, err)
	}
	out.Free, out.Total = min(out.Free, max(0, volume.SizeBytes-used)), volume.SizeBytes
	return out, nil
}

// wrap names the operation and the Windows path, and turns the system's word for a full volume into ours. The local path stays out of it.
func wrap(operation, path string, err error) error {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		err = perr.Err
	}
	if isFull(err) {
		err = ErrFull
	}
	return fmt.Errorf("%s %s: %w", operation, path, err)
}
