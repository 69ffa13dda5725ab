package hyperv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// RestoreTarget says as what a VM is defined.
type RestoreTarget struct {
	Name string
	// Folder is where Hyper-V keeps the configuration.
	Folder string
	// Disks are the restored files by the places that they are attached at. Disks of the definition without a file here are not attached.
	Disks []TargetDisk
	// Tag is the uid of the task. A host has at most one VM of a tag.
	Tag string
	// KeepAddresses gives network adapters the fixed MAC addresses that they had. Without it they get new ones, as a copy needs.
	KeepAddresses bool
}

// TargetDisk is a restored file and its place.
type TargetDisk struct {
	Key  string `json:"key"`
	Path string `json:"path"`
}

// restoreMark is the line of a VM's notes by which it is ours.
const restoreMark = "Restored by Hyperkeep, task "

// DefineVM defines a VM that is off and connected to no network, or completes the one that an earlier call with this tag began. Its notes carry the tag,
// from the first moment on, so that nothing is ever defined twice. RemoveVM takes it back. ErrNoSpace, ErrDiskMismatch.
func (h *Host) DefineVM(ctx context.Context, d Definition, t RestoreTarget) (VM, error) {
	vm, err := h.defineVM(ctx, d, t)
	if err != nil {
		return VM{}, fmt.Errorf("define virtual machine %s: %w", t.Name, err)
	}
	return vm, nil
}

func (h *Host) defineVM(ctx context.Context, d Definition, t RestoreTarget) (VM, error) {
	settings, err := h.restored(ctx, t.Tag)
	if errors.Is(err, ErrVMNotFound) {
		if err = h.defineSystem(ctx, d, t); err == nil {
			settings, err = h.restored(ctx, t.Tag)
		}
	}
	if err != nil {
		return VM{}, err
	}
	if err := h.applyProcessing(ctx, settings.Path, d); err != nil {
		return VM{}, err
	}
	if err := h.ensureControllers(ctx, settings.Path, d.Controllers); err != nil {
		return VM{}, err
	}
	for _, disk := range t.Disks {
		if err := h.attach(ctx, settings.Path, disk.Key, disk.Path); err != nil {
			return VM{}, err
		}
	}
	if err := h.ensureNetworks(ctx, settings.Path, d.Networks, t.KeepAddresses); err != nil {
		return VM{}, err
	}
	id, err := settings.String("VirtualSystemIdentifier")
	if err != nil {
		return VM{}, err
	}
	return h.VM(ctx, id)
}

// restored finds the active settings of the VM with a tag. ErrVMNotFound.
func (h *Host) restored(ctx context.Context, tag string) (wmi.Instance, error) {
	all, err := h.virt.Query(ctx, fmt.Sprintf("SELECT * FROM %s WHERE VirtualSystemType=%s", classSettings, wmi.Quote(typeRealized)))
	if err != nil {
		return wmi.Instance{}, err
	}
	for _, settings := range all {
		notes, err := settings.Strings("Notes")
		if err != nil {
			return wmi.Instance{}, err
		}
		if marked(notes, tag) {
			return settings, nil
		}
	}
	return wmi.Instance{}, fmt.Errorf("%w: restored by task %s", ErrVMNotFound, tag)
}

func marked(notes []string, tag string) bool {
	for line := range strings.Lines(strings.Join(notes, "\n")) {
		if strings.TrimSpace(line) == restoreMark+tag {
			return true
		}
	}
	return false
}

// defineSystem creates the VM without devices.
func (h *Host) defineSystem(ctx context.Context, d Definition, t RestoreTarget) error {
	properties := map[string]any{
		"ElementName":           t.Name,
		"Notes":                 []string{strings.Join(append(unmarked(d.Notes), restoreMark+t.Tag), "\n")},
		"VirtualSystemSubType":  fmt.Sprintf("%s%d", subTypePrefix, d.Generation),
		"ConfigurationDataRoot": t.Folder,
		"SnapshotDataRoot":      t.Folder,
		"SuspendDataRoot":       t.Folder,
		"SwapFileDataRoot":      t.Folder,
	}
	if n := d.CheckpointType.value(); n != 0 {
		properties["UserSnapshotType"] = n
	}
	if d.Generation == 2 {
		properties["SecureBootEnabled"] = d.Firmware.SecureBoot
		if d.Firmware.SecureBootTemplate != "" {
			properties["SecureBootTemplateId"] = d.Firmware.SecureBootTemplate
		}
	}
	_, err := h.callService(ctx, managementService, "DefineSystem", wmi.Params{
		"SystemSettings": wmi.Object{Class: classSettings, Properties: properties}, "ResourceSettings": []wmi.Object{},
	})
	if errors.Is(err, wmi.ErrJobGone) {
		return nil // the caller looks for the VM
	}
	return err
}

// unmarked are the notes of a VM without the marks of earlier restores, which a restored VM carries into its own images.
func unmarked(notes []string) []string {
	var out []string
	for line := range strings.Lines(strings.Join(notes, "\n")) {
		if line = strings.TrimRight(line, "\r\n"); !strings.HasPrefix(line, restoreMark) {
			out = append(out, line)
		}
	}
	return out
}

// RemoveVM removes the VM that DefineVM defined for a task, and leaves its disk files; nil when there is none. It must be off: ErrVMState.
func (h *Host) RemoveVM(ctx context.Context, tag string) error {
	settings, err := h.restored(ctx, tag)
	if errors.Is(err, ErrVMNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the virtual machine of task %s: %w", tag, err)
	}
	id, err := settings.String("VirtualSystemIdentifier")
	if err != nil {
		return err
	}
	vm, err := h.situation(ctx, id)
	if err != nil {
		return fmt.Errorf("remove the virtual machine of task %s: %w", tag, err)
	}
	if vm.State != Off {
		return fmt.Errorf("remove %s: %w: it is %s, and only one that was never started is removed", vm.Name, ErrVMState, vm.State)
	}
	_, err = h.callService(ctx, managementService, "DestroySystem", wmi.Params{"AffectedSystem": vm.systemPath})
	if err != nil && !errors.Is(err, wmi.ErrNotFound) {
		return fmt.Errorf("remove %s: %w", vm.Name, err)
	}
	return nil
}
