package hostfs_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/windows"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs/hostfstest"
)

// folder is t.TempDir, but removed one by one: Wine 8 lacks what os.RemoveAll uses.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "native")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		var all []string
		if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			all = append(all, path)
			return err
		}); err != nil {
			t.Error(err)
		}
		for _, path := range slices.Backward(all) {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}
	})
	return dir
}

func TestNativeKeepsTheContract(t *testing.T) {
	hostfstest.Contract(t, hostfs.Native{}, folder(t)+`\contract`, `Q:`)
}

func TestNativeFileThatAScannerHoldsIsOpenedOnceItLetsGo(t *testing.T) {
	path := folder(t) + `\held`
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	wide, err := windows.UTF16PtrFromString(path)
	if err != nil {
		t.Fatal(err)
	}
	held, err := windows.CreateFile(wide, windows.GENERIC_READ, 0, nil, windows.OPEN_EXISTING, 0, 0) // shares nothing
	if err != nil {
		t.Fatal(err)
	}
	opened := make(chan error)
	go func() {
		f, err := hostfs.Native{}.Open(t.Context(), path)
		if err == nil {
			err = f.Close()
		}
		opened <- err
	}()
	if err := errors.Join(windows.CloseHandle(held), <-opened); err != nil {
		t.Error(err)
	}
}

func TestNativeFilesAreNotSparse(t *testing.T) {
	path := folder(t) + `\new.vhdx`
	f, err := hostfs.Native{}.Create(t.Context(), path)
	if err == nil {
		err = errors.Join(f.Truncate(1<<30), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	wide, err := windows.UTF16PtrFromString(path)
	if err != nil {
		t.Fatal(err)
	}
	if attributes, err := windows.GetFileAttributes(wide); err != nil || attributes&windows.FILE_ATTRIBUTE_SPARSE_FILE != 0 {
		t.Errorf("attributes %#x, %v: Hyper-V opens no sparse file", attributes, err)
	}
}

func TestNativeShadowCopiesAreReached(t *testing.T) {
	_, err := hostfs.Native{}.Open(t.Context(), `\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy99999\a`)
	if errors.Is(err, hostfs.ErrPath) || err == nil || !strings.Contains(err.Error(), "HarddiskVolumeShadowCopy99999") {
		t.Errorf("a shadow copy that is gone: %v", err)
	}
	for _, path := range []string{`\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopyX\a`, `\\?\GLOBALROOT\Device\HarddiskVolumeShadowCopy1\..\a`} {
		if _, err := (hostfs.Native{}).Open(t.Context(), path); !errors.Is(err, hostfs.ErrPath) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
