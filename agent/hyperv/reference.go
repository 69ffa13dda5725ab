package hyperv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// ReferencePoint is the moment that change tracking compares with, for all disks of a VM.
type ReferencePoint struct {
	// ID is the InstanceID. The base record of an image keeps it, because Hyper-V gives a reference point no name or owner.
	ID    string          `json:"id"`
	VMID  string          `json:"vmID"`
	Disks []ReferenceDisk `json:"disks,omitempty"`
}

// ReferenceDisk is one disk of a reference point. A disk without an RCTID is no base for an increment.
type ReferenceDisk struct {
	// Place tells the disk, as FrozenDisk.Place does.
	Place string `json:"place"`
	RCTID string `json:"rctID"`
	// Key, DiskID, VirtualSize and Lineage are those of the frozen disk. Only Convert knows them.
	Key         string  `json:"key,omitempty"`
	DiskID      string  `json:"diskID,omitempty"`
	VirtualSize int64   `json:"virtualSize,omitempty"`
	Lineage     Lineage `json:"lineage,omitzero"`
}

// Tracked is what an image records of the disk.
func (d ReferenceDisk) Tracked() TrackedDisk {
	return TrackedDisk{RCTID: d.RCTID, DiskID: d.DiskID, VirtualSize: d.VirtualSize, Lineage: d.Lineage}
}

// Convert turns a checkpoint into a reference point, which also releases the checkpoint. The disks are those that Disks returned, stored by the caller
// beforehand. A disk that the reference point does not know is left out of the result: it has no base.
//
// When the checkpoint is gone already, Convert returns the reference point that an earlier call made, provided that it can be told with certainty:
// the one that has exactly the tracking ids that the frozen disks had. Else ErrReferencePointNotFound, and the image is no base. A reference point is never
// guessed, because a later one than the image's would make an increment that misses changes. ErrBusy; after any other error the checkpoint may still be there.
func (h *Host) Convert(ctx context.Context, cp Checkpoint, disks []FrozenDisk) (ReferencePoint, error) {
	settings, err := h.checkpointSettings(ctx, cp)
	if errors.Is(err, ErrCheckpointNotFound) {
		return h.converted(ctx, cp, disks)
	}
	if err != nil {
		return ReferencePoint{}, fmt.Errorf("convert checkpoint %s: %w", cp.ID, err)
	}
	if err := h.ours(settings); err != nil {
		return ReferencePoint{}, fmt.Errorf("convert checkpoint %s: %w", cp.ID, err)
	}
	done, err := h.callService(ctx, snapshotService, "ConvertToReferencePoint", wmi.Params{"AffectedSnapshot": settings.Path})
	if err != nil && h.gone(ctx, cp) {
		return h.converted(ctx, cp, disks) // an earlier call's job ended in this moment
	}
	if err != nil {
		return ReferencePoint{}, fmt.Errorf("convert checkpoint %s: %w", cp.ID, err)
	}
	h.forget(cp)
	made, err := h.results(ctx, done, "ResultingReferencePoint", classReferencePoint)
	if err != nil {
		return ReferencePoint{}, fmt.Errorf("convert checkpoint %s: %w", cp.ID, err)
	}
	if len(made) != 1 {
		return h.converted(ctx, cp, disks)
	}
	point, err := referencePoint(made[0])
	return point.describedBy(disks), err
}

const classReferencePoint = "Msvm_VirtualSystemReferencePoint"

// converted finds the reference point that the checkpoint became.
func (h *Host) converted(ctx context.Context, cp Checkpoint, disks []FrozenDisk) (ReferencePoint, error) {
	points, err := h.ReferencePoints(ctx, cp.VMID)
	if err != nil {
		return ReferencePoint{}, err
	}
	var found []ReferencePoint
	for _, point := range points {
		if point.sealed(disks) {
			found = append(found, point)
		}
	}
	if len(found) != 1 {
		return ReferencePoint{}, fmt.Errorf("%w: that checkpoint %s became (%d match)", ErrReferencePointNotFound, cp.ID, len(found))
	}
	return found[0].describedBy(disks), nil
}

// sealed tells whether the reference point has the very tracking ids of the frozen disks.
func (p ReferencePoint) sealed(disks []FrozenDisk) bool {
	matches := 0
	for _, d := range disks {
		if d.RCTID == "" {
			continue
		}
		if mine, found := p.disk(d.Place); !found || mine.RCTID != d.RCTID {
			return false
		}
		matches++
	}
	return matches > 0
}

func (p ReferencePoint) disk(place string) (ReferenceDisk, bool) {
	for _, d := range p.Disks {
		if d.Place == place {
			return d, true
		}
	}
	return ReferenceDisk{}, false
}

