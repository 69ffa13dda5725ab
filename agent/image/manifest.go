package image

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// formatVersion is the version of the image format that this package writes. A reader refuses a higher one: additions that an older
// reader may ignore do not raise it.
const formatVersion = 1

// Manifest describes an image. It is stored in the image as manifest.json and holds no secret. Times are in UTC, sizes in bytes.
type Manifest struct {
	Version  int       `json:"version"`
	Tool     string    `json:"tool"`
	ID       string    `json:"id"`
	TaskUID  string    `json:"task"`
	Policy   string    `json:"policy,omitempty"`
	VM       VM        `json:"vm"`
	TakenAt  time.Time `json:"takenAt"`  // when the checkpoint was taken, by the host's clock
	StoredAt time.Time `json:"storedAt"` // when the manifest was written

	Consistency string            `json:"consistency,omitempty"` // what was reached: ApplicationConsistent, CrashConsistent, Offline
	Method      string            `json:"method,omitempty"`      // how the disk was frozen and changes were found
	Annotations map[string]string `json:"annotations,omitempty"` // what the caller wants to find again; the image does not interpret it

	Disks    []DiskRecord   `json:"disks"`
	Files    []FileRecord   `json:"files,omitempty"`
	Excluded []ExcludedDisk `json:"excluded,omitempty"`
	Warnings []string       `json:"warnings,omitempty"`

	// StoredBytes is what the storage took for this image, compressed and encrypted, without this manifest and the index.
	StoredBytes int64 `json:"storedBytes"`
	// Zeros are the objects that consist of zeros: a reader need not fetch them.
	Zeros []ZeroObject `json:"zeros,omitempty"`

	// Digest is the SHA-256 of manifest.json in hexadecimal. The manifest names every disk and file by the keyed hash of its content, so
	// that whoever remembers the digest can tell whether the image is still the same.
	Digest string `json:"-"`
}

// VM is the virtual machine that an image was taken of.
type VM struct {
	ID   string `json:"id"` // the id that Hyper-V gave
	Name string `json:"name"`
	Host string `json:"host,omitempty"` // where it ran
}

// DiskType says how a disk was read. Every image is complete and restorable by itself, whatever the type.
type DiskType string

const (
	// Full means that everything allocated was read.
	Full DiskType = "Full"
	// Incremental means that only what changed since the base image was read.
	Incremental DiskType = "Incremental"
)

// DiskRecord is one disk of an image and how it came to be.
type DiskRecord struct {
	Key           string `json:"key"` // identifies the disk within the VM, from image to image
	Name          string `json:"name"`
	VirtualDiskID string `json:"virtualDiskID,omitempty"` // [MS-VHDX] 2.6.2.6: survives renaming, changes when the disk is replaced
	SourcePath    string `json:"sourcePath,omitempty"`
	File          string `json:"file"` // where stock kopia shows it
	Root          string `json:"root"` // kopia's object id: a keyed hash over the whole content

	Size               int64 `json:"size"`
	LogicalSectorSize  int   `json:"logicalSectorSize,omitempty"`
	PhysicalSectorSize int   `json:"physicalSectorSize,omitempty"`
	LeafSize           int64 `json:"leafSize"`
	SegmentSize        int64 `json:"segmentSize"`

	Type   DiskType `json:"type"`
	Reason string   `json:"reason,omitempty"` // why this type and no other
	Base   *Base    `json:"base,omitempty"`   // of an incremental disk

	ReadPath string `json:"readPath,omitempty"` // how the source was reached, and why so; not interpreted

	// ChangedBytes is what the caller named as changed, or the allocated bytes of a full disk.
	ChangedBytes int64 `json:"changedBytes"`
	ReadBytes    int64 `json:"readBytes"`
	// New, Linked and Zero together are the size of the disk: leaves that were written, that were taken over from the base without
	// being read, and that are empty although they were looked at.
	New    Share `json:"new"`
	Linked Share `json:"linked"`
	Zero   Share `json:"zero"`
}

// Base names the disk that an incremental disk links to.
type Base struct {
	ImageID string `json:"image"`
	Digest  string `json:"digest"`
	Root    string `json:"root"`
}

// Share is a part of a disk, in leaves: whole ones, and what they were split into.
type Share struct {
	Leaves int64 `json:"leaves"`
	Bytes  int64 `json:"bytes"`
}

// FileRecord is a configuration file of the VM.
type FileRecord struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	Object string `json:"object"`
}

// ExcludedDisk is a disk that the image leaves out, and why.
type ExcludedDisk struct {
	Key    string `json:"key"`
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

// ZeroObject is an object that consists of so many zeros.
type ZeroObject struct {
	Length int64  `json:"length"`
	Object string `json:"object"`
}

// ProtectedBytes is the sum of the sizes of the disks.
func (m Manifest) ProtectedBytes() int64 {
	var n int64
	for _, d := range m.Disks {
		n += d.Size
	}
	return n
}

// ReadBytes is what was read from the disks to make the image.
func (m Manifest) ReadBytes() int64 {
	var n int64
	for _, d := range m.Disks {
		n += d.ReadBytes
	}
	return n
}

// disk finds a disk by its key.
func (m Manifest) disk(key string) (DiskRecord, bool) {
	for _, d := range m.Disks {
		if d.Key == key {
			return d, true
		}
	}
	return DiskRecord{}, false
}

func digestOf(document []byte) string {
	sum := sha256.Sum256(document)
	return hex.EncodeToString(sum[:])
}
