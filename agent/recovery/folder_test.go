package recovery

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

func small(seed uint64) *memory {
	m := &memory{bytes: make([]byte, 70*mib)}
	m.fill(seed, extent.Extent{Offset: 0, Length: 3 * mib}, extent.Extent{Offset: 66 * mib, Length: 2*mib + 4096})
	return m
}

func folder(t *testing.T, r *image.Repository, path string) *Folder {
	t.Helper()
	img, err := r.Image(t.Context(), "one")
	if err != nil {
		t.Fatal(err)
	}
	return &Folder{Image: img, Path: path, Configuration: true}
}

// compare holds a restored file against the disk that was backed up, by a program that is not ours.
func compare(t *testing.T, path string, format Format, content *memory) {
	t.Helper()
	exe, err := exec.LookPath("qemu-img")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("qemu-img is not installed, but CI must run this test")
		}
		t.Skip("qemu-img is not installed (Debian: qemu-utils)")
	}
	want := filepath.Join(t.TempDir(), "want.raw")
	if err := os.WriteFile(want, content.bytes, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), exe, "compare", "-f", string(format), "-F", "raw", path, want).CombinedOutput()
	if err != nil {
		t.Errorf("%s differs: %v\n%s", path, err, out)
	}
}

func TestAFolderGetsAllOfAnImage(t *testing.T) {
	disks := map[string]*memory{"SCSI-0-0": small(1), "SCSI-0-1": small(2)}
	r := backedUp(t, disks)
	for _, format := range []Format{VHDX, Raw} {
		t.Run(string(format), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "crm")
			job := folder(t, r, path)
			job.Format = format
			restored, err := job.Run(t.Context())
			if err != nil || len(restored) != len(disks) {
				t.Fatal(restored, err)
			}
			for _, disk := range restored {
				compare(t, disk.Path, format, disks[disk.Disk.Key])
			}
			if job.Written.Load() != job.Total.Load() {
				t.Errorf("%d of %d bytes", job.Written.Load(), job.Total.Load())
			}
			if got, err := os.ReadFile(filepath.Join(path, ConfigurationFolder, "machine.vmcx")); err != nil || string(got) != "settings" {
				t.Errorf("%q, %v", got, err)
			}
			var names []string
			entries, err := os.ReadDir(path)
			for _, entry := range entries {
				names = append(names, entry.Name())
			}
			if want := []string{"SCSI-0-0." + string(format), "SCSI-0-1." + string(format), ConfigurationFolder}; err != nil || !slices.Equal(names, want) {
				t.Errorf("the folder has %q, %v", names, err)
			}
		})
	}
}

func TestWhatIsInTheWayIsNotReplaced(t *testing.T) {
	disks := map[string]*memory{"d0": small(1)}
	r := backedUp(t, disks)
	for name, c := range map[string]struct {
		file   string
		refuse bool
	}{
		"a disk":                        {"d0.vhdx", true},
		"somebody's unfinished disk":    {"d0.vhdx.partial", true},
		"a note that nobody can read":   {"d0.vhdx.partial.json", true},
		"a configuration file":          {"configuration/machine.vmcx", true},
		"something that is not touched": {"other.vhdx", false},
	} {
		t.Run(name, func(t *testing.T) {
			path := t.TempDir()
			taken := filepath.Join(path, c.file)
			if err := os.MkdirAll(filepath.Dir(taken), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(taken, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := folder(t, r, path).Run(t.Context())
			if errors.Is(err, ErrTaken) != c.refuse || err != nil != c.refuse {
				t.Errorf("got %v", err)
			}
			if got, err := os.ReadFile(taken); err != nil || string(got) != "precious" {
				t.Errorf("%q, %v", got, err)
			}
			if !c.refuse {
				return
			}
			job := folder(t, r, path)
			job.Force = true
			if _, err := job.Run(t.Context()); err != nil {
				t.Fatalf("with force: %v", err)
			}
			compare(t, filepath.Join(path, "d0.vhdx"), VHDX, disks["d0"])
		})
	}
}

// stopAfter ends a context once so many bytes were written.
func stopAfter(t *testing.T, job *Folder, bytes int64) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		for range time.Tick(time.Millisecond) {
			if job.Written.Load() >= bytes || ctx.Err() != nil {
				return
			}
		}
	}()
	return ctx
}

func TestAnInterruptedFolderIsGoneOnWith(t *testing.T) {
	content := scattered()
	disks := map[string]*memory{"d0": small(1), "d1": content}
	r := backedUp(t, disks)
	path := t.TempDir()
	first := folder(t, r, path)
	first.Parallelism = 1
	if _, err := first.Run(stopAfter(t, first, 12*mib)); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	if exists(filepath.Join(path, "d0.vhdx")) || exists(filepath.Join(path, "d1.vhdx")) {
		t.Error("an unfinished restore looks finished")
	}
	second := folder(t, r, path)
	restored, err := second.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if restored[0].Resumed == 0 {
		t.Error("it began anew")
	}
	for _, disk := range restored {
		compare(t, disk.Path, VHDX, disks[disk.Disk.Key])
	}
}

// A disk that cannot be restored is named, and the others can be restored without it (I9).
func TestADamagedDiskIsNamed(t *testing.T) {
	disks := map[string]*memory{"d0": small(1), "d1": small(2)}
	r := backedUp(t, disks)
	job := folder(t, r, t.TempDir())
	job.Disks = []string{"d9"}
	if _, err := job.Run(t.Context()); !errors.Is(err, image.ErrDiskNotFound) || !strings.Contains(err.Error(), "d9") {
		t.Errorf("got %v", err)
	}
	job = folder(t, r, t.TempDir())
	job.Disks = []string{"D1.vhdx"} // by its name
	restored, err := job.Run(t.Context())
	if err != nil || len(restored) != 1 {
		t.Fatal(restored, err)
	}
	compare(t, restored[0].Path, VHDX, disks["d1"])
}

func TestTwoRestoresDoNotShareAFolder(t *testing.T) {
	r := backedUp(t, map[string]*memory{"d0": small(1)})
	path := t.TempDir()
	first := folder(t, r, path)
	busy := make(chan error, 1)
	go func() {
		<-stopAfter(t, first, 1).Done()
		_, err := folder(t, r, path).Run(context.Background())
		busy <- err
	}()
	_, err := first.Run(t.Context())
	if second := <-busy; err != nil || !errors.Is(second, ErrBusy) && !errors.Is(second, ErrTaken) {
		t.Errorf("%v, %v", err, second)
	}
}

func TestNamesLeadOutOfNoFolder(t *testing.T) {
	got := DiskFiles([]image.DiskRecord{
		{Key: `..\..\x`, SourcePath: `C:\a\..`}, {Key: "k", SourcePath: "/etc/passwd.vhdx"}, {Key: "m", SourcePath: `D:\m\data.vhdx`}, {Key: "n", SourcePath: `E:\Data.vhdx`},
	}, Raw)
	if want := []string{".._.._x.raw", "_etc_passwd.raw", "data.raw", "n.raw"}; !slices.Equal(got, want) {
		t.Errorf("got %q", got)
	}
	if bytes.ContainsAny([]byte(strings.Join(got, "")), `/\`) {
		t.Error("a separator")
	}
}
