package hyperv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
)

// TrackedDisk is what an image recorded about a disk so that the next one can ask what changed since.
type TrackedDisk struct {
	RCTID       string `json:"rctID"`
	DiskID      string `json:"diskID"`
	VirtualSize int64  `json:"virtualSize"`
	// Lineage is empty for an image of an agent that did not record it.
	Lineage Lineage `json:"lineage,omitzero"`
}

// EnableTracking switches change tracking on for a disk file; again does nothing. virtdisk.ErrTrackingUnsupported for a format without it.
func (h *Host) EnableTracking(ctx context.Context, path string) error {
	if err := h.disks.EnableChangeTracking(ctx, path); err != nil {
		return fmt.Errorf("enable change tracking of %s: %w", path, err)
	}
	return nil
}

// Changes streams what the guest changed on a disk between the checkpoint that base describes and the one that d is part of, in whole sectors and
// within the disk. The stream may be read again; each reading asks the host.
//
// A *TrackingLostError, from Changes or from within the stream, means that there is no answer, or none that can be trusted, and the disk has to be read in full.
// Any other error is of a host that cannot be asked, or the context's. An empty stream is an answer: the identity of disk and base, and whether one was built on
// the other, was compared first.
func (h *Host) Changes(ctx context.Context, d FrozenDisk, base TrackedDisk) (extent.Seq, error) {
	err := sameDisk(d, base)
	if err == nil {
		err = h.sameLineage(ctx, d.Lineage, base.Lineage)
	}
	if err != nil {
		return nil, fmt.Errorf("changes of disk %s: %w", d.Key, err)
	}
	// The first page is asked for now, so that an id that the host does not know shows before anything was read.
	first, err := h.changedPage(ctx, d, base.RCTID, 0)
	if err != nil {
		return nil, fmt.Errorf("changes of disk %s: %w", d.Key, err)
	}
	changed := inOrder(first, d.VirtualSize, func(at int64) (page, error) {
		next, err := h.changedPage(ctx, d, base.RCTID, at)
		if err != nil {
			err = fmt.Errorf("changes of disk %s: %w", d.Key, err)
		}
		return next, err
	})
	return inSectors(changed, d.SectorSize, d.VirtualSize), nil
}

// sameDisk compares the identity of a disk with that of its base: a tracking id must never be asked of another disk, or of one that has another size now.
func sameDisk(d FrozenDisk, base TrackedDisk) error {
	lost := func(reason TrackingLostReason, format string, args ...any) error {
		return &TrackingLostError{Reason: reason, Detail: fmt.Sprintf(format, args...)}
	}
	switch {
	case base.RCTID == "":
		return lost(NoTrackingID, "the base has no tracking id of this disk")
	case base.DiskID == "" || !strings.EqualFold(base.DiskID, d.DiskID):
		return lost(DiskReplaced, "its id was %q and is %q", base.DiskID, d.DiskID)
	case base.VirtualSize != d.VirtualSize:
		return lost(DiskResized, "its size was %d bytes and is %d", base.VirtualSize, d.VirtualSize)
	case !d.Tracked:
		return lost(TrackingDisabled, "change tracking is off")
	}
	return nil
}

// page is one answer of the host: what changed, in order, up to end.
type page struct {
	changed extent.List
	end     int64
}

// changedPage asks the host what changed from a place on. Extents come back in order and within what the answer covers, whatever the host said.
func (h *Host) changedPage(ctx context.Context, d FrozenDisk, rctID string, at int64) (page, error) {
	window := extent.Extent{Offset: at, Length: d.VirtualSize - at}
	changed, processed, err := h.disks.Changes(ctx, d.Path, rctID, window)
	if err != nil {
		return page{}, unanswered(ctx, err)
	}
	if processed <= 0 || processed > window.Length {
		return page{}, &TrackingLostError{Reason: TrackingMalformed,
			Detail: fmt.Sprintf("the host covered %d bytes of %s", processed, window)}
	}
	covered := extent.Extent{Offset: at, Length: processed}
	for i, e := range changed {
		changed[i] = e.Clip(covered)
	}
	return page{changed: extent.Normalize(changed), end: covered.End()}, nil
}

// unanswered says what a change query that failed means. Whatever the host's reason, the disk itself can be read still: only of a host that is gone nothing can
// be asked, and a caller that has given up wants no answer.
func unanswered(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil, errors.Is(err, virtdisk.ErrDisconnected):
		return err
	case errors.Is(err, virtdisk.ErrTrackingLost), errors.Is(err, virtdisk.ErrTrackingUnsupported):
		return &TrackingLostError{Reason: TrackingIDUnknown, Detail: err.Error()}
	}
	return &TrackingLostError{Reason: QueryFailed, Detail: err.Error()}
}

// inOrder streams the extents of all pages.
func inOrder(first page, size int64, next func(at int64) (page, error)) extent.Seq {
	return func(yield func(extent.Extent, error) bool) {
		var err error
		for p := first; ; p, err = next(p.end) {
			if err != nil {
				yield(extent.Extent{}, err)
				return
			}
			for _, e := range p.changed {
				if !yield(e, nil) {
					return
				}
			}
			if p.end >= size {
				return
			}
		}
	}
}

// inSectors widens extents to whole sectors within the disk and joins those that then meet.
func inSectors(s extent.Seq, sectorSize, size int64) extent.Seq {
	sectorSize = max(sectorSize, smallestSector)
	return func(yield func(extent.Extent, error) bool) {
		var pending extent.Extent
		for e, err := range s {
			if err != nil {
				yield(extent.Extent{}, err)
				return
			}
			e = e.Align(sectorSize, size)
			if pending.Length > 0 && e.Offset <= pending.End() {
				pending.Length = max(pending.End(), e.End()) - pending.Offset
				continue
			}
			if pending.Length > 0 && !yield(pending, nil) {
				return
			}
			pending = e
		}
		if pending.Length > 0 {
			yield(pending, nil)
		}
	}
}

// smallestSector is the logical sector size of a disk that does not tell its own ([MS-VHDX] 2.6.2.4 allows 512 and 4096).
const smallestSector = 512
