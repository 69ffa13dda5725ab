package hyperv

import (
	"fmt"
	"slices"
	"strings"
)

// compareDisks brings the concerns up to date that only all VMs together show: a disk id that two disks have, a file copied by hand, by which change
// tracking cannot tell them apart; and a file that two VMs use, whether or not its settings say that it is shared.
func (i *Inventory) compareDisks() {
	ids, files := map[string][]string{}, map[string][]string{}
	for _, vm := range i.VMs {
		for _, d := range vm.Disks {
			place := fmt.Sprintf("%s of %s", d.Key, vm.Name)
			ids[d.DiskID] = append(ids[d.DiskID], place)
			files[strings.ToLower(d.Path)] = append(files[strings.ToLower(d.Path)], place)
		}
	}
	for n := range i.VMs {
		vm := &i.VMs[n]
		kept := slices.DeleteFunc(slices.Clone(vm.Concerns), func(c Concern) bool { return c.Reason == DuplicateDiskID || c.Reason == DiskUsedTwice })
		var found []Concern
		for _, d := range vm.Disks {
			switch {
			case d.Kind == DiskVHDX && len(files[strings.ToLower(d.Path)]) > 1:
				found = append(found, Concern{Reason: DiskUsedTwice, Disk: d.Key, Message: fmt.Sprintf(
					"Disks %s are the same file %s. Detach it from all virtual machines but one, or back it up from within a guest.",
					strings.Join(files[strings.ToLower(d.Path)], ", "), d.Path)})
			case d.DiskID != "" && len(ids[d.DiskID]) > 1:
				found = append(found, Concern{Reason: DuplicateDiskID, Disk: d.Key, Message: fmt.Sprintf(
					"Disks %s have the same disk id. Give one a new id with Set-VHD -ResetDiskIdentifier.", strings.Join(ids[d.DiskID], ", "))})
			}
		}
		vm.Concerns = append(kept, found...)
		if len(vm.Concerns) == 0 {
			vm.Concerns = nil
		}
	}
}
