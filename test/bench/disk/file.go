package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// corpusSize is as much of the Go distribution as New's texts are made of.
const corpusSize = 96 << 20

// Corpus reads the Go distribution at root: programs first, then source code.
func Corpus(root string) ([]byte, error) {
	corpus := make([]byte, 0, corpusSize)
	for _, part := range []string{"bin", "src"} {
		err := filepath.WalkDir(filepath.Join(root, part), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.Type().IsRegular() {
				return err
			}
			if len(corpus) >= corpusSize {
				return filepath.SkipAll
			}
			content, err := os.ReadFile(path)
			corpus = append(corpus, content...)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read the Go distribution: %w", err)
		}
	}
	return corpus[:min(len(corpus), corpusSize)], nil
}

// WriteRaw writes everything that the disk holds into a sparse file.
func (d *Disk) WriteRaw(path string) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if err := file.Truncate(d.size); err != nil {
		return err
	}
	return d.write(file, extent.List{{Length: d.size}})
}

// UpdateRaw writes what changed into a file of WriteRaw's.
func (d *Disk) UpdateRaw(path string, changed extent.List) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	return d.write(file, changed)
}

// write writes the pieces of some extents. Those that have no content are left out.
func (d *Disk) write(to io.WriterAt, extents extent.List) error {
	buffer := make([]byte, Piece)
	for _, e := range extents {
		for at := e.Offset; at < e.End(); at += Piece {
			if d.empty(at / Piece) { // most of a large disk is
				continue
			}
			d.Read(buffer, at/Piece)
			if _, err := to.WriteAt(buffer, at); err != nil {
				return err
			}
		}
	}
	return nil
}

// WriteVHDX writes everything that the disk holds into a dynamic VHDX file with blocks of blockSize bytes.
func (d *Disk) WriteVHDX(path string, blockSize int64) error {
	return d.writeVHDX(path, vhdx.Options{VirtualSize: d.size, BlockSize: blockSize}, nil, extent.List{{Length: d.size}})
}

// WriteLayer writes what changed into a differencing file over chain, its topmost member first.
func (d *Disk) WriteLayer(path string, changed extent.List, chain ...string) error {
	parents, err := Open(chain...)
	if err != nil {
		return err
	}
	top := parents.Members()[0]
	options := vhdx.Options{
		VirtualSize: d.size, VirtualDiskID: top.VirtualDiskID(),
		Parent: &vhdx.ParentRef{DataWriteID: top.DataWriteID(), RelativePath: `.\` + filepath.Base(chain[0])},
	}
	return errors.Join(d.writeVHDX(path, options, parents.Disk, changed), parents.Close())
}

func (d *Disk) writeVHDX(path string, options vhdx.Options, parents *vhdx.Disk, extents extent.List) (err error) {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	size, err := vhdx.Create(file, options)
	if err != nil {
		return err
	}
	writer, err := vhdx.OpenWriter(file, size, parents)
	if err != nil {
		return err
	}
	return errors.Join(d.write(writer, extents), writer.Close())
}

// Chain is an open chain of files.
type Chain struct {
	*vhdx.Disk
	files []*os.File
}

// Open opens a chain of VHDX files, its topmost member first. The caller closes it.
func Open(paths ...string) (*Chain, error) {
	chain := &Chain{}
	var members []*vhdx.File
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			return nil, errors.Join(err, chain.Close())
		}
		chain.files = append(chain.files, file)
		stat, err := file.Stat()
		if err != nil {
			return nil, errors.Join(err, chain.Close())
		}
		member, err := vhdx.Open(file, stat.Size())
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), chain.Close())
		}
		members = append(members, member)
	}
	var err error
	if chain.Disk, err = vhdx.NewDisk(members...); err != nil {
		return nil, errors.Join(err, chain.Close())
	}
	return chain, nil
}

// Close closes the files.
func (c *Chain) Close() error {
	var errs []error
	for _, file := range c.files {
		errs = append(errs, file.Close())
	}
	return errors.Join(errs...)
}
