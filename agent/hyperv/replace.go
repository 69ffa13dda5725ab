package hyperv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Replacement is an in-place restore: which files of a VM give way to which. It is a plain value that the caller stores before Replace, so that a
// restart can finish it or take it back.
type Replacement struct {
	VMID  string         `json:"vmID"`
	Disks []ReplacedDisk `json:"disks"`
	// Before is the VM as it was. After, when set, has the memory and the processors that it gets.
	Before Definition  `json:"before"`
	After  *Definition `json:"after,omitempty"`
}

// ReplacedDisk is one place. The old file stays where it is until FinishReplacement.
type ReplacedDisk struct {
	Key string `json:"key"`
	// Old is "" where the VM had no disk.
	Old string `json:"old,omitempty"`
	New string `json:"new"`
}

// PlanReplacement looks at a VM whose disks are to be replaced by restored files. It changes nothing. With settings, memory and processors are
// replaced as well. ErrVMNotFound, ErrUserCheckpoints (the checkpoints' files build on the disks), ErrBusy, ErrForeignCheckpoint, ErrDiskMismatch (a place has
// something other than a .vhdx file).
func (h *Host) PlanReplacement(ctx context.Context, vmID string, disks []TargetDisk, settings *Definition) (Replacement, error) {
	vm, err := h.vm(ctx, vmID)
	if err == nil {
		err = replaceable(vm)
	}
	if err != nil {
		return Replacement{}, fmt.Errorf("plan the restore of %s: %w", vmID, err)
	}
	r := Replacement{VMID: vm.ID, Before: vm.Definition(), After: settings}
	for _, d := range disks {
		old, found := vm.Disk(d.Key)
		if strings.EqualFold(old.Path, d.Path) {
			return Replacement{}, fmt.Errorf("plan the restore of %s: %w: %s has the restored file already", vm.Name, ErrDiskMismatch, d.Key)
		}
		if found && old.Kind != DiskVHDX {
			return Replacement{}, fmt.Errorf("plan the restore of %s: %w: %s is a %s disk", vm.Name, ErrDiskMismatch, d.Key, old.Kind)
		}
		r.Disks = append(r.Disks, ReplacedDisk{Key: d.Key, Old: old.Path, New: d.Path})
	}
	return r, nil
}

func replaceable(vm VM) error {
	if err := unattended(vm); err != nil {
		return err
	}
	if len(vm.Checkpoints) > 0 {
		return fmt.Errorf("%w: remove them first, or restore to a new virtual machine", ErrUserCheckpoints)
	}
	return nil
}

// Replace turns the VM off and attaches the new files in place of the old ones, which stay where they are. Called again it completes what is
// missing. ErrDiskMismatch when a place has neither the old file nor the new one.
func (h *Host) Replace(ctx context.Context, r Replacement) error {
	vm, err := h.vm(ctx, r.VMID)
	if err == nil {
		err = replaceable(vm)
	}
	if err == nil {
		err = h.TurnOff(ctx, r.VMID)
	}
	if err == nil && r.After != nil {
		err = h.ensureControllers(ctx, vm.settingsPath, r.After.Controllers)
	}
	for _, d := range r.Disks {
		if err == nil {
			err = h.swap(ctx, vm, d.Key, d.Old, d.New)
		}
	}
	if err == nil && r.After != nil {
		err = h.applyProcessing(ctx, vm.settingsPath, *r.After)
	}
	if err != nil {
		return fmt.Errorf("replace the disks of %s: %w", r.VMID, err)
	}
	return nil
}

// RollBackReplacement gives the VM its old files back where it has new ones, and turns it off only for that: a place that a person has changed meanwhile is
// left alone, and so is a VM that has none of the new files, or is gone. The new files stay. Called again it completes what is missing. It cannot
// follow FinishReplacement.
func (h *Host) RollBackReplacement(ctx context.Context, r Replacement) error {
	vm, err := h.vm(ctx, r.VMID)
	if errors.Is(err, ErrVMNotFound) {
		return nil
	}
	replaced := replacedDisks(vm, r)
	if err == nil && len(replaced) == 0 {
		return nil
	}
	if err == nil {
		err = h.TurnOff(ctx, r.VMID)
	}
	if err == nil && r.After != nil {
		err = h.applyProcessing(ctx, vm.settingsPath, r.Before)
	}
	for _, d := range replaced {
		if err == nil {
			err = h.swap(ctx, vm, d.Key, d.New, d.Old)
		}
	}
	if err != nil {
		return fmt.Errorf("take back the restore of %s: %w", r.VMID, err)
	}
	return nil
}

