package hyperv

import (
	"testing"

	. "github.com/onsi/gomega"
)

func TestDisksOfSeveralVMsAreCompared(t *testing.T) {
	disk := func(path, id string, kind DiskKind) []Disk {
		return []Disk{{Key: "SCSI-0-0", Path: path, DiskID: id, Kind: kind}}
	}
	for name, c := range map[string]struct {
		a, b []Disk
		want []ConcernReason
	}{
		"disks of their own":            {disk(`D:\a.vhdx`, "1", DiskVHDX), disk(`D:\b.vhdx`, "2", DiskVHDX), nil},
		"a file copied by hand":         {disk(`D:\a.vhdx`, "1", DiskVHDX), disk(`D:\b.vhdx`, "1", DiskVHDX), []ConcernReason{DuplicateDiskID}},
		"one file":                      {disk(`D:\a.vhdx`, "1", DiskVHDX), disk(`d:\A.vhdx`, "1", DiskVHDX), []ConcernReason{DiskUsedTwice}},
		"one file that is shared":       {disk(`D:\a.vhds`, "", DiskShared), disk(`D:\a.vhds`, "", DiskShared), nil},
		"disks that could not be read":  {disk(`D:\a.vhdx`, "", DiskVHDX), disk(`D:\b.vhdx`, "", DiskVHDX), nil},
		"pass-through disks with no id": {disk("", "", DiskPassThrough), disk("", "", DiskPassThrough), nil},
	} {
		t.Run(name, func(t *testing.T) {
			i := Inventory{VMs: []VM{{ID: "A", Name: "a", Disks: c.a}, {ID: "B", Name: "b", Disks: c.b}}}
			for range 2 { // again, it finds the same and adds nothing
				i.compareDisks()
				for _, vm := range i.VMs {
					var got []ConcernReason
					for _, concern := range vm.Concerns {
						got = append(got, concern.Reason)
					}
					NewWithT(t).Expect(got).To(Equal(c.want), vm.Name)
				}
			}
		})
	}
}
