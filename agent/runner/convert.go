package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

// convert makes the checkpoint a reference point and records it as the base of the next increment, then drops the one that it supersedes: never the
// other way round, so that a crash in between leaves two and not none. Where it cannot, the older base stays, and the checkpoint is released as it is.
func (r *backupRun) convert(ctx context.Context) error {
	if frozen := r.entry.Checkpoint; frozen == nil || r.published.TaskUID != r.entry.Tag || !r.published.TakenAt.Equal(frozen.Taken) {
		r.report.Warn("BaseNotRecorded", "The image was published by an earlier attempt, whose checkpoint is not this one's, so it is no base; "+
			"the next backup stands on an older one or reads everything.")
		return nil
	}
	point, err := r.host.Convert(ctx, *r.entry.Checkpoint, r.entry.Disks)
	if errors.Is(err, hyperv.ErrReferencePointNotFound) {
		err = errors.Join(err, r.host.DropConverted(ctx, r.vmID(), r.entry.Intent))
	}
	if err != nil {
		return r.withoutBase(ctx, err)
	}
	record := image.BaseRecord{ImageID: r.spec.ImageID, VMID: r.spec.VirtualMachine.ID, ReferencePointID: point.ID}
	for _, disk := range point.Disks {
		record.Disks = append(record.Disks, image.BaseDisk{
			Key: disk.Key, TrackingID: disk.RCTID, VirtualDiskID: disk.DiskID, Size: disk.VirtualSize,
			Files: disk.Lineage.Files, Checkpoints: disk.Lineage.Checkpoints,
		})
	}
	r.nameUntracked(point)
	if err := r.journal.PutReferencePoints(r.place(), append(r.superseded, point.ID)); err != nil {
		return r.withoutBase(ctx, errors.Join(err, r.host.DropReferencePoint(ctx, r.vmID(), point.ID)))
	}
	if err := r.repository.AppendBaseRecord(ctx, record); err != nil {
		if stopping(ctx) {
			return err
		}
		// A reference point that no record names would stay for ever.
		return r.withoutBase(ctx, errors.Join(err, r.host.DropReferencePoint(ctx, r.vmID(), point.ID)))
	}
	r.report.Note("The next increment stands on this image.")
	return r.dropOthers(ctx, point.ID)
}

// nameUntracked names the disks that no increment can be made of (AC-04). Of a virtual machine that cannot have any it is known before.
func (r *backupRun) nameUntracked(point hyperv.ReferencePoint) {
	if !hyperv.Trackable(r.info, r.vm) {
		return
	}
	for _, disk := range r.entry.Disks {
		if !slices.ContainsFunc(point.Disks, func(d hyperv.ReferenceDisk) bool { return d.Key == disk.Key }) {
			r.report.Warn("TrackingUnavailable", "Disk %s will be read in full by the next backup, too: Hyper-V gave it no change tracking id.", disk.Key)
		}
	}
}

// withoutBase goes on after the image could not be made a base.
func (r *backupRun) withoutBase(ctx context.Context, err error) error {
	if stopping(ctx) {
		return err
	}
	r.report.Warn("BaseNotRecorded", "The image is complete, but no base; the next backup stands on an older one or reads everything: %v.", err)
	return nil
}

// dropReferencePoints leaves none of ours on the host: the policy wants no increments (NW-12).
func (r *backupRun) dropReferencePoints(ctx context.Context) error { return r.dropOthers(ctx, "") }

// dropOthers drops the reference points of ours for this virtual machine and repository, but for one. What cannot be dropped now is dropped by the next
// backup.
func (r *backupRun) dropOthers(ctx context.Context, keep string) error {
	var failed []error
	remaining := []string{}
	for _, id := range r.superseded {
		if id == keep {
			continue
		}
		if err := r.host.DropReferencePoint(ctx, r.vmID(), id); err != nil {
			failed, remaining = append(failed, err), append(remaining, id)
		}
	}
	if keep != "" {
		remaining = append(remaining, keep)
	}
	failed = append(failed, r.journal.PutReferencePoints(r.place(), remaining))
	return r.leftBehind(ctx, errors.Join(failed...))
}

// referencePoints lists those of ours that the host has for this virtual machine and repository: what the base records name, and what the journal does,
// for a record goes with its image.
func (r *backupRun) referencePoints(ctx context.Context) ([]string, error) {
	ours, err := r.journal.ReferencePoints(r.place())
	if err != nil {
		return nil, err
	}
	records, err := r.repository.BaseRecords(ctx, r.spec.VirtualMachine.ID)
	if err != nil {
		return ours, err
	}
	for _, record := range records {
		ours = append(ours, record.ReferencePointID)
	}
	present, err := r.host.ReferencePoints(ctx, r.vmID())
	if err != nil {
		return ours, err
	}
	var found []string
	for _, point := range present {
		if slices.Contains(ours, point.ID) {
			found = append(found, point.ID)
		}
	}
	return found, nil
}

// place is what at most one reference point remains for (I4).
func (r *backupRun) place() string { return r.vmID() + "-" + r.repository.UniqueID() }

func (r *backupRun) leftBehind(ctx context.Context, err error) error {
	if err == nil || stopping(ctx) {
		return err
	}
	r.report.Warn("ReferencePointRemains", "A superseded reference point could not be dropped; the next backup tries again: %v.", err)
	return nil
}

func (r *backupRun) vmID() string { return r.spec.VirtualMachine.ID }

// leftOnHost tells apart, for messages, what a virtual machine may still have of ours.
func leftOnHost(err error) string {
	if errors.Is(err, hyperv.ErrBusy) {
		return fmt.Sprintf("Hyper-V is busy with the virtual machine: %v", err)
	}
	return err.Error()
}
