package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/hyperkeep/hyperkeep/test/tenant"
)

// sameFile compares two files byte for byte.
func sameFile(a, b string) (bool, error) {
	x, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer y.Close()
	p, q := make([]byte, 1<<20), make([]byte, 1<<20)
	for {
		n, errX := io.ReadFull(x, p)
		m, errY := io.ReadFull(y, q)
		if n != m || !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
		if errX != nil || errY != nil {
			ended := func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
			return ended(errX) && ended(errY), nil
		}
	}
}

// damageLargestPack turns one byte in the middle of the repository's largest file, which has disk data, into another.
func damageLargestPack(repository string) error {
	var largest string
	var size int64
	err := filepath.WalkDir(repository, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil && info.Size() > size {
			largest, size = path, info.Size()
		}
		return err
	})
	if err != nil {
		return err
	}
	content, err := os.ReadFile(largest)
	if err != nil {
		return err
	}
	content[len(content)/2] ^= 0xFF
	_ = os.Chmod(largest, 0o600)
	return os.WriteFile(largest, content, 0o600)
}

// snapshotIDs reads the ids out of kopia's list of snapshots.
func snapshotIDs(x *tenant.Tenant, list string) []string {
	x.Helper()
	var snapshots []struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal([]byte(list), &snapshots); err != nil {
		x.Fatal(err)
	}
	var ids []string
	for _, snapshot := range snapshots {
		ids = append(ids, snapshot.ID)
	}
	return ids
}
