package vhdx_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// needTool returns the path of a program. Without it the test is skipped on a developer's machine and fails in CI.
func needTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("%s is not installed, but CI must run this test", name)
	}
	t.Skipf("%s is not installed (Debian: qemu-utils, libvhdi-utils)", name)
	return ""
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// writeRaw makes a sparse raw image with a few runs of random bytes.
func writeRaw(t *testing.T, path string, size int64, seed uint64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	random := rand.NewChaCha8([32]byte{byte(seed)})
	for i := range 6 {
		run := make([]byte, 512*(1+random.Uint64()%200))
		_, _ = random.Read(run)
		at := int64(random.Uint64()%uint64(size-int64(len(run)))) / 512 * 512
		if i == 0 {
			at = 0
		}
		if _, err := f.WriteAt(run, at); err != nil {
			t.Fatal(err)
		}
	}
}

func openPath(t *testing.T, path string) *vhdx.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	file, err := vhdx.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// sameAsRaw compares a disk with a raw image, byte by byte, and its Data with where the raw image is not zero.
func sameAsRaw(t *testing.T, disk *vhdx.Disk, raw string) {
	t.Helper()
	want, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer want.Close()
	data, err := extent.Collect(disk.Data(extent.Extent{Length: disk.Size()}))
	if err != nil {
		t.Fatal(err)
	}
	const piece = 1 << 20
	got, expected, blank := make([]byte, piece), make([]byte, piece), make([]byte, piece)
	for at := int64(0); at < disk.Size(); at += piece {
		window := extent.Extent{Offset: at, Length: min(piece, disk.Size()-at)}
		n := window.Length
		if _, err := disk.ReadAt(got[:n], at); err != nil {
			t.Fatal(err)
		}
		if _, err := want.ReadAt(expected[:n], at); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[:n], expected[:n]) {
			t.Fatalf("bytes differ within %v", window)
		}
		if len(data.Intersect(extent.List{window})) == 0 && !bytes.Equal(got[:n], blank[:n]) {
			t.Fatalf("%v has data that the walk does not report", window)
		}
	}
}

// TestReadsWhatQemuWrites compares images that qemu-img made with the raw image they were made from.
func TestReadsWhatQemuWrites(t *testing.T) {
	qemu := needTool(t, "qemu-img")
	dir := t.TempDir()
	raw := filepath.Join(dir, "disk.raw")
	const size = 67*1<<20 + 512*3 // not a whole number of blocks
	writeRaw(t, raw, size, 1)
	for _, subformat := range []string{"dynamic", "fixed"} {
		for block := 1; block <= 256; block *= 2 {
			for _, log := range []int{1, 4} {
				if log != 1 && block != 8 {
					continue
				}
				t.Run(fmt.Sprintf("%s with blocks of %d MiB and a log of %d MiB", subformat, block, log), func(t *testing.T) {
					path := filepath.Join(t.TempDir(), "disk.vhdx")
					run(t, qemu, "convert", "-f", "raw", "-O", "vhdx", "-S", "4k",
						"-o", fmt.Sprintf("subformat=%s,block_size=%dM,log_size=%dM", subformat, block, log), raw, path)
					file := openPath(t, path)
					disk, err := vhdx.NewDisk(file)
					if err != nil {
						t.Fatal(err)
					}
					if file.BlockSize() != int64(block)<<20 || file.Info().LogLength != int64(log)<<20 {
						t.Errorf("info %+v does not match what was asked for", file.Info())
					}
					back := filepath.Join(t.TempDir(), "back.raw")
					run(t, qemu, "convert", "-f", "vhdx", "-O", "raw", path, back)
					sameAsRaw(t, disk, back)
				})
			}
		}
	}
}

// TestReplaysLogsOfQemu takes the log entry that qemu wrote last, brings the file into the state of a crash right behind it, and compares our
// replay with qemu's own.
func TestReplaysLogsOfQemu(t *testing.T) {
	qemu, io := needTool(t, "qemu-img"), needTool(t, "qemu-io")
	dir := t.TempDir()
	path, raw := filepath.Join(dir, "disk.vhdx"), filepath.Join(dir, "disk.raw")
	run(t, qemu, "create", "-f", "vhdx", "-o", "block_size=1M", path, "40M")
	args := []string{"-f", "vhdx"}
	for i := range 20 {
		args = append(args, "-c", fmt.Sprintf("write -P %d %dk 60k", i+1, i*2000))
	}
	run(t, io, append(args, path)...)
	whole, err := os.ReadFile(path)
	must(t, err)
	m := newMemory()
	must(t, writeAll(m, whole, 0))
	last := bytes.LastIndex(whole[:logAt+logSize], []byte("loge"))
	bendHeaders(m, func(b []byte) { copy(b[48:], whole[last+32:last+48]) })
	changed := int64(le.Uint64(whole[last+64+16:])) // a sector of the BAT
	must(t, writeAll(m, make([]byte, 4096), changed))
	_, err = m.ReadAt(whole, 0)
	must(t, err)
	must(t, os.WriteFile(path, whole, 0o600))

	guest := make([]byte, 40<<20)
	for i := range 20 {
		copy(guest[i*2000<<10:], bytes.Repeat([]byte{byte(i + 1)}, 60<<10))
	}
	disk := openMembers(t, map[string]*memory{"": m}, []string{""})
	if !disk.Members()[0].HasDirtyLog() {
		t.Error("the log is not seen")
	}
	verify(t, disk, guest)
	run(t, qemu, "check", "-r", "all", "-f", "vhdx", path)
	run(t, qemu, "convert", "-f", "vhdx", "-O", "raw", path, raw)
	sameAsRaw(t, disk, raw)
	w, err := vhdx.OpenWriter(m, m.Size(), nil)
	must(t, err)
	verify(t, w.Disk(), guest)
}
