package runner

import (
	"context"
	"errors"
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

// convert makes the checkpoint a reference point and records it as the base of the next increment, then drops the one that it supersedes: never the
// other way round, so that a crash in between leaves two and not none. Where it cannot, the older base stays, and the checkpoint is released as it is.
func (r *backupRun) convert(ctx context.Context) error {
	if r.entry.Checkpoint == nil {
		r.report.Warn("BaseNotRecorded", "The journal of this task is lost, so the image is no base; the next backup stands on an older one or reads everything.")
		return nil
	}
	point, err := r.host.Convert(ctx, *r.entry.Checkpoint, r.entry.Disks)
	if err != nil {
		return r.withoutBase(ctx, err)
	}
	record := image.BaseRecord{ImageID: r.spec.ImageID, VMID: r.spec.VirtualMachine.ID, ReferencePointID: point.ID}
	for _, disk := range point.Disks {
		record.Disks = append(record.Disks, image.BaseDisk{
			Key: disk.Key, TrackingID: disk.RCTID, VirtualDiskID: disk.DiskID, Size: disk.VirtualSize,
		})
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

// dropOthers drops the reference points that the repository's base records name for this virtual machine, but for one. What cannot be dropped now is
// dropped by the next backup.
func (r *backupRun) dropOthers(ctx context.Context, keep string) error {
	records, err := r.repository.BaseRecords(ctx, r.spec.VirtualMachine.ID)
	if err != nil {
		return r.leftBehind(ctx, err)
	}
	present, err := r.host.ReferencePoints(ctx, r.vmID())
	if err != nil {
		return r.leftBehind(ctx, err)
	}
	ours := map[string]bool{}
	for _, record := range records {
		ours[record.ReferencePointID] = record.ReferencePointID != keep
	}
	var failed []error
	for _, point := range present {
		if ours[point.ID] {
			failed = append(failed, r.host.DropReferencePoint(ctx, r.vmID(), point.ID))
		}
	}
	return r.leftBehind(ctx, errors.Join(failed...))
}

func (r *backupRun) leftBehind(ctx context.Context, err error) error {
	if err == nil || stopping(ctx) {
		return err
	}
	r.report.Warn("ReferencePointRemains", "A superseded reference point could not be dropped; the next backup tries again: %v.", err)
	return nil
}

func (r *backupRun) vmID() string { return r.spec.VirtualMachine.ID }

// stopping says that the work is to be left where it stands, for the next session or for another agent.
func stopping(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return errors.Is(cause, errStopping) || errors.Is(cause, ErrClaimLost)
}

// committed returns a context for work that goes on although the task was canceled or is late: what was published is published. It ends only when
// the agent stops or loses its claim.
func committed(ctx context.Context) (context.Context, context.CancelFunc) {
	lasting, end := context.WithCancelCause(context.WithoutCancel(ctx))
	leave := context.AfterFunc(ctx, func() {
		if stopping(ctx) {
			end(context.Cause(ctx))
		}
	})
	return lasting, func() { leave(); end(nil) }
}

// leftOnHost tells apart, for messages, what a virtual machine may still have of ours.
func leftOnHost(err error) string {
	if errors.Is(err, hyperv.ErrBusy) {
		return fmt.Sprintf("Hyper-V is busy with the virtual machine: %v", err)
	}
	return err.Error()
}
