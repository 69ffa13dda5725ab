package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/test/bench/disk"
)

// workspace is where the files of a run lie. Disks are in a folder whose file system may be slow, since they are read from the page cache;
// repositories and restored disks in one that should be memory, so that the tools are compared and not the disk beneath them.
type workspace struct {
	disks, fast string
	corpus      []byte
}

// newWorkspace makes folders of its own in two given ones.
func newWorkspace(disks, fast, goroot string) (*workspace, error) {
	w := &workspace{}
	var err error
	if w.disks, err = os.MkdirTemp(disks, "hyperkeep-bench-"); err != nil {
		return nil, err
	}
	if w.fast, err = os.MkdirTemp(fast, "hyperkeep-bench-"); err != nil {
		return nil, errors.Join(err, w.remove())
	}
	if w.corpus, err = disk.Corpus(goroot); err != nil {
		return nil, errors.Join(err, w.remove())
	}
	return w, nil
}

// remove removes everything of the run.
func (w *workspace) remove() error {
	return errors.Join(os.RemoveAll(w.disks), os.RemoveAll(w.fast))
}

func (w *workspace) disk(name string) string { return filepath.Join(w.disks, name) }

func (w *workspace) place(name string) string { return filepath.Join(w.fast, name) }

// saveExtents writes what changed into a file, as the subject reads it.
func (w *workspace) saveExtents(name string, changed extent.List) (string, error) {
	content, err := json.Marshal(changed)
	if err != nil {
		return "", err
	}
	path := w.disk(name)
	return path, os.WriteFile(path, content, 0o600)
}

// layered is a disk with its history as files: a VHDX file, a layer for each generation of changes, and what changed in it.
type layered struct {
	chain   []string // topmost first
	changes []string // files of extents, by generation
	changed []extent.List
}

// layer adds a generation.
func (l *layered) layer(w *workspace, d *disk.Disk, name string, changed extent.List) error {
	generation := len(l.changes) + 1
	path := w.disk(fmt.Sprintf("%s-%d.avhdx", name, generation))
	if err := d.WriteLayer(path, changed, l.chain...); err != nil {
		return err
	}
	extents, err := w.saveExtents(fmt.Sprintf("%s-%d.json", name, generation), changed)
	if err != nil {
		return err
	}
	l.chain = append([]string{path}, l.chain...)
	l.changes = append(l.changes, extents)
	l.changed = append(l.changed, changed)
	return nil
}

// at is the chain of a generation, topmost first. Generation 0 is the disk before any change.
func (l *layered) at(generation int) []string { return l.chain[len(l.chain)-1-generation:] }

// clear empties the fast place.
func (w *workspace) clear() error {
	entries, err := os.ReadDir(w.fast)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if err := os.RemoveAll(filepath.Join(w.fast, entry.Name())); err != nil {
			return err
		}
	}
	return nil
}
