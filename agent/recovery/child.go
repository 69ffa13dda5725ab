package recovery

import (
	"context"
	"errors"
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// Child is a differencing disk that is written above one that stays as it is.
type Child struct{ *vhdx.Writer }

// Data streams what the child and the disk beneath it may hold.
func (c Child) Data(window extent.Extent) extent.Seq { return c.Disk().Data(window) }

// OpenChild opens the child in a file of size bytes, or makes it when the file has none that fits the disk beneath. name is that of the disk's file in the same
// folder.
func OpenChild(file vhdx.Storage, size int64, beneath *vhdx.Disk, name string) (Child, error) {
	if size > 0 {
		disk, err := vhdx.OpenWriter(file, size, beneath)
		if err == nil {
			return Child{disk}, nil
		}
		if !errors.Is(err, vhdx.ErrCorrupt) && !errors.Is(err, vhdx.ErrParentMismatch) {
			return Child{}, err
		}
	}
	top := beneath.Members()[0]
	size, err := vhdx.Create(file, vhdx.Options{
		VirtualSize: top.VirtualSize(), LogicalSectorSize: top.LogicalSectorSize(), PhysicalSectorSize: top.Info().PhysicalSectorSize,
		VirtualDiskID: top.Info().VirtualDiskID, Parent: parentRef(top, name),
	})
	if err != nil {
		return Child{}, err
	}
	disk, err := vhdx.OpenWriter(file, size, beneath)
	return Child{disk}, err
}

func parentRef(parent *vhdx.File, name string) *vhdx.ParentRef {
	return &vhdx.ParentRef{DataWriteID: parent.DataWriteID(), RelativePath: `.\` + name}
}

// Merge moves what a child holds into the disk beneath it, which has no other child. Until it returns nil the child is the disk, and after that either is. It may
// be called again, whatever happened to an earlier call.
func Merge(ctx context.Context, child vhdx.Storage, childSize int64, parent vhdx.Storage, parentSize int64, name string) error {
	into, err := vhdx.OpenWriter(parent, parentSize, nil)
	if err != nil {
		return fmt.Errorf("open the disk beneath: %w", err)
	}
	beneath, err := vhdx.NewDisk(into.File())
	if err != nil {
		return err
	}
	from, err := vhdx.OpenWriter(child, childSize, beneath)
	if err != nil {
		return err
	}
	// From here on the child opens on the parent before and after it was merged.
	ref := parentRef(into.File(), name)
	ref.MergedID = from.File().DataWriteID()
	if err := from.SetParent(*ref); err != nil {
		return err
	}
	for at := int64(0); at < from.Size(); at += window {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		part := extent.Extent{Offset: at, Length: window}.Clip(extent.Extent{Length: from.Size()})
		if err := vhdx.MergeRange(from.File(), into, part); err != nil {
			return err
		}
	}
	if err := into.Sync(); err != nil {
		return err
	}
	if err := into.FinishMerge(from.File()); err != nil {
		return err
	}
	return errors.Join(from.Close(), into.Close())
}
