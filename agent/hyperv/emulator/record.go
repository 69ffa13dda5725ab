package emulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
)

// vmRecord is what the host knows of a VM besides vm.yaml. It lies in the VM's folder and is replaced as a whole: a rename of it is the
// moment at which an operation has happened.
type vmRecord struct {
	ID              string            `json:"id"`
	Created         time.Time         `json:"created"`
	Settings        wire.Values       `json:"settings,omitempty"` // properties of Msvm_VirtualSystemSettingData that vm.yaml has no field for
	Disks           []*diskRecord     `json:"disks,omitempty"`
	Snapshots       []*snapshotRecord `json:"snapshots,omitempty"` // oldest first, so a parent comes before its children
	Current         string            `json:"current,omitempty"`   // id of the checkpoint that the VM goes on from
	ReferencePoints []*referencePoint `json:"referencePoints,omitempty"`
	Merges          []mergeRecord     `json:"merges,omitempty"`
	// Garbage is files that belong to nothing: of an operation that was not committed, or merged and not deleted yet.
	Garbage []string `json:"garbage,omitempty"`
	// Origin is the id in the file that a planned VM was imported from.
	Origin string `json:"origin,omitempty"`
	// LastBackup is when a recovery checkpoint was last converted.
	LastBackup time.Time `json:"lastBackup,omitzero"`
}

// diskRecord is a disk of vm.yaml by the path that vm.yaml gives it.
type diskRecord struct {
	Path string `json:"path"`
	// Leaf is the file that the guest writes: Path itself, or the newest .avhdx above it.
	Leaf     string          `json:"leaf"`
	DiskID   uuid.UUID       `json:"diskID"`
	Size     int64           `json:"size"`
	Seen     seal            `json:"seen"`
	Tracking *trackingRecord `json:"tracking,omitempty"`
}

// trackingRecord is the change tracking of a disk. Seal n ends epoch n-1 and starts epoch n.
type trackingRecord struct {
	ID      uuid.UUID `json:"id"`
	Enabled bool      `json:"enabled"` // asked for by a client, or by converting a checkpoint
	Epoch   int64     `json:"epoch"`   // the one that is being written
	Oldest  int64     `json:"oldest"`  // the first one that is kept
}

// snapshotRecord is a checkpoint.
type snapshotRecord struct {
	ID          string         `json:"id"`
	Parent      string         `json:"parent,omitempty"` // id of the checkpoint that it follows
	Name        string         `json:"name"`
	Notes       []string       `json:"notes,omitempty"`
	Type        string         `json:"type"` // VirtualSystemType
	Created     time.Time      `json:"created"`
	Consistency int64          `json:"consistency"`
	Config      vmConfig       `json:"config"`
	Disks       []snapshotDisk `json:"disks,omitempty"`
}

// snapshotDisk is a disk that a checkpoint froze.
type snapshotDisk struct {
	Path   string `json:"path"`   // of vm.yaml
	Frozen string `json:"frozen"` // the file with the frozen content
	Seal   int64  `json:"seal,omitempty"`
}

type referencePoint struct {
	ID          string          `json:"id"`
	Consistency int64           `json:"consistency"`
	Created     time.Time       `json:"created"`
	Disks       []referenceDisk `json:"disks"`
}

type referenceDisk struct {
	InstanceID string `json:"instanceID"` // of the VM's storage allocation
	TrackingID string `json:"trackingID"`
}

// mergeRecord is an .avhdx of a removed checkpoint that goes into the file below it.
type mergeRecord struct {
	Disk   string `json:"disk"` // diskRecord.Path
	Child  string `json:"child"`
	Parent string `json:"parent"`
}

// seal tells whether someone else wrote a disk file. Who opens a VHDX for writing gives it a new FileWriteGuid, who changes its data a new
// DataWriteGuid ([MS-VHDX] 2.2.2): when both are new, the data may be another. Ours change one at a time, each recorded before the other.
type seal struct {
	DataWriteID uuid.UUID `json:"dataWriteID"`
	FileWriteID uuid.UUID `json:"fileWriteID"`
	// Bytes and Modified are those of the file when we closed it, zero while we have it open.
	Bytes    int64     `json:"bytes,omitempty"`
	Modified time.Time `json:"modified,omitzero"`
}

func (r *vmRecord) disk(path string) *diskRecord {
	for _, d := range r.Disks {
		if d.Path == path {
			return d
		}
	}
	return nil
}

// diskFiles are the files that the VM writes, or that its checkpoints have frozen.
func (r *vmRecord) diskFiles() []string {
	var out []string
	for _, d := range r.Disks {
		out = append(out, d.Path, d.Leaf)
	}
	for _, s := range r.Snapshots {
		for _, d := range s.Disks {
			out = append(out, d.Frozen)
		}
	}
	return out
}

func (s *snapshotRecord) disk(path string) *snapshotDisk {
	for i := range s.Disks {
		if s.Disks[i].Path == path {
			return &s.Disks[i]
		}
	}
	return nil
}

func readRecord(path string) (*vmRecord, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &vmRecord{}, nil
	}
	if err != nil {
		return nil, err
	}
	r := &vmRecord{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return r, nil
}

func (r *vmRecord) write(path string) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return writeFile(path, text)
}

// writeFile replaces a file so that after a crash it is either the old or the new one. Two writes of one file at a time are the caller's
// mistake.
func writeFile(path string, text []byte) error {
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	temporary := filepath.Join(folder, "."+filepath.Base(path)+".new") // one name, so that kills leave one file at most
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	if err := os.Rename(temporary, path); err != nil {
		return err
	}
	d, err := os.Open(folder)
	if err != nil {
		return err
	}
	_ = d.Sync() // not every file system can
	return d.Close()
}