// describedBy keeps the disks that the checkpoint had, with what it knew of them.
func (p ReferencePoint) describedBy(frozen []FrozenDisk) ReferencePoint {
	out := ReferencePoint{ID: p.ID, VMID: p.VMID}
	for _, f := range frozen {
		if d, found := p.disk(f.Place); found && d.RCTID != "" {
			d.Key, d.DiskID, d.VirtualSize, d.Lineage = f.Key, f.DiskID, f.VirtualSize, f.Lineage
			out.Disks = append(out.Disks, d)
		}
	}
	return out
}

// ReferencePoints lists all reference points of a VM, other products' among them.
func (h *Host) ReferencePoints(ctx context.Context, vmID string) ([]ReferencePoint, error) {
	found, err := h.virt.Query(ctx, fmt.Sprintf("SELECT * FROM %s WHERE VirtualSystemIdentifier=%s", classReferencePoint, wmi.Quote(strings.ToUpper(vmID))))
	if errors.Is(err, wmi.ErrInvalidClass) {
		return nil, nil // a host before Windows Server 2016
	}
	if err != nil {
		return nil, fmt.Errorf("list the reference points of %s: %w", vmID, err)
	}
	var out []ReferencePoint
	for _, instance := range found {
		point, err := referencePoint(instance)
		if err != nil {
			return nil, fmt.Errorf("list the reference points of %s: %w", vmID, err)
		}
		out = append(out, point)
	}
	return out, nil
}

// ReferencePoint looks one reference point up. ErrReferencePointNotFound: it may vanish at any time, and then the next backup reads everything.
func (h *Host) ReferencePoint(ctx context.Context, vmID, id string) (ReferencePoint, error) {
	instance, err := h.referencePointInstance(ctx, vmID, id)
	if err != nil {
		return ReferencePoint{}, fmt.Errorf("look up reference point %s: %w", id, err)
	}
	return referencePoint(instance)
}

// DropReferencePoint destroys a reference point. The caller names one of its own; one that is gone is dropped. ErrBusy.
func (h *Host) DropReferencePoint(ctx context.Context, vmID, id string) error {
	instance, err := h.referencePointInstance(ctx, vmID, id)
	if errors.Is(err, ErrReferencePointNotFound) {
		return nil
	}
	if err == nil {
		_, err = h.callService(ctx, referencePointService, "DestroyReferencePoint", wmi.Params{"AffectedReferencePoint": instance.Path})
	}
	if errors.Is(err, wmi.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("drop reference point %s: %w", id, err)
	}
	return nil
}

// DropConverted drops what a checkpoint became that Convert can tell no more: the disks had no tracking ids when they were frozen, because tracking began with the
// conversion, and nobody heard its answer. It is the only reference point that is new since the intent. That is enough to remove it, and too little to be a base.
// Nothing happens when there is none, or more than one. ErrBusy.
func (h *Host) DropConverted(ctx context.Context, vmID string, intent Intent) error {
	if intent.ReferencePoints == nil {
		return nil
	}
	points, err := h.ReferencePoints(ctx, vmID)
	if err != nil {
		return err
	}
	added := slices.DeleteFunc(points, func(p ReferencePoint) bool { return slices.Contains(intent.ReferencePoints, p.ID) })
	if len(added) != 1 {
		return nil
	}
	return h.DropReferencePoint(ctx, vmID, added[0].ID)
}

func (h *Host) referencePointInstance(ctx context.Context, vmID, id string) (wmi.Instance, error) {
	instance, found, err := h.one(ctx, fmt.Sprintf("SELECT * FROM %s WHERE InstanceID=%s AND VirtualSystemIdentifier=%s",
		classReferencePoint, wmi.Quote(id), wmi.Quote(strings.ToUpper(vmID))))
	if err == nil && !found {
		err = ErrReferencePointNotFound
	}
	return instance, err
}

// referencePoint pairs the two parallel arrays. Where they differ in length nobody can tell which disk an id belongs to, so there is none.
func referencePoint(instance wmi.Instance) (ReferencePoint, error) {
	r := &reader{Instance: instance}
	point := ReferencePoint{ID: r.text("InstanceID"), VMID: strings.ToUpper(r.text("VirtualSystemIdentifier"))}
	disks, ids := r.texts("VirtualDiskIdentifiers"), r.texts("ResilientChangeTrackingIdentifiers")
	if len(disks) == len(ids) {
		for i := range disks {
			point.Disks = append(point.Disks, ReferenceDisk{Place: place(disks[i]), RCTID: ids[i]})
		}
	}
	return point, r.err
}
