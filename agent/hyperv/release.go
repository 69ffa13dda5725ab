package hyperv

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Release removes a checkpoint of ours; nil when it is gone. Its files are merged in the background: see Released. ErrBusy, ErrNotOurs.
func (h *Host) Release(ctx context.Context, cp Checkpoint) error {
	settings, err := h.checkpointSettings(ctx, cp)
	if errors.Is(err, ErrCheckpointNotFound) {
		return nil
	}
	if err == nil {
		err = h.ours(settings)
	}
	if err == nil {
		_, err = h.callService(ctx, snapshotService, "DestroySnapshot", wmi.Params{"AffectedSnapshot": settings.Path})
	}
	if err == nil || errors.Is(err, wmi.ErrNotFound) || h.gone(ctx, cp) {
		h.forget(cp)
		return nil
	}
	return fmt.Errorf("release checkpoint %s: %w", cp.ID, err)
}

// gone says for certain that a checkpoint does not exist any more: whatever a call on it answered, its effect is there.
func (h *Host) gone(ctx context.Context, cp Checkpoint) bool {
	_, err := h.checkpointSettings(ctx, cp)
	return errors.Is(err, ErrCheckpointNotFound)
}

// ReleaseState is how far the VM is from being without its checkpoint.
type ReleaseState struct {
	// Done says that the VM writes to the files that it had before, and that the checkpoint's are gone.
	Done bool `json:"done"`
	// Message says what is still there. "" when done.
	Message string `json:"message,omitempty"`
}

// Released looks whether nothing of a checkpoint is left: neither itself, nor a merge, nor a disk that is still on the file that the checkpoint made, nor
// such a file beside the VM's disks. It changes nothing and is asked until done. The disks are those that Disks returned. A VM that was deleted is done.
func (h *Host) Released(ctx context.Context, cp Checkpoint, disks []FrozenDisk) (ReleaseState, error) {
	vm, err := h.vm(ctx, cp.VMID)
	if errors.Is(err, ErrVMNotFound) {
		return ReleaseState{Done: true}, nil
	}
	if err != nil {
		return ReleaseState{}, fmt.Errorf("look after checkpoint %s: %w", cp.ID, err)
	}
	for _, node := range vm.Checkpoints {
		if node.ID == cp.ID {
			return pending("the checkpoint exists"), nil
		}
	}
	if vm.Operation == MergingDisks || vm.Operation == DeletingCheckpoint {
		return pending("Hyper-V reports %s", vm.Operation), nil
	}
	for _, f := range disks {
		remains, err := h.remains(ctx, f)
		if err != nil {
			return ReleaseState{}, fmt.Errorf("look after checkpoint %s: %w", cp.ID, err)
		}
		if remains {
			return pending("%s is not merged into %s yet", f.LivePath, f.Path), nil
		}
	}
	for _, d := range vm.Disks {
		if len(vm.Checkpoints) == 0 && strings.HasSuffix(strings.ToLower(d.Path), ".avhdx") && !wasBefore(d, disks) {
			return pending("disk %s is still on %s although the virtual machine has no checkpoint", d.Key, d.Path), nil
		}
	}
	return ReleaseState{Done: true}, nil
}

// remains tells whether the file that the VM wrote since the checkpoint exists.
func (h *Host) remains(ctx context.Context, f FrozenDisk) (bool, error) {
	if f.LivePath == "" {
		return false, nil
	}
	_, err := h.files.Stat(ctx, f.LivePath)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// wasBefore tells whether a disk is on the file that it had when the checkpoint was made.
func wasBefore(d Disk, disks []FrozenDisk) bool {
	return slices.ContainsFunc(disks, func(f FrozenDisk) bool { return strings.EqualFold(f.Path, d.Path) })
}

func pending(format string, args ...any) ReleaseState {
	return ReleaseState{Message: fmt.Sprintf(format, args...)}
}
