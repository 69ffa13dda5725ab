package vhdx_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// createPath makes a file on disk and opens it for writing.
func createPath(t *testing.T, path string, o vhdx.Options, parents *vhdx.Disk) *vhdx.Writer {
	t.Helper()
	f, err := os.Create(path)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	size, err := vhdx.Create(f, o)
	must(t, err)
	w, err := vhdx.OpenWriter(f, size, parents)
	must(t, err)
	return w
}

// scribble writes and zeroes at random, in the disk and in the model. What it zeroes has at most maxZero bytes.
func scribble(t *testing.T, w *vhdx.Writer, guest []byte, maxZero int64, random *rand.Rand) {
	t.Helper()
	for i := range 40 {
		off := random.Int64N(int64(len(guest))-100*sector) / sector * sector
		length := (1 + random.Int64N(99)) * sector
		if i%10 == 9 {
			length = min(int64(len(guest))-off, 5<<20)
		}
		if i%4 == 3 {
			length = min(length, maxZero)
			must(t, w.Zero(off, length))
			clear(guest[off : off+length])
			continue
		}
		part := guest[off : off+length]
		fill(part, random)
		_, err := w.WriteAt(part, off)
		must(t, err)
	}
}

// TestQemuReadsWhatWeWrite has qemu-img check the files that the Writer made and convert them to what the guest wrote.
func TestQemuReadsWhatWeWrite(t *testing.T) {
	qemu := needTool(t, "qemu-img")
	cases := map[string]vhdx.Options{
		"dynamic with the smallest blocks":    {BlockSize: 1 << 20},
		"dynamic with Hyper-V's default":      {},
		"dynamic with the largest blocks":     {BlockSize: 256 << 20},
		"fixed":                               {BlockSize: 2 << 20, Fixed: true},
		"fixed with blocks larger than a MiB": {BlockSize: 32 << 20, Fixed: true},
	}
	for name, o := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, raw := filepath.Join(dir, "disk.vhdx"), filepath.Join(dir, "disk.raw")
			o.VirtualSize = 40<<20 + 4096
			w := createPath(t, path, o, nil)
			guest := make([]byte, o.VirtualSize)
			scribble(t, w, guest, 8<<20, rand.New(rand.NewPCG(1, 1)))
			must(t, w.Close())
			run(t, qemu, "check", "-f", "vhdx", path)
			run(t, qemu, "convert", "-f", "vhdx", "-O", "raw", path, raw)
			got, err := os.ReadFile(raw)
			must(t, err)
			if i := firstDifference(got, guest); i >= 0 {
				t.Fatalf("byte %d differs", i)
			}
		})
	}
}

// TestWriterOpensWhatQemuWrote continues a file of qemu, and qemu reads the result.
func TestWriterOpensWhatQemuWrote(t *testing.T) {
	qemu := needTool(t, "qemu-img")
	for _, subformat := range []string{"dynamic", "fixed"} {
		t.Run(subformat, func(t *testing.T) {
			dir := t.TempDir()
			path, raw := filepath.Join(dir, "disk.vhdx"), filepath.Join(dir, "disk.raw")
			const size = 21<<20 + 512
			writeRaw(t, raw, size, 3)
			run(t, qemu, "convert", "-f", "raw", "-O", "vhdx", "-o", "block_size=2M,subformat="+subformat, raw, path)
			guest, err := os.ReadFile(raw)
			must(t, err)
			f, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			defer f.Close()
			info, err := f.Stat()
			must(t, err)
			w, err := vhdx.OpenWriter(f, info.Size(), nil)
			must(t, err)
			scribble(t, w, guest[:size], 8<<20, rand.New(rand.NewPCG(2, 1)))
			must(t, w.Close())
			run(t, qemu, "check", "-f", "vhdx", path)
			run(t, qemu, "convert", "-f", "vhdx", "-O", "raw", path, raw)
			got, err := os.ReadFile(raw)
			must(t, err)
			if i := firstDifference(got[:size], guest[:size]); i >= 0 {
				t.Fatalf("byte %d differs", i)
			}
		})
	}
}

// TestLibvhdiReadsOurChain has the only other free reader of differencing disks read a chain that the Writer made, through FUSE. No block of a child
// is zeroed as a whole: libvhdi takes every state below 6 for "ask the parent", against [MS-VHDX] 2.5.1.1.
func TestLibvhdiReadsOurChain(t *testing.T) {
	for _, sectorSize := range []int64{512, 4096} { // qemu reads no disks with sectors of 4096 bytes
		t.Run(fmt.Sprint("sectors of ", sectorSize), func(t *testing.T) { libvhdiReadsOurChain(t, sectorSize) })
	}
}

func libvhdiReadsOurChain(t *testing.T, sectorSize int64) {
	info, mount, unmount := needTool(t, "vhdiinfo"), needTool(t, "vhdimount"), needTool(t, "umount")
	dir, point := t.TempDir(), t.TempDir()
	guest := make([]byte, 24<<20)
	random := rand.New(rand.NewPCG(3, 1))
	base := createPath(t, filepath.Join(dir, "base.vhdx"), vhdx.Options{VirtualSize: int64(len(guest)), BlockSize: 4 << 20, LogicalSectorSize: sectorSize}, nil)
	scribble(t, base, guest, 8<<20, random)
	must(t, base.Close())
	top := base
	for _, name := range []string{"middle.avhdx", "top.avhdx"} {
		parentName := map[string]string{"middle.avhdx": "base.vhdx", "top.avhdx": "middle.avhdx"}[name]
		ref := vhdx.ParentRef{DataWriteID: top.File().DataWriteID(), RelativePath: `.\` + parentName, AbsolutePath: `D:\VMs\` + parentName}
		top = createPath(t, filepath.Join(dir, name), vhdx.Options{VirtualSize: int64(len(guest)), Parent: &ref,
			LogicalSectorSize: sectorSize, VirtualDiskID: top.File().VirtualDiskID()}, top.Disk())
		scribble(t, top, guest, 1<<20, random)
		must(t, top.Close())
	}
	path := filepath.Join(dir, "top.avhdx")
	if out := run(t, info, path); !strings.Contains(out, "Differential") || !strings.Contains(strings.ToLower(out), top.File().ParentLinkage().String()) {
		t.Errorf("vhdiinfo does not show a differential disk with its parent:\n%s", out)
	}
	if out, err := exec.Command(mount, path, point).CombinedOutput(); err != nil {
		if _, statErr := os.Stat("/dev/fuse"); statErr != nil && os.Getenv("CI") != "true" {
			t.Skip("there is no /dev/fuse here")
		}
		t.Fatalf("vhdimount: %v\n%s", err, out)
	}
	defer run(t, unmount, point)
	got, err := os.ReadFile(filepath.Join(point, "vhdi3"))
	must(t, err)
	if i := firstDifference(got, guest); i >= 0 {
		t.Fatalf("libvhdi reads another byte at %d", i)
	}
	verify(t, top.Disk(), guest)
}
