package hostfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/windows"
)

// Native is the file systems of this machine. It holds nothing, and is safe for concurrent use. With EnablePrivileges access lists do not bind it.
//
// New files are not marked sparse: Hyper-V opens no virtual disk that is (ERROR_VIRTUAL_DISK_LIMITATION). NTFS and ReFS do not write what lies between
// the end of a file's data and its end, so a dynamic disk costs what is in it all the same.
type Native struct{}

var _ FS = Native{}

const (
	// sharingPatience is how long a file is asked for that a virus scanner, as a rule, holds for a moment.
	sharingPatience = 3 * time.Second
	sharingPause    = 50 * time.Millisecond

	shareAll = windows.FILE_SHARE_READ | windows.FILE_SHARE_WRITE | windows.FILE_SHARE_DELETE
)

// nativePath checks a path, and writes it in the form that Windows takes at any length and changes nothing of.
func nativePath(path string) (string, error) {
	if below, isShadow := strings.CutPrefix(path, ShadowDevice); isShadow {
		number, rest, _ := strings.Cut(below, `\`)
		_, err := strconv.ParseUint(number, 10, 31)
		segments, pathErr := split(`S:\` + rest)
		if err := errors.Join(err, pathErr); err != nil {
			return "", fmt.Errorf("%w: %q is no path of a shadow copy", ErrPath, path)
		}
		return ShadowDevice + number + `\` + strings.Join(segments[1:], `\`), nil
	}
	segments, err := split(path)
	if err != nil {
		return "", err
	}
	if len(segments) == 1 {
		return `\\?\` + segments[0] + `\`, nil
	}
	return `\\?\` + strings.Join(segments, `\`), nil
}

// Open implements FS.
func (Native) Open(ctx context.Context, path string) (File, error) {
	return open(ctx, path, windows.GENERIC_READ, windows.OPEN_EXISTING)
}

// OpenWrite implements FS.
func (Native) OpenWrite(ctx context.Context, path string) (File, error) {
	return open(ctx, path, windows.GENERIC_READ|windows.GENERIC_WRITE, windows.OPEN_EXISTING)
}

// Create implements FS.
func (Native) Create(ctx context.Context, path string) (File, error) {
	if err := makeParent(path); err != nil {
		return nil, err
	}
	return open(ctx, path, windows.GENERIC_READ|windows.GENERIC_WRITE, windows.CREATE_NEW)
}

// open opens a file for overlapped use, so that reads and writes of one file run side by side. With backup semantics the privileges of EnablePrivileges count;
// but folders can be opened, too.
func open(ctx context.Context, path string, access, disposition uint32) (File, error) {
	name, err := nativePath(path)
	if err != nil {
		return nil, err
	}
	wide, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %q", ErrPath, path)
	}
	var handle windows.Handle
	err = patiently(ctx, func() (err error) {
		const flags = windows.FILE_ATTRIBUTE_NORMAL | windows.FILE_FLAG_OVERLAPPED | windows.FILE_FLAG_BACKUP_SEMANTICS
		handle, err = windows.CreateFile(wide, access, shareAll, nil, disposition, flags, 0)
		return err
	})
	if err != nil {
		return nil, wrap("open", path, err)
	}
	if err := checkFile(handle); err != nil {
		return nil, errors.Join(wrap("open", path, err), windows.CloseHandle(handle))
	}
	return &nativeFile{File: os.NewFile(uintptr(handle), name), path: path}, nil
}

// checkFile refuses a folder.
func checkFile(handle windows.Handle) error {
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(handle, &info); err != nil {
		return err
	}
	if info.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0 {
		return fmt.Errorf("it is a folder: %w", fs.ErrInvalid)
	}
	return nil
}

// patiently repeats what another program's use of the file forbids.
func patiently(ctx context.Context, attempt func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	patience, cancel := context.WithTimeout(ctx, sharingPatience)
	defer cancel()
	ticker := time.NewTicker(sharingPause)
	defer ticker.Stop()
	for {
		err := attempt()
		if !errors.Is(err, windows.ERROR_SHARING_VIOLATION) {
			return err
		}
		select {
		case <-patience.Done():
			return errors.Join(err, ctx.Err())
		case <-ticker.C:
		}
	}
}

// makeParent creates the folders above a path.
func makeParent(path string) error {
	name, err := nativePath(path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(name[:strings.LastIndexByte(name, '\\')+1], 0o755); err != nil {
		return wrap("create the folder of", path, err)
	}
	return nil
}

// Rename implements FS. The move is on the disk when it returns.
func (Native) Rename(ctx context.Context, from, to string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	source, err := nativePath(from)
	if err != nil {
		return err
	}
	target, err := nativePath(to)
	if err != nil {
		return err
	}
	if !strings.EqualFold(from[:2], to[:2]) {
		return fmt.Errorf("%w: %s and %s lie on different volumes", ErrPath, from, to)
	}
	if err := makeParent(to); err != nil {
		return err
	}
	wideSource, err := windows.UTF16PtrFromString(source)
	if err != nil {
		return fmt.Errorf("%w: %q", ErrPath, from)
	}
	wideTarget, err := windows.UTF16PtrFromString(target)
	if err != nil {
		return fmt.Errorf("%w: %q", ErrPath, to)
	}
	err = patiently(ctx, func() error { return windows.MoveFileEx(wideSource, wideTarget, windows.MOVEFILE_WRITE_THROUGH) })
	if err != nil {
		return wrap("rename to "+to, from, err)
	}
	return nil
}

// Remove implements FS.
func (Native) Remove(ctx context.Context, path string) error {
	name, err := nativePath(path)
	if err != nil {
		return err
	}
	err = patiently(ctx, func() error { return os.Remove(name) })
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return wrap("remove", path, err)
	}
	return nil
}

// ReadDir implements FS.
func (Native) ReadDir(ctx context.Context, path string) ([]fs.FileInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, err := nativePath(path)
	if err != nil {
		return nil, err
	}
	folder, err := os.Open(name)
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
func (Native) Stat(ctx context.Context, path string) (fs.FileInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	name, err := nativePath(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(name)
	if err != nil {
		return nil, wrap("stat", path, err)
	}
	return info, nil
}

// Space implements FS. The nearest folder that exists is asked: another volume may be mounted at any folder.
func (Native) Space(ctx context.Context, path string) (Space, error) {
	if err := ctx.Err(); err != nil {
		return Space{}, err
	}
	segments, err := split(path)
	if err != nil {
		return Space{}, err
	}
	for {
		folder := strings.Join(segments, `\`)
		name, err := nativePath(folder)
		if err != nil {
			return Space{}, err
		}
		var out Space
		if out.Free, out.Total, err = diskSpace(name); err == nil {
			out.Volume, err = NativeVolume(folder)
			return out, err
		}
		if len(segments) == 1 {
			return Space{}, wrap("ask for the space of", path, err)
		}
		segments = segments[:len(segments)-1]
	}
}

// nativeFile is an open file of a Native.
type nativeFile struct {
	*os.File
	path string
}

// WriteAt implements File.
func (f *nativeFile) WriteAt(p []byte, offset int64) (int, error) {
	n, err := f.File.WriteAt(p, offset)
	if err != nil {
		return n, wrap("write to", f.path, err)
	}
	return n, nil
}

// Size implements File.
func (f *nativeFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, wrap("stat", f.path, err)
	}
	return info.Size(), nil
}

// Truncate implements File.
func (f *nativeFile) Truncate(size int64) error {
	if err := f.File.Truncate(size); err != nil {
		return wrap("resize", f.path, err)
	}
	return nil
}

// Sync implements File, by FlushFileBuffers. It also writes the metadata of the volume that the file's name depends on.
func (f *nativeFile) Sync() error {
	if err := f.File.Sync(); err != nil {
		return wrap("sync", f.path, err)
	}
	return nil
}
