package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/dustin/go-humanize"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// diskPlan is how one disk will be read, and why.
type diskPlan struct {
	disk    hyperv.FrozenDisk
	content *hyperv.OpenDisk
	// increment is nil when everything allocated is read.
	increment *image.Increment
	reason    readReason
	// allocated is what a full read would read, estimate what this one will, in bytes.
	allocated, estimate int64
}

// demote makes the plan a full read.
func (p *diskPlan) demote(why readReason) {
	p.increment, p.estimate, p.reason = nil, p.allocated, why
}

// readReason says why a disk is read as it is. The image keeps it as one text, "Reason: message".
type readReason struct{ reason, message string }

func (r readReason) String() string { return r.reason + ": " + r.message }

// Why a disk is read in full. What change tracking itself has to say comes from hyperv.TrackingLostReason.
var (
	reasonChanged     = readReason{"ChangesKnown", "only what changed since the base image is read"}
	reasonRescan      = readReason{"ForcedRescan", "the run was asked to read everything and set a new baseline"}
	reasonFull        = readReason{"FullRequested", "the run was asked to read everything, and the accelerator is off"}
	reasonNotTracking = readReason{"BlockLevelIncrementalOff", "the policy keeps no reference points"}
	reasonVSS         = readReason{"MethodVSS", "with shadow copies the host does not tell what changed; what the repository has already is not stored again"}
	reasonFirst       = readReason{"FirstBackup", "the repository has no image of this virtual machine that an increment can stand on"}
	reasonNoBase      = readReason{"NoUsableBase", "the host has no reference point any more for any image in the repository"}
	reasonNewDisk     = readReason{"NewDisk", "the base image does not have this disk"}
	reasonDamaged     = readReason{"BaseDamaged", "the image that an increment would stand on is damaged in the repository; what is damaged is stored again"}
)

// decide chooses for each disk between all and only the changes, and estimates what will be read.
func (r *backupRun) decide(ctx context.Context) error {
	base, whyFull, err := r.base(ctx)
	if err != nil {
		return err
	}
	var total, allocated int64
	for _, disk := range r.frozen {
		plan, err := r.planDisk(ctx, disk, base, whyFull)
		if r.repairs(disk.Key) {
			plan.demote(reasonDamaged)
		}
		if plan.content != nil {
			r.plan = append(r.plan, plan) // its files are closed with the run, whatever becomes of it
		}
		if err != nil {
			return err
		}
		total, allocated = total+plan.estimate, allocated+plan.allocated
		r.report.Note("%s: %s.", disk.Key, plan.reason)
		if choice := plan.content.Choice; choice.Reason != hyperv.ChainClean {
			r.report.Note("%s is read by the path %s: %s.", disk.Key, choice.Path, choice.Message)
		}
	}
	r.report.Note("About %s of %s allocated will be read.", humanize.IBytes(uint64(total)), humanize.IBytes(uint64(allocated)))
	return nil
}

// repairs says whether the repository has damaged data of a disk that is to be stored anew.
func (r *backupRun) repairs(key string) bool {
	return r.spec.Repair != nil && slices.Contains(r.spec.Repair.Disks, key)
}

// base finds the image that increments can stand on: the newest published one whose base record still resolves, both in the repository and on the
// host (I3). Without one it says why.
func (r *backupRun) base(ctx context.Context) (*image.BaseRecord, readReason, error) {
	switch accelerated := r.spec.ChangeTracking.Accelerator; {
	case r.method.name == v1alpha1.MethodVSS:
		return nil, reasonVSS, nil
	case !r.tracks():
		return nil, reasonNotTracking, nil
	case r.spec.Type == v1alpha1.RunForcedRescan:
		return nil, reasonRescan, nil
	case r.spec.Type == v1alpha1.RunFull && (accelerated == nil || !*accelerated):
		return nil, reasonFull, nil
	}
	records, err := r.repository.BaseRecords(ctx, r.spec.VirtualMachine.ID)
	if errors.Is(err, image.ErrDamaged) {
		return nil, reasonDamaged, nil // all of kopia's manifests are unreadable until the keeper's next maintenance
	}
	if err != nil {
		return nil, readReason{}, err
	}
	for _, record := range records {
		_, err := r.host.ReferencePoint(ctx, r.vm.ID, record.ReferencePointID)
		if err == nil {
			_, err = r.repository.Image(ctx, record.ImageID)
		}
		switch {
		case err == nil:
			return &record, reasonChanged, nil
		case errors.Is(err, image.ErrDamaged):
			return nil, reasonDamaged, nil
		case errors.Is(err, hyperv.ErrReferencePointNotFound), errors.Is(err, image.ErrImageNotFound):
		default:
			return nil, readReason{}, err
		}
	}
	if len(records) == 0 {
		return nil, reasonFirst, nil
	}
	return nil, reasonNoBase, nil
}

func (r *backupRun) planDisk(ctx context.Context, disk hyperv.FrozenDisk, base *image.BaseRecord, why readReason) (diskPlan, error) {
	content, err := r.host.OpenDisk(ctx, disk)
	if err != nil {
		return diskPlan{}, stall("DiskUnreadable", err)
	}
	plan := diskPlan{disk: disk, content: content, reason: why}
	whole := extent.Extent{Length: content.Size()}
	if plan.allocated, err = extent.Covered(content.Data(whole), 1, whole.Length); err != nil {
		return plan, stall("DiskUnreadable", fmt.Errorf("disk %s: %w", disk.Key, err))
	}
	plan.estimate = plan.allocated
	if base == nil {
		return plan, nil
	}
	return plan, r.planIncrement(ctx, &plan, *base)
}

// planIncrement asks what changed since the base. Whatever cannot be answered with certainty leaves the disk to a full read.
func (r *backupRun) planIncrement(ctx context.Context, plan *diskPlan, base image.BaseRecord) error {
	tracked, found := trackedDisk(base, plan.disk.Key)
	if !found {
		plan.reason = reasonNewDisk
		return nil
	}
	changed, err := r.host.Changes(ctx, plan.disk, tracked)
	var estimate int64
	if err == nil {
		estimate, err = extent.Covered(changed, image.LeafSize, plan.disk.VirtualSize)
	}
	if lost, isLost := errors.AsType[*hyperv.TrackingLostError](err); isLost {
		plan.reason = readReason{string(lost.Reason), lost.Detail}
		return nil
	}
	if err != nil {
		return err
	}
	plan.increment = &image.Increment{BaseImageID: base.ImageID, Changed: changed}
	plan.estimate = estimate
	return nil
}

func trackedDisk(base image.BaseRecord, key string) (hyperv.TrackedDisk, bool) {
	for _, disk := range base.Disks {
		if disk.Key == key {
			return hyperv.TrackedDisk{
				RCTID: disk.TrackingID, DiskID: disk.VirtualDiskID, VirtualSize: disk.Size,
				Lineage: hyperv.Lineage{Files: disk.Files, Checkpoints: disk.Checkpoints},
			}, true
		}
	}
	return hyperv.TrackedDisk{}, false
}
