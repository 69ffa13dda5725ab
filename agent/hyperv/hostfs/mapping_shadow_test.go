package hostfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestShadowCopyCanOnlyBeRead(t *testing.T) {
	root := t.TempDir()
	folder := filepath.Join(root, "shadows", "7", "VMs")
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "a.vhdx"), []byte("frozen"), 0o644)); err != nil {
		t.Fatal(err)
	}
	files, err := NewLocal(Mapping{Root: root, Shadows: "shadows", Volumes: []Volume{{Prefix: "D:", Folder: "d"}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = files.Close() })
	path := ShadowDevice + `7\VMs\a.vhdx`
	f, err := files.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if size, err := f.Size(); size != 6 || err != nil {
		t.Errorf("%d bytes, %v", size, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	_, create := files.Create(t.Context(), ShadowDevice+`7\VMs\b.vhdx`)
	_, write := files.OpenWrite(t.Context(), path)
	for name, err := range map[string]error{
		"create": create, "write": write, "remove": files.Remove(t.Context(), path), "rename": files.Rename(t.Context(), path, path+"x"),
	} {
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := files.Open(t.Context(), ShadowDevice+`8\VMs\a.vhdx`); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another shadow copy: %v", err)
	}
	for _, bad := range []string{"", "x", "07", `7\..\8`, `-1\a`} {
		if _, err := files.Open(t.Context(), ShadowDevice+bad); !errors.Is(err, ErrPath) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
