// Package guest stands for a program in a virtual machine, as far as its disk is concerned. It writes through the socket at which the emulated host
// serves the disk, and keeps a raw copy of what it wrote: the oracle that backups are judged by. It knows neither VHDX nor Hyperkeep.
package guest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/hyperkeep/hyperkeep/test/filesystem"
	"github.com/hyperkeep/hyperkeep/test/nbd"
)

// Guest is a guest with one disk. One goroutine uses it at a time.
type Guest struct {
	disk   *nbd.Client
	shadow *os.File
}

// Attach connects to a disk's socket. The file shadow has the disk's present content, and from now on changes with it.
func Attach(socket, shadow string) (*Guest, error) {
	disk, err := nbd.Dial(socket)
	if err != nil {
		return nil, fmt.Errorf("attach %s: %w", socket, err)
	}
	file, err := os.OpenFile(shadow, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	g := &Guest{disk: disk, shadow: file}
	if stat, err := file.Stat(); err != nil || stat.Size() != disk.Size() {
		return nil, errors.Join(fmt.Errorf("attach %s: the disk has %d bytes and its shadow another number", socket, disk.Size()), err, g.Detach())
	}
	return g, nil
}

// Detach closes the disk.
func (g *Guest) Detach() error { return errors.Join(g.disk.Close(), g.shadow.Close()) }

// Shadow is the path of the raw copy.
func (g *Guest) Shadow() string { return g.shadow.Name() }

// Size is the size of the disk in bytes.
func (g *Guest) Size() int64 { return g.disk.Size() }

// Write writes and flushes.
func (g *Guest) Write(p []byte, offset int64) error {
	if _, err := g.disk.WriteAt(p, offset); err != nil {
		return err
	}
	if _, err := g.shadow.WriteAt(p, offset); err != nil {
		return err
	}
	return g.disk.Flush()
}

// Trim gives a range up, which must then read as zeros, and flushes.
func (g *Guest) Trim(offset, length int64) error {
	if err := g.disk.Trim(offset, length); err != nil {
		return err
	}
	if _, err := g.shadow.WriteAt(make([]byte, length), offset); err != nil {
		return err
	}
	return g.disk.Flush()
}

// Freeze copies the shadow to path: what a backup that is taken now must give back.
func (g *Guest) Freeze(ctx context.Context, path string) error {
	return filesystem.Copy(ctx, g.shadow.Name(), path)
}

// blockSize is in what pieces a file system writes.
const blockSize = 4096

// Become writes to the disk what makes it equal to the raw file at path, in the blocks that differ, and flushes. That is how a change that a tool made
// to a copy of the file system gets into the running guest. It returns how many bytes it wrote.
func (g *Guest) Become(path string) (written int64, err error) {
	wanted, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer wanted.Close()
	want, have := make([]byte, 256*blockSize), make([]byte, 256*blockSize)
	for at := int64(0); at < g.Size(); {
		n, err := wanted.ReadAt(want[:min(int64(len(want)), g.Size()-at)], at)
		if err != nil && !errors.Is(err, io.EOF) {
			return written, err
		}
		if n == 0 {
			return written, fmt.Errorf("%s is shorter than the disk", path)
		}
		if _, err := g.shadow.ReadAt(have[:n], at); err != nil {
			return written, err
		}
		changed, err := g.writeChanged(want[:n], have[:n], at)
		written += changed
		if err != nil {
			return written, err
		}
		at += int64(n)
	}
	return written, g.disk.Flush()
}

func (g *Guest) writeChanged(want, have []byte, at int64) (written int64, err error) {
	for start := 0; start < len(want); start += blockSize {
		end := min(start+blockSize, len(want))
		if bytes.Equal(want[start:end], have[start:end]) {
			continue
		}
		if _, err := g.disk.WriteAt(want[start:end], at+int64(start)); err != nil {
			return written, err
		}
		if _, err := g.shadow.WriteAt(want[start:end], at+int64(start)); err != nil {
			return written, err
		}
		written += int64(end - start)
	}
	return written, nil
}
