// Package filesystem makes, changes and checks file systems in raw disk files, with the file systems' own tools and without mounting anything.
package filesystem

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hyperkeep/hyperkeep/test/tool"
)

// Programs are what this package runs.
var Programs = []string{"mke2fs", "e2fsck", "debugfs", "mkntfs", "ntfscp", "ntfscat", "ntfsfix"}

// Kind is a kind of file system.
type Kind string

// Kinds of file systems.
const (
	Ext4 Kind = "ext4"
	NTFS Kind = "NTFS"
)

// Make makes a raw file of size bytes with a file system that holds the files of the folder content. NTFS takes no folders within it.
func Make(ctx context.Context, kind Kind, raw string, size int64, content string) error {
	if err := allocate(raw, size); err != nil {
		return err
	}
	if kind == Ext4 {
		_, err := tool.Run(ctx, "mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-d", content, raw)
		return err
	}
	// The geometry is what mkntfs would ask a real disk for.
	if _, err := tool.Run(ctx, "mkntfs", "-q", "-Q", "-F", "-s", "512", "-p", "0", "-H", "255", "-S", "63", raw); err != nil {
		return err
	}
	return filepath.WalkDir(content, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return Put(ctx, kind, raw, path, entry.Name())
	})
}

// allocate makes a sparse file.
func allocate(path string, size int64) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	return file.Truncate(size)
}

// Put copies the file from into the file system's top folder, under a name. An existing one is replaced.
func Put(ctx context.Context, kind Kind, raw, from, name string) error {
	if kind == NTFS {
		_, err := tool.Run(ctx, "ntfscp", "-f", raw, from, name)
		return err
	}
	if _, err := tool.Run(ctx, "debugfs", "-w", "-R", fmt.Sprintf("rm /%s", name), raw); err != nil {
		return err
	}
	_, err := tool.Run(ctx, "debugfs", "-w", "-R", fmt.Sprintf("write %s /%s", from, name), raw)
	return err
}

// Read returns the content of a file in the file system's top folder.
func Read(ctx context.Context, kind Kind, raw, name string) ([]byte, error) {
	if kind == NTFS {
		text, err := tool.Run(ctx, "ntfscat", "-f", raw, name)
		return []byte(text), err
	}
	text, err := tool.Run(ctx, "debugfs", "-R", "cat /"+name, raw)
	return []byte(text), err
}

// Check has the file system's own tool look for damage. It changes nothing.
func Check(ctx context.Context, kind Kind, raw string) error {
	if kind == NTFS {
		_, err := tool.Run(ctx, "ntfsfix", "-n", raw)
		return err
	}
	_, err := tool.Run(ctx, "e2fsck", "-f", "-n", raw)
	return err
}

// Replay brings an ext4 file system that was frozen while it was written into order, as mounting it would: it replays the journal. The file is changed.
func Replay(ctx context.Context, raw string) error {
	_, err := tool.Run(ctx, "e2fsck", "-E", "journal_only", "-y", raw)
	return err
}

// Copy copies a file and keeps its holes. The target must not exist.
func Copy(ctx context.Context, from, to string) error {
	if _, err := os.Lstat(to); err == nil {
		return &fs.PathError{Op: "copy", Path: to, Err: fs.ErrExist}
	}
	_, err := tool.Run(ctx, "cp", "--sparse=always", "--reflink=auto", from, to)
	return err
}
