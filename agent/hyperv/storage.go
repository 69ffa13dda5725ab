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
	subTypeFloppy       = "Microsoft:Hyper-V:Virtual Floppy Disk"
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
		if subType := r.text("ResourceSubType"); subType != subTypeImage && subType != subTypeFloppy {
			s.addDisk(r)
		}
		errs.keep(r.err)
	}
	s.numberUnplaced()
	slices.SortFunc(s.disks, func(a, b Disk) int {
		return cmp.Or(strings.Compare(string(a.Controller), string(b.Controller)), cmp.Compare(a.Number, b.Number), cmp.Compare(a.Location, b.Location))
	})
	return s
}

// addDrive places a drive on its controller. DVD and floppy drives never come here. A physical disk that cannot be placed is a disk all the same; the file in
// another drive shows when its turn comes.
func (s *storage) addDrive(r *reader, subType string) {
	parent := place(referenced(r.text("Parent"), "InstanceID"))
	at := slices.IndexFunc(s.controllers, func(c Controller) bool { return c.id == parent })
	disk := Disk{Controller: OtherController}
	if at >= 0 {
		c := s.controllers[at]
		location, err := strconv.Atoi(r.text("AddressOnParent"))
		r.keep(err)
		disk = Disk{Key: DiskKey(c.Type, c.Number, location), Controller: c.Type, Number: c.Number, Location: location}
	}
	switch {
	case subType == subTypePhysicalDisk:
		disk.Kind, disk.Path, disk.instanceID, disk.path = DiskPassThrough, r.hostResource(), r.text("InstanceID"), r.Path
		s.disks = append(s.disks, disk)
	case at >= 0:
		s.drives[strings.ToUpper(r.text("InstanceID"))] = drive{Disk: disk, path: r.Path}
	}
}

// addDisk places a disk file by the drive that it is in. One that cannot be placed is still a disk of the VM: whatever is not backed up has to be named.
func (s *storage) addDisk(r *reader) {
	drive, placed := s.drives[referenced(r.text("Parent"), "InstanceID")]
	disk := drive.Disk
	disk.Path = r.hostResource()
	disk.Kind = diskKind(disk.Path, r.has("PersistentReservationsSupported") && r.flag("PersistentReservationsSupported"))
	disk.instanceID, disk.path = r.text("InstanceID"), r.Path
	if !placed {
		disk.Controller, disk.Kind = OtherController, DiskUnknown
	}
	s.disks = append(s.disks, disk)
}

// numberUnplaced gives the disks on controllers that we do not know their keys, in order of their ids, which a VM and its checkpoints share.
func (s *storage) numberUnplaced() {
	var unplaced []*Disk
	for i := range s.disks {
		if s.disks[i].Controller == OtherController {
			unplaced = append(unplaced, &s.disks[i])
		}
	}
	slices.SortFunc(unplaced, func(a, b *Disk) int { return strings.Compare(place(a.instanceID), place(b.instanceID)) })
	for i, d := range unplaced {
		d.Location, d.Key = i, DiskKey(OtherController, 0, i)
	}
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
