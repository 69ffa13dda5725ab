package hostfs

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func newLocal(t *testing.T) (*Local, string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, ".volumes", "E"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := NewLocal(Mapping{Root: dir, Volumes: []Volume{
		{Prefix: `D:\VMs`, Folder: "."}, {Prefix: "D:", Folder: ".volumes/D"}, {Prefix: "E:", Folder: ".volumes/E", SizeBytes: 1 << 20},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, dir
}

func TestPathsMapToLocalOnes(t *testing.T) {
	l, dir := newLocal(t)
	for path, want := range map[string]string{
		`D:\VMs\crm\a.vhdx`: "crm/a.vhdx", `d:\vms\crm`: "crm", `D:\VMs`: ".", `D:/VMs/x`: "x", `D:\VMs\x\`: "x",
		`D:\VMsX\a`: ".volumes/D/VMsX/a", `D:\other\a b`: ".volumes/D/other/a b", `D:\`: ".volumes/D", `E:\x`: ".volumes/E/x",
	} {
		got, err := l.LocalPath(path)
		if err != nil || got != filepath.Join(dir, want) {
			t.Errorf("%s is %s, %v", path, got, err)
		}
	}
}

func TestUnusablePathsAreRefused(t *testing.T) {
	l, _ := newLocal(t)
	for _, path := range []string{
		"", "x", `\x`, `x\y`, `D:x`, `\\server\share\x`, `\\?\D:\VMs\x`, `D:\VMs\..\x`, `D:\VMs\.\x`, `D:\VMs\\x`, `F:\x`, `D:\a:stream`, `D:\a*`,
		"D:\\a\x00b", "D:\\a\nb", `D:\a.`, `D:\a \b`, `/etc/passwd`, `1:\x`, `D:\VMs\x\..\..\..\..\etc`,
	} {
		for operation, err := range map[string]error{
			"open":   second(l.Open(t.Context(), path)),
			"create": second(l.Create(t.Context(), path)),
			"remove": l.Remove(t.Context(), path),
			"rename": l.Rename(t.Context(), path, `D:\VMs\x`),
			"list":   second(l.ReadDir(t.Context(), path)),
		} {
			if !errors.Is(err, ErrPath) {
				t.Errorf("%s %q: %v", operation, path, err)
			}
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestSymlinksDoNotLeadOutside(t *testing.T) {
	l, dir := newLocal(t)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"file": outside, "folder": filepath.Dir(outside), "up": "../.."} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{`D:\VMs\file`, `D:\VMs\folder\secret`, `D:\VMs\up\x`} {
		if _, err := l.Open(t.Context(), path); err == nil {
			t.Errorf("%s was opened", path)
		}
		if _, err := l.OpenWrite(t.Context(), path); err == nil {
			t.Errorf("%s was opened for writing", path)
		}
	}
	if _, err := l.Create(t.Context(), `D:\VMs\folder\new`); err == nil {
		t.Error("a file was made outside")
	}
}

// A volume may be laid out in more than one local folder.
func TestMoveWithinAVolumeMayChangeTheLocalFolder(t *testing.T) {
	l, _ := newLocal(t)
	f, err := l.Create(t.Context(), `D:\restored\crm\a.vhdx`)
	if err == nil {
		err = errors.Join(f.Close(), l.Rename(t.Context(), `D:\restored\crm\a.vhdx`, `D:\VMs\crm\a.vhdx`))
	}
	if err != nil {
		t.Fatal(err)
	}
	if info, err := l.Stat(t.Context(), `D:\VMs\crm\a.vhdx`); err != nil || info.Size() != 0 {
		t.Error(info, err)
	}
}

func TestSmallVolumeIsFull(t *testing.T) {
	l, _ := newLocal(t)
	space, err := l.Space(t.Context(), `E:\new\file`)
	if err != nil || space != (Space{Volume: `E:\`, Free: 1 << 20, Total: 1 << 20}) {
		t.Fatalf("%+v, %v", space, err)
	}
	f, err := l.Create(t.Context(), `E:\a`)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(make([]byte, 700<<10), 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(make([]byte, 700<<10), 700<<10); !errors.Is(err, ErrFull) {
		t.Errorf("writing more than there is: %v", err)
	}
	if _, err := f.WriteAt(make([]byte, 100<<10), 0); err != nil {
		t.Errorf("overwriting: %v", err)
	}
	if space, err := l.Space(t.Context(), `E:\`); err != nil || space.Free > 400<<10 {
		t.Errorf("%+v, %v", space, err)
	}
	if space, err := l.Space(t.Context(), `D:\`); err != nil || space.Total <= 1<<20 || space.Free <= 0 {
		t.Errorf("the other volume has %+v, %v", space, err)
	}
}
