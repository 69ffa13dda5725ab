// Package statefile replaces files so that a crash or a loss of power leaves the old content or the new, and nothing in between.
package statefile

import (
	"errors"
	"os"
	"path/filepath"
)

// Write replaces a file as one effect. The folder must exist; the file is readable by its owner only, and on Windows by whom its folder says.
func Write(path string, data []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".writing-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temporary.Name()) }() // fails when the rename took place
	_, err = temporary.Write(data)
	err = errors.Join(err, temporary.Sync(), temporary.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder makes a new name in a folder survive a loss of power. Windows writes names through and cannot sync a folder.
func syncFolder(dir string) error {
	if os.PathSeparator == '\\' {
		return nil
	}
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}
