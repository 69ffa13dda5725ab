// Package hostfs is the seam to the files of a Hyper-V host. Paths are Windows paths (`D:\VMs\crm\system.vhdx`); how they reach a file is the
// implementation's business: as they are on Windows, through the emulated host's folder elsewhere.
package hostfs

import (
	"context"
	"errors"
	"io"
	"io/fs"
)

// FS is the file systems of one host. Errors satisfy errors.Is with fs.ErrNotExist, fs.ErrExist and fs.ErrPermission, ErrFull and ErrPath.
type FS interface {
	// Open opens a file for reading, while others may read, write and delete it.
	Open(ctx context.Context, path string) (File, error)
	// OpenWrite opens an existing file for reading and writing.
	OpenWrite(ctx context.Context, path string) (File, error)
	// Create makes a new file, open for writing, and its folders. fs.ErrExist when the path is taken.
	Create(ctx context.Context, path string) (File, error)
	// Rename moves a file or folder within a volume. fs.ErrExist when the target is taken.
	Rename(ctx context.Context, from, to string) error
	// Remove deletes a file or an empty folder. What is gone already is no error.
	Remove(ctx context.Context, path string) error
	// ReadDir lists a folder in order of names.
	ReadDir(ctx context.Context, path string) ([]fs.FileInfo, error)
	// Stat describes a file or folder.
	Stat(ctx context.Context, path string) (fs.FileInfo, error)
	// Space tells which volume holds path, which need not exist yet, and what room that has.
	Space(ctx context.Context, path string) (Space, error)
}

// File is an open file of the host. ReadAt and WriteAt are safe for concurrent use. Writing returns ErrFull when the volume is full.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Size is the length in bytes.
	Size() (int64, error)
	Truncate(size int64) error
	// Sync makes what was written, and a new file's name, survive a loss of power.
	Sync() error
}

var (
	// ErrFull means that the volume has no space left.
	ErrFull = errors.New("the volume is full")
	// ErrPath means that a path is not one that this host can hold: relative, a UNC path, an unknown volume, or one that leaves its root.
	ErrPath = errors.New("unusable path")
)
