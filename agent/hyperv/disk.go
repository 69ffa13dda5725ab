package hyperv

import (
	"fmt"
	"strconv"
	"strings"
)

// ControllerType is the kind of controller that a disk hangs on.
type ControllerType string

// The controller types.
const (
	IDE  ControllerType = "IDE"
	SCSI ControllerType = "SCSI"
	// OtherController is any that we do not know, such as the one for persistent memory. What is on it is not backed up. It has the number 0, and the disks
	// on it are counted instead of having locations.
	OtherController ControllerType = "Other"
)

// Controller is one disk controller of a VM.
type Controller struct {
	Type ControllerType `json:"type"`
	// Number counts the controllers of one type from 0.
	Number int `json:"number"`

	id   string // the stable part of the InstanceID, which a VM and its checkpoints share
	path string
}

// DiskKind says what a disk is, and with it whether a checkpoint can hold it.
type DiskKind string

// The kinds of disks.
const (
	DiskVHDX DiskKind = "VHDX"
	// DiskVHD is the old format: it has no change tracking and we do not read it.
	DiskVHD DiskKind = "VHD"
	// DiskPassThrough is a disk of the host or of a storage system that the guest uses directly.
	DiskPassThrough DiskKind = "PassThrough"
	// DiskShared is used by several VMs at once: a shared VHDX or a VHD set.
	DiskShared DiskKind = "Shared"
	// DiskRemote is on a file server.
	DiskRemote DiskKind = "Remote"
	// DiskUnknown is a file with another ending, or any file on a controller that we do not know.
	DiskUnknown DiskKind = "Unknown"
)

// Disk is one hard disk of a VM.
type Disk struct {
	// Key is the place where the disk is attached, like "SCSI-0-1". It is the same in the VM and in its checkpoints.
	Key        string         `json:"key"`
	Controller ControllerType `json:"controller"`
	Number     int            `json:"number"`
	Location   int            `json:"location"`
	// Path is the file that the VM writes, or the physical disk.
	Path string   `json:"path,omitempty"`
	Kind DiskKind `json:"kind"`
	// What the host says about the file; zero when it could not be opened, which Problem explains.
	VirtualSize     int64  `json:"virtualSize,omitempty"`
	FileSize        int64  `json:"fileSize,omitempty"`
	SectorSize      int64  `json:"sectorSize,omitempty"`
	DiskID          string `json:"diskID,omitempty"`
	TrackingEnabled bool   `json:"trackingEnabled,omitempty"`
	Problem         string `json:"problem,omitempty"`

	instanceID string // of the allocation, which reference points name
	path       string // of the allocation, or of the drive of a physical disk
	parent     string // of a differencing disk's file, as the host resolves it
}

// DiskKey names the place of a disk: "SCSI-0-1" is location 1 of the first SCSI controller.
func DiskKey(c ControllerType, number, location int) string {
	return fmt.Sprintf("%s-%d-%d", c, number, location)
}

// parseDiskKey is the reverse of DiskKey.
func parseDiskKey(key string) (c ControllerType, number, location int, err error) {
	parts := strings.Split(key, "-")
	if len(parts) != 3 || (parts[0] != string(IDE) && parts[0] != string(SCSI)) {
		return "", 0, 0, fmt.Errorf("%w: %q is no place of a disk", ErrDiskMismatch, key)
	}
	number, err = strconv.Atoi(parts[1])
	if err == nil {
		location, err = strconv.Atoi(parts[2])
	}
	if err != nil {
		return "", 0, 0, fmt.Errorf("%w: %q is no place of a disk", ErrDiskMismatch, key)
	}
	return ControllerType(parts[0]), number, location, nil
}

// diskKind tells the kind of a virtual disk from its path. Whether it is shared shows in its settings, too.
func diskKind(path string, shared bool) DiskKind {
	ending := strings.ToLower(path[strings.LastIndexByte(path, '.')+1:])
	switch {
	case shared, ending == "vhds":
		return DiskShared
	case strings.HasPrefix(path, `\\`):
		return DiskRemote
	case ending == "vhdx", ending == "avhdx":
		return DiskVHDX
	case ending == "vhd", ending == "avhd":
		return DiskVHD
	}
	return DiskUnknown
}

// place is the part of a device's InstanceID behind the settings object that it belongs to (`Microsoft:<GUID>\<controller>\0\1\L`), which is the
// same in a VM and in its checkpoints. Upper case.
func place(instanceID string) string {
	_, rest, _ := strings.Cut(instanceID, `\`)
	return strings.ToUpper(rest)
}

// owner is the InstanceID of the settings object that a device belongs to. Upper case.
func owner(instanceID string) string {
	first, _, _ := strings.Cut(instanceID, `\`)
	return strings.ToUpper(first)
}
