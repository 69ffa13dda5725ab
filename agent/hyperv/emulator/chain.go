package emulator

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// maxChain bounds a chain that leads in a circle. Hyper-V allows 50 checkpoints.
const maxChain = 64

// member is one open file of a chain.
type member struct {
	path   string // Windows path
	file   hostfs.File
	vhdx   *vhdx.File
	writer *vhdx.Writer // nil while the member is only read
}

// chain is the open files of a disk, topmost first.
type chain []*member

// openChain opens a disk file and all its parents for reading.
func openChain(ctx context.Context, files *hostfs.Local, leaf string) (chain, error) {
	var c chain
	for path := leaf; path != ""; {
		m, err := openMember(ctx, files, path)
		if err == nil && len(c) == maxChain {
			err = fmt.Errorf("%s has more than %d parents", leaf, maxChain)
		}
		if err != nil {
			return nil, errors.Join(err, c.close())
		}
		c = append(c, m)
		path = parentPath(files.Mapping(), path, m.vhdx)
	}
	if _, err := c.disk(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", leaf, err), c.close())
	}
	return c, nil
}

func openMember(ctx context.Context, files *hostfs.Local, path string) (*member, error) {
	f, err := files.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	v, err := vhdx.Open(f, size)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), f.Close())
	}
	return &member{path: path, file: f, vhdx: v}, nil
}

// parentPath is where the parent of a file lies: beside it, as its locator says, or at an absolute path. A file without a parent, or with
// a locator that leads nowhere, has none; the chain then does not verify.
func parentPath(m hostfs.Mapping, path string, f *vhdx.File) string {
	locator := f.Locator()
	if relative := locator[vhdx.KeyRelativePath]; relative != "" {
		joined := joinRelative(path, relative)
		if _, _, err := m.Resolve(joined); err == nil {
			return joined
		}
	}
	return locator[vhdx.KeyAbsolutePath]
}

// joinRelative resolves a relative Windows path, which may start with `.\` and `..\`, from the folder of another.
func joinRelative(from, relative string) string {
	folder, _ := splitPath(from)
	for {
		switch {
		case strings.HasPrefix(relative, `.\`):
			relative = relative[2:]
		case strings.HasPrefix(relative, `..\`):
			folder, _ = splitPath(folder)
			relative = relative[3:]
		default:
			return folder + `\` + relative
		}
	}
}

// splitPath cuts a Windows path into its folder and its last name.
func splitPath(path string) (folder, name string) {
	i := strings.LastIndexByte(path, '\\')
	if i < 0 {
		return "", path
	}
	return path[:i], path[i+1:]
}

// parentRef names parent in a child that lies at path.
func parentRef(child string, parent *member) vhdx.ParentRef {
	ref := vhdx.ParentRef{DataWriteID: parent.vhdx.DataWriteID(), AbsolutePath: parent.path}
	folder, name := splitPath(parent.path)
	if childFolder, _ := splitPath(child); strings.EqualFold(childFolder, folder) {
		ref.RelativePath = `.\` + name
	}
	return ref
}

// disk is what the chain shows; it verifies that the members belong together.
func (c chain) disk() (*vhdx.Disk, error) {
	if len(c) == 0 {
		return nil, nil
	}
	files := make([]*vhdx.File, 0, len(c))
	for _, m := range c {
		files = append(files, m.vhdx)
	}
	return vhdx.NewDisk(files...)
}

// index finds a member by its path, or returns -1.
func (c chain) index(path string) int {
	for i, m := range c {
		if strings.EqualFold(m.path, path) {
			return i
		}
	}
	return -1
}

// paths are those of the files, topmost first.
func (c chain) paths() []string {
	var out []string
	for _, m := range c {
		out = append(out, m.path)
	}
	return out
}

func (c chain) close() error {
	var errs []error
	for _, m := range c {
		errs = append(errs, m.close())
	}
	return errors.Join(errs...)
}

func (m *member) close() error {
	var err error
	if m.writer != nil {
		err = m.writer.Close()
	}
	return errors.Join(err, m.file.Close())
}

// makeWritable turns a member that is read into one that is written; parents is the chain below it.
func (m *member) makeWritable(ctx context.Context, files *hostfs.Local, parents chain) error {
	if m.writer != nil {
		return nil
	}
	f, err := files.OpenWrite(ctx, m.path)
	if err != nil {
		return err
	}
	size, err := f.Size()
	var below *vhdx.Disk
	if err == nil {
		below, err = parents.disk()
	}
	var w *vhdx.Writer
	if err == nil {
		w, err = vhdx.OpenWriter(f, size, below)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("open %s for writing: %w", m.path, err), f.Close())
	}
	old := m.file
	m.file, m.vhdx, m.writer = f, w.File(), w
	return old.Close()
}

// freeze ends the writing of a member, which stays open for reading.
func (m *member) freeze() error {
	w := m.writer
	m.writer = nil
	return w.Close()
}
