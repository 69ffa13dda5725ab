package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestFileThatSomebodyReadsIsReplacedAndRemoved: on Linux at once, on Windows when the reader is done. The same test runs under Wine.
func TestFileThatSomebodyReadsIsReplacedAndRemoved(t *testing.T) {
	dir, err := os.MkdirTemp("", "statefile-") // not t.TempDir: Wine 8 lacks the call with which os.RemoveAll clears it up
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "state")
	if err := Write(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	readFor := func(d time.Duration) {
		t.Helper()
		reader, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(d, func() { _ = reader.Close() })
	}
	readFor(100 * time.Millisecond)
	if err := Write(path, []byte("new")); err != nil {
		t.Errorf("write: %v", err)
	}
	if data, err := Read(path); string(data) != "new" || err != nil {
		t.Errorf("read %q: %v", data, err)
	}
	readFor(100 * time.Millisecond)
	if err := Remove(path); err != nil {
		t.Errorf("remove: %v", err)
	}
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read what was removed: %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Errorf("something is left behind: %v", err)
	}
}