// replacedDisks are the places at which the VM has a new file.
func replacedDisks(vm VM, r Replacement) []ReplacedDisk {
	var out []ReplacedDisk
	for _, d := range r.Disks {
		if present, found := vm.Disk(d.Key); found && strings.EqualFold(present.Path, d.New) {
			out = append(out, d)
		}
	}
	return out
}

// swap makes a place of the VM have one file instead of another. "" is no file.
func (h *Host) swap(ctx context.Context, vm VM, key, from, to string) error {
	present, found := vm.Disk(key)
	switch {
	case found && strings.EqualFold(present.Path, to):
		return nil
	case found && !strings.EqualFold(present.Path, from):
		return fmt.Errorf("%w: %s has %s", ErrDiskMismatch, key, present.Path)
	case !found && to == "":
		return nil
	case !found && from != "":
		return fmt.Errorf("%w: %s has no disk", ErrDiskMismatch, key)
	case !found:
		return h.attach(ctx, vm.settingsPath, key, to)
	case to == "":
		return h.detach(ctx, vm.settingsPath, key)
	}
	// Attaching a file through WMI is what gives the VM the right to open it.
	err := h.modifyDevices(ctx, wmi.Object{Class: classAllocation, Path: present.path, Properties: map[string]any{"HostResource": []string{to}}})
	if err != nil {
		return fmt.Errorf("attach %s at %s: %w", to, key, err)
	}
	return nil
}

// FinishReplacement deletes the old files, with what tracked their changes. What is gone already is no error. ErrDiskMismatch when a place does not have the
// new file, or some VM of the host uses an old one: then nothing is deleted.
func (h *Host) FinishReplacement(ctx context.Context, r Replacement) error {
	if err := h.unused(ctx, r); err != nil {
		return fmt.Errorf("finish the restore of %s: %w", r.VMID, err)
	}
	for _, d := range r.Disks {
		if d.Old == "" {
			continue
		}
		// Change tracking keeps a bitmap and a table of modified regions beside the disk.
		for _, path := range []string{d.Old + ".rct", d.Old + ".mrt", d.Old} {
			if err := h.files.Remove(ctx, path); err != nil {
				return fmt.Errorf("finish the restore of %s: delete %s: %w", r.VMID, path, err)
			}
		}
	}
	return nil
}

// unused tells whether the old files can be deleted.
func (h *Host) unused(ctx context.Context, r Replacement) error {
	vm, err := h.vm(ctx, r.VMID)
	if err != nil {
		return err
	}
	old := map[string]bool{}
	for _, d := range r.Disks {
		old[strings.ToUpper(d.Old)] = true
		if present, found := vm.Disk(d.Key); !found || !strings.EqualFold(present.Path, d.New) {
			return fmt.Errorf("%w: %s does not have %s", ErrDiskMismatch, d.Key, d.New)
		}
	}
	allocations, err := h.virt.Query(ctx, "SELECT * FROM "+classAllocation)
	if err != nil {
		return err
	}
	for _, allocation := range allocations {
		paths, err := allocation.Strings("HostResource")
		if err != nil {
			return err
		}
		for _, path := range paths {
			if err := h.builtOn(ctx, path, old); err != nil {
				return err
			}
		}
	}
	return nil
}

// builtOn is an error when a disk is one of some files, or a differencing disk above one: linked clones share their parent. A virtual disk whose files cannot be
// followed may be such a clone, so it is an error too; an ISO image and the like is in nobody's way.
func (h *Host) builtOn(ctx context.Context, path string, files map[string]bool) error {
	chain, err := h.chain(ctx, path)
	if errors.Is(err, virtdisk.ErrDisconnected) || ctx.Err() != nil {
		return err
	}
	if err != nil && diskKind(path, false) == DiskVHDX {
		return fmt.Errorf("%s may be built on a replaced disk: %w", path, err)
	}
	for _, member := range append(chain, path) {
		if files[strings.ToUpper(member)] {
			return fmt.Errorf("%w: %s is still in use", ErrDiskMismatch, member)
		}
	}
	return nil
}
