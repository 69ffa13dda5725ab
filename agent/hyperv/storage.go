package hyperv

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// The sub types of the storage devices (ResourceSubType).
const (
	subTypeVirtualDisk  = "Microsoft:Hyper-V:Virtual Hard Disk"
	subTypeDrive        = "Microsoft:Hyper-V:Synthetic Disk Drive"
	subTypePhysicalDisk = "Microsoft:Hyper-V:Physical Disk Drive"
	subTypeIDE          = "Microsoft:Hyper-V:Emulated IDE Controller"
	subTypeSCSI         = "Microsoft:Hyper-V:Synthetic SCSI Controller"
)

// describeDisks understands the storage devices of a VM or a checkpoint: a controller has drives, and a drive has a disk file, or is a
// physical disk. Disks are in order of their controllers and locations.
func describeDisks(devices func(class string) []wmi.Instance, errs *reader) ([]Controller, []Disk) {
	controllers := describeControllers(devices(classResource), errs)
	drives := map[string]Disk{}
	var disks []Disk
	for _, instance := range devices(classResource) {
		r := &reader{Instance: instance}
		subType := r.text("ResourceSubType")
		if subType != subTypeDrive && subType != subTypePhysicalDisk {
			errs.keep(r.err)
			continue
		}
		drive, ok := driveOn(controllers, r)
		switch {
		case !ok:
		case subType == subTypeDrive:
			drives[strings.ToUpper(r.text("InstanceID"))] = drive
		default:
			drive.Kind, drive.Path = DiskPassThrough, r.first("HostResource")
			disks = append(disks, drive)
		}
		errs.keep(r.err)
	}
	for _, instance := range devices(classAllocation) {
		r := &reader{Instance: instance}
		disk, ok := drives[referenced(r.text("Parent"), "InstanceID")]
		if r.text("ResourceSubType") == subTypeVirtualDisk && ok {
			disk.Path = r.first("HostResource")
			disk.Kind = diskKind(disk.Path, r.flag("PersistentReservationsSupported"))
			disk.instanceID, disk.path = r.text("InstanceID"), r.Path
			disks = append(disks, disk)
		}
		errs.keep(r.err)
	}
	slices.SortFunc(disks, func(a, b Disk) int {
		return cmp.Or(strings.Compare(string(a.Controller), string(b.Controller)), cmp.Compare(a.Number, b.Number), cmp.Compare(a.Location, b.Location))
	})
	return controllers, disks
}

// describeControllers numbers the controllers. IDE controllers have their number as address. SCSI controllers have none, so they are counted
// in order of their ids, which a VM and its checkpoints share.
func describeControllers(resources []wmi.Instance, errs *reader) []Controller {
	var out []Controller
	for _, instance := range resources {
		r := &reader{Instance: instance}
		c := Controller{path: r.Path, id: place(r.text("InstanceID"))}
		switch r.text("ResourceSubType") {
		case subTypeIDE:
			c.Type = IDE
			c.Number, _ = strconv.Atoi(r.text("Address"))
		case subTypeSCSI:
			c.Type = SCSI
		default:
			errs.keep(r.err)
			continue
		}
		errs.keep(r.err)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Controller) int {
		return cmp.Or(strings.Compare(string(a.Type), string(b.Type)), cmp.Compare(a.Number, b.Number), strings.Compare(a.id, b.id))
	})
	next := 0
	for i := range out {
		if out[i].Type == SCSI {
			out[i].Number = next
			next++
		}
	}
	return out
}

// driveOn places a drive on its controller. DVD and floppy drives never come here.
func driveOn(controllers []Controller, drive *reader) (Disk, bool) {
	parent := place(referenced(drive.text("Parent"), "InstanceID"))
	location, err := strconv.Atoi(drive.text("AddressOnParent"))
	drive.keep(err)
	for _, c := range controllers {
		if c.id == parent {
			return Disk{
				Key: DiskKey(c.Type, c.Number, location), Controller: c.Type, Number: c.Number, Location: location,
			}, true
		}
	}
	return Disk{}, false
}
