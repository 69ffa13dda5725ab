package runner

import (
	"slices"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/image"
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
