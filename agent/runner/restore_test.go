package runner

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

func TestDiskFiles(t *testing.T) {
	disk := func(key, path string) image.DiskRecord { return image.DiskRecord{Key: key, SourcePath: path} }
	cases := map[string]struct {
		disks []image.DiskRecord
		want  []string
	}{
		"the original's names": {
			[]image.DiskRecord{disk("SCSI-0-0", `D:\VMs\a\system.vhdx`), disk("SCSI-0-1", `E:\data.VHDX`)}, []string{`R:\n\system.vhdx`, `R:\n\data.VHDX`},
		},
		"a checkpoint's file gives way to the place": {
			[]image.DiskRecord{disk("SCSI-0-0", `D:\VMs\a\system_0F.avhdx`)}, []string{`R:\n\SCSI-0-0.vhdx`},
		},
		"two disks of one name in two folders": {
			[]image.DiskRecord{disk("SCSI-0-0", `D:\a\disk.vhdx`), disk("SCSI-0-1", `E:\a\Disk.vhdx`)}, []string{`R:\n\disk.vhdx`, `R:\n\SCSI-0-1.vhdx`},
		},
		"no path at all": {[]image.DiskRecord{disk("IDE-0-0", "")}, []string{`R:\n\IDE-0-0.vhdx`}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := diskFiles(`R:\n`, c.disks); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestDefaultFolder(t *testing.T) {
	cases := map[string]struct {
		disks []hyperv.DefinedDisk
		want  string
	}{
		"above the folder of the first disk": {[]hyperv.DefinedDisk{{Kind: hyperv.DiskPassThrough}, {Kind: hyperv.DiskVHDX, Path: `D:\VMs\crm\a.vhdx`}}, `D:\VMs`},
		"the folder itself below a volume":   {[]hyperv.DefinedDisk{{Kind: hyperv.DiskVHDX, Path: `D:\crm\a.vhdx`}}, `D:\crm`},
		"nothing to go by":                   {[]hyperv.DefinedDisk{{Kind: hyperv.DiskPassThrough}}, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := defaultFolder(hyperv.Definition{Disks: c.disks}); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestBytesOfCountsEachUnitOnce(t *testing.T) {
	extents := extent.Of(extent.Extent{Offset: 10, Length: 10}, extent.Extent{Offset: 50, Length: 1}, extent.Extent{Offset: 199, Length: 51})
	if got, err := bytesOf(extents, 100, 240); got != 240 || err != nil {
		t.Errorf("got %d, %v", got, err)
	}
	if got, err := bytesOf(extents, 1, 240); got != 52 || err != nil {
		t.Errorf("without widening: got %d, %v", got, err)
	}
}

// TestWriteDataLeavesHolesOut writes pieces with runs of zeros and reads them back through the VHDX reader.
func TestWriteDataLeavesHolesOut(t *testing.T) {
	const size = 8 << 20
	path := filepath.Join(t.TempDir(), "disk.vhdx")
	rapid.Check(t, func(t *rapid.T) {
		file, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		length, err := vhdx.Create(file, vhdx.Options{VirtualSize: size, BlockSize: restoreBlockSize})
		if err != nil {
			t.Fatal(err)
		}
		disk, err := vhdx.OpenWriter(file, length, nil)
		if err != nil {
			t.Fatal(err)
		}
		piece := make([]byte, restorePiece)
		for _, at := range rapid.SliceOfN(rapid.IntRange(0, len(piece)-1), 0, 5).Draw(t, "bytes") {
			piece[at] = 1
		}
		at := rapid.Int64Range(0, size/restorePiece-1).Draw(t, "place") * restorePiece
		if err := writeData(disk, piece, at); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, size)
		if _, err := disk.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		want := make([]byte, size)
		copy(want[at:], piece)
		if !bytes.Equal(got, want) {
			t.Fatal("the disk differs")
		}
		if data, err := extent.Collect(disk.Disk().Data(extent.Extent{Length: size})); err != nil || bytes.Count(piece, []byte{1}) == 0 && len(data) > 0 {
			t.Fatalf("zeros were written: %v, %v", data, err)
		}
	})
}
