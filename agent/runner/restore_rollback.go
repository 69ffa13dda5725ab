package runner

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/recovery"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// A rollback writes what differs into a differencing disk above the original's, gives the original that disk, and then merges the two. The original's disks
// are as they were until the restore has succeeded, and from then on what the machine has reads as the image, whatever happens to the merge.

// planRollBack decides which disks are rolled back: those whose file stands alone and has the size of the image's. Others are written anew.
func (r *restoreRun) planRollBack(ctx context.Context) error {
	made := r.entry.Restore
	made.NotImported = "only what differs is written"
	vm, err := r.host.VM(ctx, r.entry.VirtualMachineID)
	if err != nil {
		return err
	}
	made.Beneath = make([]string, len(r.records))
	var disks []hyperv.TargetDisk
	for i, record := range r.records {
		disks = append(disks, hyperv.TargetDisk{Key: record.Key, Path: made.Files[i]})
		present, found := vm.Disk(record.Key)
		if !found || present.Kind != hyperv.DiskVHDX || present.VirtualSize != record.Size || present.SectorSize != int64(record.LogicalSectorSize) {
			r.report.Warn("DiskWrittenAnew", "Disk %s is written anew, because the virtual machine has no disk of the same size there.", record.Key)
			continue
		}
		made.Beneath[i] = present.Path
	}
	plan, err := r.host.PlanReplacement(ctx, vm.ID, disks, r.settings())
	if err != nil {
		return err
	}
	made.Replacement = &plan
	return nil
}

// rollsBack says whether a disk is rolled back, and not written anew.
func (r *restoreRun) rollsBack(i int) bool {
	beneath := r.entry.Restore.Beneath
	return beneath != nil && beneath[i] != ""
}

// writeRollBack turns the original off, because its disks must not change while they are compared, and writes what differs.
func (r *restoreRun) writeRollBack(ctx context.Context) error {
	made := r.entry.Restore
	if err := r.host.TurnOff(ctx, r.entry.VirtualMachineID); err != nil {
		return err
	}
	var total int64
	for i := range r.disks {
		total += r.disks[i].record.Size
	}
	stop := r.report.Progress(ctx, func() (int64, int64, int64) { return total, r.compared.Load(), 0 })
	defer stop()
	for i := range r.disks {
		if !r.rollsBack(i) {
			if err := r.disks[i].write(ctx, r.files, nil, &r.written, nil); err != nil {
				return err
			}
			r.compared.Add(r.disks[i].record.Size)
			continue
		}
		if err := r.rewrite(ctx, r.disks[i], made.Beneath[i]); err != nil {
			return fmt.Errorf("roll %s back: %w", made.Beneath[i], err)
		}
	}
	r.report.Note("Compared %d bytes, %d of them differ.", r.compared.Load(), r.written.Load())
	made.Written = true
	return r.journal.Put(r.entry)
}

