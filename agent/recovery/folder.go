package recovery

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/gofrs/flock"

	"github.com/hyperkeep/hyperkeep/agent/image"
)

// Folder restores disks and configuration files of one image into a folder. A disk has another name until all of them are complete, and a restore that
// was killed is gone on with by the same call.
type Folder struct {
	// Image is what is restored, Path the folder, which is made. Needed.
	Image *image.Image
	Path  string
	// Format of the files. Default: VHDX.
	Format Format
	// Disks selects disks by key or name. None means all of them.
	Disks []string
	// Configuration restores the configuration files too, into the folder "configuration".
	Configuration bool
	// Force replaces what is in the way.
	Force bool
	// Parallelism is how many pieces are fetched at once. Default: one per CPU.
	Parallelism int

	// Total and Written are bytes of disks, to be read at any time.
	Total, Written atomic.Int64
}

// Restored is one disk that was restored.
type Restored struct {
	Disk image.DiskRecord
	Path string
	// Resumed is how many bytes of the disk an earlier call had finished, holes included.
	Resumed int64
}

// What can be in the way of a restore into a folder.
var (
	// ErrTaken means that a file is there already.
	ErrTaken = errors.New("there is a file in the way")
	// ErrBusy means that another process restores into the folder.
	ErrBusy = errors.New("another restore is writing to the folder")
)

// ConfigurationFolder is where Folder puts configuration files.
const ConfigurationFolder = "configuration"

const lockFile = ".hyperkeep-restore.lock"

// Run restores. Errors are ErrTaken, ErrBusy, those of package image (ErrDamaged, ErrDiskNotFound), and those of the file system. What was restored
// so far stays, for a second call to go on with.
func (f *Folder) Run(ctx context.Context) (out []Restored, err error) {
	if f.Format == "" {
		f.Format = VHDX
	}
	if err := os.MkdirAll(f.Path, 0o700); err != nil {
		return nil, err
	}
	lock := flock.New(filepath.Join(f.Path, lockFile), flock.SetPermissions(0o600))
	if locked, err := lock.TryLock(); err != nil || !locked {
		return nil, errors.Join(err, fmt.Errorf("%w: %s", ErrBusy, f.Path))
	}
	defer func() {
		err = errors.Join(err, lock.Unlock())
		_ = os.Remove(lock.Path()) // another restore may have it already
	}()
	disks, err := f.plan(ctx)
	if err != nil {
		return nil, err
	}
	for _, disk := range disks {
		if err := disk.write(ctx, f); err != nil {
			return nil, err
		}
		out = append(out, Restored{Disk: disk.source.Record(), Path: disk.path, Resumed: disk.resumed})
	}
	if f.Configuration {
		if err := f.configuration(ctx); err != nil {
			return nil, err
		}
	}
	for _, disk := range disks {
		if err := disk.finish(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// plan opens the disks, and refuses before a byte is written what would fail later.
func (f *Folder) plan(ctx context.Context) ([]*unfinished, error) {
	records, err := Select(f.Image.Manifest().Disks, f.Disks)
	if err != nil {
		return nil, err
	}
	var disks []*unfinished
	for i, name := range DiskFiles(records, f.Format) {
		source, err := f.Image.Disk(ctx, records[i].Key)
		if err != nil {
			return nil, err
		}
		data, _, err := Needs(source, f.Format)
		if err != nil {
			return nil, err
		}
		f.Total.Add(data)
		disk := newUnfinished(filepath.Join(f.Path, name), source, f.Image.Manifest(), f.Format)
		if err := disk.look(f.Force); err != nil {
			return nil, err
		}
		disks = append(disks, disk)
	}
	if !f.Configuration {
		return disks, nil
	}
	for _, file := range f.Image.Manifest().Files {
		path := filepath.Join(f.Path, ConfigurationFolder, FileName(file.Name))
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) && !f.Force && !slices.ContainsFunc(disks, (*unfinished).begun) {
			return nil, errors.Join(err, fmt.Errorf("%w: %s", ErrTaken, path))
		}
	}
	return disks, nil
}

// Select picks the disks that are wanted, by key or name, in the image's order: all of them when none are named. ErrDiskNotFound of package image names
// the one that there is not.
func Select(all []image.DiskRecord, wanted []string) ([]image.DiskRecord, error) {
	if len(wanted) == 0 {
		return all, nil
	}
	is := func(d image.DiskRecord, name string) bool { return d.Key == name || strings.EqualFold(d.Name, name) }
	for _, name := range wanted {
		if !slices.ContainsFunc(all, func(d image.DiskRecord) bool { return is(d, name) }) {
			return nil, fmt.Errorf("%q: %w", name, image.ErrDiskNotFound)
		}
	}
	var out []image.DiskRecord
	for _, disk := range all {
		if slices.ContainsFunc(wanted, func(name string) bool { return is(disk, name) }) {
			out = append(out, disk)
		}
	}
	return out, nil
}

// configuration writes the configuration files.
func (f *Folder) configuration(ctx context.Context) error {
	folder := filepath.Join(f.Path, ConfigurationFolder)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	for _, file := range f.Image.Manifest().Files {
		if err := f.writeFile(ctx, file.Name, filepath.Join(folder, FileName(file.Name))); err != nil {
			return err
		}
	}
	return nil
}

func (f *Folder) writeFile(ctx context.Context, name, path string) (err error) {
	content, err := f.Image.File(ctx, name)
	if err != nil {
		return err
	}
	defer content.Close() //nolint:errcheck // read only
	out, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, content); err != nil {
		return err
	}
	return out.Sync()
}
