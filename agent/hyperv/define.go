package hyperv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// RestoreTarget says as what a VM is defined.
type RestoreTarget struct {
	Name string
	// Folder is where Hyper-V keeps the configuration, but for what has a folder of its own in Roots, by the property of the settings that names it.
	Folder string
	Roots  map[string]string
	// Disks are the restored files by the places that they are attached at. Disks of the definition without a file here are not attached.
	Disks []TargetDisk
	// Tree has the checkpoints of the VM's user, nil for none. Disks are the files at its end then.
	Tree *TargetTree
	// Tag is the uid of the task. A host has at most one VM of a tag.
	Tag string
	// KeepNetworks gives network adapters the fixed MAC addresses and the virtual switches that they had. Without it they get new addresses and no switch,
	// as a copy needs.
	KeepNetworks bool
	// Switches names, for a switch that adapters were connected to, the one of this host that they get. "" is none.
	Switches map[string]string
	// Warned, if set, is told what an import takes from the VM, each time before it does: a later call does not find any more what the VM had. An error of it
	// ends the import.
	Warned func(warning string) error
}

// TargetDisk is a restored file and its place.
type TargetDisk struct {
	Key  string `json:"key"`
	Path string `json:"path"`
}

// restoreMark is the line of a VM's notes by which it is ours.
const restoreMark = "Restored by Hyperkeep, task "

// markedAs precedes the Hyper-V id in the mark of an imported VM. Whoever imports a file that has the mark gets another VM, which is not ours. A VM that is
// defined has no id yet when it is marked.
const markedAs = ", as "

// carries tells whether notes have the mark of a task that is the VM's own.
func carries(notes []string, tag, id string) bool {
	all := marks(notes)
	return slices.Contains(all, tag) || slices.Contains(all, tag+markedAs+strings.ToUpper(id))
}

// DefineVM defines a VM that is off, or completes the one that an earlier call with this tag began. Its notes carry the tag, from the first moment on, so that
// nothing is ever defined twice. RemoveVM takes it back. ErrNoSpace, ErrDiskMismatch.
func (h *Host) DefineVM(ctx context.Context, d Definition, t RestoreTarget) (Restored, error) {
	out, err := h.defineVM(ctx, d, t)
	if err != nil {
		return Restored{}, fmt.Errorf("define virtual machine %s: %w", t.Name, err)
	}
	return out, nil
}

func (h *Host) defineVM(ctx context.Context, d Definition, t RestoreTarget) (Restored, error) {
	settings, err := h.restored(ctx, t.Tag)
	if errors.Is(err, ErrVMNotFound) {
		if err = h.defineSystem(ctx, d, t); err == nil {
			settings, err = h.restored(ctx, t.Tag)
		}
	}
	if err != nil {
		return Restored{}, err
	}
	if err := h.applyProcessing(ctx, settings.Path, d); err != nil {
		return Restored{}, err
	}
	if err := h.ensureControllers(ctx, settings.Path, d.Controllers); err != nil {
		return Restored{}, err
	}
	for _, disk := range t.Disks {
		if err := h.attach(ctx, settings.Path, disk.Key, disk.Path); err != nil {
			return Restored{}, err
		}
	}
	var out Restored
	if out.Warnings, err = h.ensureNetworks(ctx, settings.Path, d.Networks, t); err != nil {
		return Restored{}, err
	}
	id, err := settings.String("VirtualSystemIdentifier")
	if err == nil {
		out.VM, err = h.VM(ctx, id)
	}
	return out, err
}

// restored finds the active settings of the VM with a tag. ErrVMNotFound.
func (h *Host) restored(ctx context.Context, tag string) (wmi.Instance, error) {
	all, err := h.virt.Query(ctx, fmt.Sprintf("SELECT * FROM %s WHERE VirtualSystemType=%s", classSettings, wmi.Quote(typeRealized)))
	if err != nil {
		return wmi.Instance{}, err
	}
	for _, settings := range all {
		marked, err := isMarked(settings, nil, tag)
		if err != nil {
			return wmi.Instance{}, err
		}
		if marked {
			return settings, nil
		}
	}
	return wmi.Instance{}, fmt.Errorf("%w: restored by task %s", ErrVMNotFound, tag)
}

// marks are what a VM's notes carry behind the words of our mark: the tag, and the id if there is one.
func marks(notes []string) []string {
	var tags []string
	for line := range strings.Lines(strings.Join(notes, "\n")) {
		if tag, ours := strings.CutPrefix(strings.TrimSpace(line), restoreMark); ours {
			tags = append(tags, tag)
		}
	}
	return tags
}

// markedNotes are notes with one mark, and no other.
func markedNotes(notes []string, mark string) []string {
	return []string{strings.Join(append(unmarked(notes), restoreMark+mark), "\n")}
}

// DropMark takes the mark of a finished restore out of a VM's notes, so that no copy of the VM carries it. One without it stays as it is. ErrVMNotFound, ErrBusy.
func (h *Host) DropMark(ctx context.Context, vmID, tag string) error {
	settings, err := h.activeSettings(ctx, vmID)
	marked, err := isMarked(settings, err, tag)
	if err != nil || !marked {
		return err
	}
	notes, err := settings.Strings("Notes")
	if err != nil {
		return err
	}
	_, err = h.callService(ctx, managementService, "ModifySystemSettings", wmi.Params{"SystemSettings": wmi.Object{
		Class: classSettings, Path: settings.Path, Properties: map[string]any{"Notes": []string{strings.Join(unmarked(notes), "\n")}},
	}})
	return err
}

// defineSystem creates the VM without devices.
func (h *Host) defineSystem(ctx context.Context, d Definition, t RestoreTarget) error {
	properties := map[string]any{
		"ElementName":           t.Name,
		"Notes":                 markedNotes(d.Notes, t.Tag),
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
	if errors.Is(err, ErrVMNotFound) {
		return nil // gone since
	}
	if err != nil {
		return fmt.Errorf("remove the virtual machine of task %s: %w", tag, err)
	}
	if vm.State == Saved { // it came so out of the image
		if err := h.TurnOff(ctx, id); err != nil {
			return fmt.Errorf("remove %s: %w", vm.Name, err)
		}
		vm.State = Off
	}
	if vm.State != Off {
		return fmt.Errorf("remove %s: %w: it is %s, and only one that was never started is removed", vm.Name, ErrVMState, vm.State)
	}
	if err := h.destroy(ctx, vm.systemPath); err != nil {
		return fmt.Errorf("remove %s: %w", vm.Name, err)
	}
	return nil
}
