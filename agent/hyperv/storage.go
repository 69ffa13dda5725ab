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
	subTypeImage        = "Microsoft:Hyper-V:Virtual CD/DVD Disk"
	subTypePhysicalDisk = "Microsoft:Hyper-V:Physical Disk Drive"
	subTypeIDE          = "Microsoft:Hyper-V:Emulated IDE Controller"
	subTypeSCSI         = "Microsoft:Hyper-V:Synthetic SCSI Controller"
)

// storage is the storage devices of a VM or a checkpoint: a controller has drives, and a drive has a disk file, or is a physical disk.
type storage struct {
	controllers []Controller
	// drives are those for disk files, by InstanceID. Of the disk only the place is known.
	drives map[string]drive
	// disks are in order of their controllers and locations.
	disks []Disk
}

type drive struct {
	Disk
	path string
}

// describeStorage understands the storage devices.
func describeStorage(devices func(class string) []wmi.Instance, errs *reader) storage {
	s := storage{controllers: describeControllers(devices(classResource), errs), drives: map[string]drive{}}
	for _, instance := range devices(classResource) {
		r := &reader{Instance: instance}
		subType := r.text("ResourceSubType")
		if subType == subTypeDrive || subType == subTypePhysicalDisk {
			s.addDrive(r, subType)
		}
		errs.keep(r.err)
	}
	for _, instance := range devices(classAllocation) {
		r := &reader{Instance: instance}
		drive, ok := s.drives[referenced(r.text("Parent"), "InstanceID")]
		if r.text("ResourceSubType") == subTypeVirtualDisk && ok {
			disk := drive.Disk
			disk.Path = r.hostResource()
			disk.Kind = diskKind(disk.Path, r.has("PersistentReservationsSupported") && r.flag("PersistentReservationsSupported"))
			disk.instanceID, disk.path = r.text("InstanceID"), r.Path
			s.disks = append(s.disks, disk)
		}
		errs.keep(r.err)
	}
	slices.SortFunc(s.disks, func(a, b Disk) int {
		return cmp.Or(strings.Compare(string(a.Controller), string(b.Controller)), cmp.Compare(a.Number, b.Number), cmp.Compare(a.Location, b.Location))
	})
	return s
}

// addDrive places a drive on its controller. DVD and floppy drives never come here.
func (s *storage) addDrive(r *reader, subType string) {
	parent := place(referenced(r.text("Parent"), "InstanceID"))
	at := slices.IndexFunc(s.controllers, func(c Controller) bool { return c.id == parent })
	if at < 0 {
		return
	}
	c := s.controllers[at]
	location, err := strconv.Atoi(r.text("AddressOnParent"))
	r.keep(err)
	disk := Disk{Key: DiskKey(c.Type, c.Number, location), Controller: c.Type, Number: c.Number, Location: location}
	if subType == subTypePhysicalDisk {
		disk.Kind, disk.Path, disk.instanceID, disk.path = DiskPassThrough, r.hostResource(), r.text("InstanceID"), r.Path
		s.disks = append(s.disks, disk)
		return
	}
	s.drives[strings.ToUpper(r.text("InstanceID"))] = drive{Disk: disk, path: r.Path}
}

// describeControllers numbers the controllers of each type in order of their addresses, and of their ids where they have no address, as SCSI controllers
// need not. A VM and its checkpoints share both.
func describeControllers(resources []wmi.Instance, errs *reader) []Controller {
	var out []Controller
	for _, instance := range resources {
		r := &reader{Instance: instance}
		c := Controller{path: r.Path, id: place(r.text("InstanceID"))}
		c.Number, _ = strconv.Atoi(r.text("Address"))
		switch r.text("ResourceSubType") {
		case subTypeIDE:
			c.Type = IDE
			out = append(out, c)
		case subTypeSCSI:
			c.Type = SCSI
			out = append(out, c)
		}
		errs.keep(r.err)
	}
	slices.SortFunc(out, func(a, b Controller) int {
		return cmp.Or(strings.Compare(string(a.Type), string(b.Type)), cmp.Compare(a.Number, b.Number), strings.Compare(a.id, b.id))
	})
	next := map[ControllerType]int{}
	for i := range out {
		out[i].Number = next[out[i].Type]
		next[out[i].Type]++
	}
	return out
}
