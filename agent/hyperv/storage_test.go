package hyperv

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// EZ-22: a disk is listed wherever it is attached, so that a backup that leaves it out says so. Only DVDs and floppies are no disks.
func TestEveryDiskIsListed(t *testing.T) {
	device := func(id, subType, parent string) wmi.Instance {
		return wmi.Instance{Path: id, Properties: map[string]any{
			"InstanceID": `Microsoft:VM\` + id, "ResourceSubType": subType, "Address": "0", "AddressOnParent": "5", "HostResource": []string{`D:\a.vhdx`},
			"Parent": `\\HV01\root\virtualization\v2:Msvm_ResourceAllocationSettingData.InstanceID="Microsoft:VM\\` + parent + `"`,
		}}
	}
	resources := []wmi.Instance{
		device("scsi", subTypeSCSI, ""), device("memory", "Microsoft:Hyper-V:Persistent Memory Controller", ""),
		device("scsi-drive", subTypeDrive, "scsi"), device("memory-drive", subTypeDrive, "memory"),
	}
	for name, c := range map[string]struct {
		resources, allocations []wmi.Instance
		want                   []string
	}{
		"a file on a SCSI controller":          {nil, []wmi.Instance{device("a", subTypeVirtualDisk, "scsi-drive")}, []string{"SCSI-0-5 VHDX"}},
		"a file on another controller":         {nil, []wmi.Instance{device("a", subTypeVirtualDisk, "memory-drive")}, []string{"Other-0-0 Unknown"}},
		"a file in a drive that is missing":    {nil, []wmi.Instance{device("a", subTypeVirtualDisk, "gone")}, []string{"Other-0-0 Unknown"}},
		"a file of a sub type that is new":     {nil, []wmi.Instance{device("a", "Microsoft:Hyper-V:Crystal Disk", "")}, []string{"Other-0-0 Unknown"}},
		"a physical disk on a SCSI controller": {[]wmi.Instance{device("a", subTypePhysicalDisk, "scsi")}, nil, []string{"SCSI-0-5 PassThrough"}},
		"a physical disk on another one":       {[]wmi.Instance{device("a", subTypePhysicalDisk, "memory")}, nil, []string{"Other-0-0 PassThrough"}},
		"several, in order of their ids": {
			[]wmi.Instance{device("b", subTypePhysicalDisk, "memory")},
			[]wmi.Instance{device("c", subTypeVirtualDisk, "memory-drive"), device("a", subTypeVirtualDisk, "memory-drive")},
			[]string{"Other-0-0 Unknown", "Other-0-1 PassThrough", "Other-0-2 Unknown"},
		},
		"a DVD":    {nil, []wmi.Instance{device("a", subTypeImage, "memory-drive")}, nil},
		"a floppy": {nil, []wmi.Instance{device("a", subTypeFloppy, "gone")}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g, errs := NewWithT(t), &reader{}
			described := describeStorage(func(class string) []wmi.Instance {
				if class == classAllocation {
					return c.allocations
				}
				return append(c.resources, resources...)
			}, errs)
			g.Expect(errs.err).NotTo(HaveOccurred())
			var got []string
			for _, d := range described.disks {
				g.Expect(d.Path).To(Equal(`D:\a.vhdx`))
				got = append(got, fmt.Sprintf("%s %s", d.Key, d.Kind))
			}
			g.Expect(got).To(Equal(c.want))
		})
	}
}