// rewrite compares one disk with the image, and writes what differs above it. What a run that was killed wrote is compared, too.
func (r *restoreRun) rewrite(ctx context.Context, disk restoredDisk, beneath string) (err error) {
	base, err := openBase(ctx, r.files, beneath)
	if err != nil {
		return err
	}
	defer base.close()
	file, err := r.files.OpenWrite(ctx, disk.path)
	if err != nil {
		if file, err = r.files.Create(ctx, disk.path); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	size, err := file.Size()
	if err != nil {
		return err
	}
	child, err := recovery.OpenChild(file, size, base.disk, baseName(beneath))
	if err != nil {
		return err
	}
	job := recovery.Rollback{Source: disk.source, Target: child}
	err = job.Run(ctx)
	r.compared.Add(job.Compared.Load())
	r.written.Add(job.Rewritten.Load())
	return errors.Join(err, child.Close())
}

// rollBack gives the original the disks with what differs. Whoever was told what changed since some moment would not be told of this, so no such moment
// remains: the next backup reads everything.
func (r *restoreRun) rollBack(ctx context.Context) error {
	made := r.entry.Restore
	for i := range r.disks {
		if !r.rollsBack(i) {
			continue
		}
		if err := r.unchanged(ctx, made.Files[i], made.Beneath[i]); err != nil {
			return retry(v1alpha1.ReasonFailed, fmt.Errorf("disk %s changed while it was compared: is somebody starting the virtual machine? %w", r.disks[i].record.Key, err))
		}
	}
	points, err := r.host.ReferencePoints(ctx, r.entry.VirtualMachineID)
	if err != nil {
		return err
	}
	for _, point := range points {
		if err := r.host.DropReferencePoint(ctx, r.entry.VirtualMachineID, point.ID); err != nil {
			return err
		}
	}
	if err := r.host.Replace(ctx, *made.Replacement); err != nil {
		return err
	}
	vm, err := r.host.VM(ctx, made.Replacement.VMID)
	if err != nil {
		return err
	}
	return r.succeeded(&hyperv.Restored{VM: vm}, v1alpha1.RestoreRollBack)
}

// unchanged is an error when the disk is not any more what the file above it was made for.
func (r *restoreRun) unchanged(ctx context.Context, path, beneath string) error {
	base, err := openBase(ctx, r.files, beneath)
	if err != nil {
		return err
	}
	defer base.close()
	above, err := openBase(ctx, r.files, path, base.disk.Members()...)
	if err != nil {
		return err
	}
	above.close()
	return nil
}

// finishRollBack merges what differed into the original's disks. It may be called again after a crash. A machine that runs is left alone.
func (r *restore) finishRollBack(ctx context.Context, made *RestoreEntry) error {
	vm, err := r.host.VM(ctx, made.Replacement.VMID)
	if err != nil {
		return err
	}
	alone := *made.Replacement
	alone.Disks = nil
	for i, disk := range made.Replacement.Disks {
		if made.Beneath[i] == "" {
			alone.Disks = append(alone.Disks, disk)
			continue
		}
		if err := r.finishDisk(ctx, vm, *made.Replacement, disk); err != nil {
			return err
		}
	}
	if len(alone.Disks) == 0 {
		return nil
	}
	return r.host.FinishReplacement(ctx, alone)
}

// finishDisk merges one disk, gives it to the machine, and deletes the file that was above it. Whatever a person has made of the machine meanwhile stays.
func (r *restore) finishDisk(ctx context.Context, vm hyperv.VM, plan hyperv.Replacement, disk hyperv.ReplacedDisk) error {
	present, _ := vm.Disk(disk.Key)
	switch {
	case strings.EqualFold(present.Path, disk.New) && vm.State != hyperv.Off:
		return fmt.Errorf("%s is %s: its disks can be merged when it is off", vm.Name, vm.State)
	case strings.EqualFold(present.Path, disk.New):
		if err := r.merge(ctx, disk.New, disk.Old); err != nil {
			return fmt.Errorf("merge %s: %w", disk.New, err)
		}
		plan.Disks, plan.After = []hyperv.ReplacedDisk{disk}, nil
		if err := r.host.RollBackReplacement(ctx, plan); err != nil { // to the file that was merged into
			return err
		}
	case !r.merged(ctx, disk.New, disk.Old):
		return nil
	}
	return r.files.Remove(ctx, disk.New)
}

// merged says whether an earlier call has merged a file into the one beneath it: then that has taken its identity.
func (r *restore) merged(ctx context.Context, path, into string) bool {
	var ids [2]uuid.UUID
	for i, name := range []string{path, into} {
		file, err := r.files.Open(ctx, name)
		if err != nil {
			return false
		}
		size, err := file.Size()
		if err == nil {
			var member *vhdx.File
			if member, err = vhdx.Open(file, size); err == nil {
				ids[i] = member.DataWriteID()
			}
		}
		if errors.Join(err, file.Close()) != nil {
			return false
		}
	}
	return ids[0] == ids[1]
}

func (r *restore) merge(ctx context.Context, path, into string) (err error) {
	child, err := r.files.OpenWrite(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, child.Close()) }()
	parent, err := r.files.OpenWrite(ctx, into)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, parent.Close()) }()
	childSize, err := child.Size()
	if err != nil {
		return err
	}
	parentSize, err := parent.Size()
	if err != nil {
		return err
	}
	return recovery.Merge(ctx, child, childSize, parent, parentSize, baseName(into))
}

// paths are the disks that the machine has when all is done.
func (e *RestoreEntry) paths() []string {
	out := append([]string(nil), e.Files...)
	for i, beneath := range e.Beneath {
		if beneath != "" {
			out[i] = beneath
		}
	}
	return out
}

// base is a disk file that is open for reading.
type base struct {
	file hostfs.File
	disk *vhdx.Disk
}

// openBase opens a disk file above others.
func openBase(ctx context.Context, files hostfs.FS, path string, beneath ...*vhdx.File) (*base, error) {
	file, err := files.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	size, err := file.Size()
	if err == nil {
		var member *vhdx.File
		if member, err = vhdx.Open(file, size); err == nil {
			var disk *vhdx.Disk
			if disk, err = vhdx.NewDisk(append([]*vhdx.File{member}, beneath...)...); err == nil {
				return &base{file: file, disk: disk}, nil
			}
		}
	}
	return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), file.Close())
}

func (b *base) close() { _ = b.file.Close() } // read only
