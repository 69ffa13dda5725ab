// Package statefile replaces files so that a crash or a loss of power leaves the old content or the new, and nothing in between.
package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// onWindows says that files are Windows'.
const onWindows = os.PathSeparator == '\\'

// Windows neither replaces nor removes a file that somebody has open, and opens none that is being replaced: a virus scanner looks at what was just
// written. The agent's own readers and writers of one file are kept apart by whom the file belongs to.
const (
	patience = 5 * time.Second
	pause    = 5 * time.Millisecond
)

// patiently repeats what Windows refuses while others use the file.
func patiently(attempt func() error) error {
	for started := time.Now(); ; time.Sleep(pause) {
		err := attempt()
		if err == nil || !onWindows || errors.Is(err, fs.ErrNotExist) || time.Since(started) > patience {
			return err
		}
	}
}

// Read returns the content of a file, as os.ReadFile does.
func Read(path string) (data []byte, err error) {
	err = patiently(func() error {
		data, err = os.ReadFile(path)
		return err
	})
	return data, err
}

// Remove removes a file, as os.Remove does.
func Remove(path string) error { return patiently(func() error { return os.Remove(path) }) }

// Write replaces a file as one effect. The folder must exist; the file is readable by its owner only, and on Windows by whom its folder says.
func Write(path string, data []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".writing-*")
	if err != nil {
		return err
	}
	defer func() { _ = Remove(temporary.Name()) }() // fails when the rename took place
	_, err = temporary.Write(data)
	err = errors.Join(err, temporary.Sync(), temporary.Close())
	if err != nil {
		return err
	}
	if err := patiently(func() error { return os.Rename(temporary.Name(), path) }); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes a new name in a folder survive a loss of power. Windows writes names through and cannot sync a folder.
func syncFolder(dir string) error {
	if onWindows {
		return nil
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
