package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/manifest"
)

// BaseRecord says that an increment can stand on an image: on the host, a reference point remembers what changed since it was taken. It
// is appended when that reference point exists, after the image was published. An image without one is complete and restorable, but
// never a base.
type BaseRecord struct {
	ImageID          string     `json:"image"`
	VMID             string     `json:"vm"`
	ReferencePointID string     `json:"referencePoint"`
	RecordedAt       time.Time  `json:"recordedAt"` // set by AppendBaseRecord
	Disks            []BaseDisk `json:"disks"`
}

// BaseDisk is what the change tracking of one disk needs to be asked about.
type BaseDisk struct {
	Key           string `json:"key"`
	TrackingID    string `json:"trackingID"` // the RCT id of the disk at the image
	VirtualDiskID string `json:"virtualDiskID"`
	Size          int64  `json:"size"`
	// Files are what the disk was made of at the image, topmost first, and Checkpoints those of the virtual machine's user between them, by their ids. A disk that
	// goes on from another file is another one now. Records of earlier versions have neither.
	Files       []string `json:"files,omitempty"`
	Checkpoints []string `json:"checkpoints,omitempty"`
}

const (
	baseRecordType  = "hyperkeep-base-record"
	baseRecordVM    = "vm"
	baseRecordImage = "image"
)

// AppendBaseRecord adds a record. It is durable when the call returns. A second call for the same image and reference point does nothing.
func (r *Repository) AppendBaseRecord(ctx context.Context, record BaseRecord) error {
	if record.ImageID == "" || record.VMID == "" || record.ReferencePointID == "" {
		return fmt.Errorf("append base record: %w", errors.New("the image, the VM and the reference point are needed"))
	}
	known, err := r.BaseRecords(ctx, record.VMID)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(known, func(k BaseRecord) bool {
		return k.ImageID == record.ImageID && k.ReferencePointID == record.ReferencePointID
	}) {
		return nil
	}
	record.RecordedAt = r.opts.Now().UTC()
	return r.write(ctx, "append base record", func(ctx context.Context, w repo.RepositoryWriter) error {
		_, err := w.PutManifest(ctx, map[string]string{
			manifest.TypeLabelKey: baseRecordType,
			baseRecordVM:          record.VMID,
			baseRecordImage:       record.ImageID,
		}, record)
		return err
	})
}

// BaseRecords lists the records of a VM, newest first.
func (r *Repository) BaseRecords(ctx context.Context, vmID string) ([]BaseRecord, error) {
	if err := r.refresh(ctx); err != nil {
		return nil, err
	}
	found, err := r.session.FindManifests(ctx, map[string]string{manifest.TypeLabelKey: baseRecordType, baseRecordVM: vmID})
	if err != nil {
		return nil, damaged(err, "list base records")
	}
	var records []BaseRecord
	for _, m := range found {
		var record BaseRecord
		_, err := r.session.GetManifest(ctx, m.ID, &record)
		if errors.Is(err, manifest.ErrNotFound) {
			continue // deleted with its image meanwhile
		}
		if err != nil {
			return nil, damaged(err, "read base record")
		}
		records = append(records, record)
	}
	slices.SortStableFunc(records, func(a, b BaseRecord) int {
		return cmp.Or(b.RecordedAt.Compare(a.RecordedAt), cmp.Compare(b.ImageID, a.ImageID))
	})
	return records, nil
}
