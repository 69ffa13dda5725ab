package hyperv

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Exchange is an in-place restore by import: a VM gives way to the one that configuration files define, under the same id. As Hyper-V allows an id once,
// the old one is removed before the import; copies of its own files are kept aside, and its disks stay where they are, so that it can be put back.
// It is a plain value that the caller journals before Exchange.
type Exchange struct {
	VMID string `json:"vmID"`
	// Import is of the files that the VM shall have.
	Import Import `json:"import"`
	// Disks are the places that get other files. The old files stay where they are until FinishExchange.
	Disks []ReplacedDisk `json:"disks"`
	Aside Aside          `json:"aside"`
}

// Aside is how a VM was, with the place of its copied configuration files.
type Aside struct {
	// Import is of the copies. Folder has nothing else.
	Import Import `json:"import"`
	Folder string `json:"folder"`
	// Names are those of the copied files.
	Names []string          `json:"names"`
	Notes []string          `json:"notes,omitempty"`
	Roots map[string]string `json:"roots"`
	Disks []TargetDisk      `json:"disks,omitempty"`
}

// PlanExchange looks at a VM that is to give way to the one of im, which has its id, with restored files as its disks. aside is a new folder for copies of
// its own configuration files. It changes nothing. ErrImportRefused when removing and importing the VM would lose what no configuration file has; else the
// errors of PlanReplacement.
func (h *Host) PlanExchange(ctx context.Context, im Import, disks []TargetDisk, aside string) (Exchange, error) {
	replacement, err := h.PlanReplacement(ctx, im.ID, disks, nil)
	if err == nil {
		err = h.exchangeable(ctx, im.ID)
	}
	if err != nil {
		return Exchange{}, err
	}
	x := Exchange{VMID: replacement.VMID, Import: im, Disks: replacement.Disks, Aside: Aside{Folder: aside, Roots: map[string]string{}}}
	x.Aside.Notes = replacement.Before.Notes
	for _, d := range replacement.Before.Disks {
		x.Aside.Disks = append(x.Aside.Disks, TargetDisk{Key: d.Key, Path: d.Path})
	}
	settings, err := h.activeSettings(ctx, x.VMID)
	if err != nil {
		return Exchange{}, fmt.Errorf("plan the restore of %s: %w", x.VMID, err)
	}
	for _, root := range dataRoots {
		if path, _ := settings.Properties[root].(string); path != "" {
			x.Aside.Roots[root] = path
		}
	}
	files, err := h.configurationFiles(ctx, settings)
	if err != nil {
		return Exchange{}, fmt.Errorf("plan the restore of %s: %w", x.VMID, err)
	}
	for _, f := range files {
		x.Aside.Names = append(x.Aside.Names, f.Name)
	}
	x.Aside.Import, err = h.PrepareImport(ctx, joinPath(aside, DefinitionFile(x.Aside.Names)), x.VMID, replacement.Before.Name, x.Aside.Notes)
	return x, err
}

// exchangeable tells whether a VM can be removed and imported again without losing anything.
func (h *Host) exchangeable(ctx context.Context, vmID string) error {
	vm, err := h.VM(ctx, vmID)
	if err != nil {
		return err
	}
	switch {
	case vm.Cluster != nil:
		return fmt.Errorf("%w: a failover cluster has a resource for it, which would be left without it", ErrImportRefused)
	case vm.Replica != ReplicaNone:
		return fmt.Errorf("%w: its replication would end", ErrImportRefused)
	}
	for _, d := range vm.Disks {
		if d.Kind != DiskVHDX {
			return fmt.Errorf("%w: its %s disk at %s would be lost if it had to be put back", ErrImportRefused, d.Kind, d.Key)
		}
	}
	return nil
}

func (h *Host) activeSettings(ctx context.Context, vmID string) (wmi.Instance, error) {
	settings, found, err := h.one(ctx, fmt.Sprintf("SELECT * FROM %s WHERE VirtualSystemIdentifier=%s AND VirtualSystemType=%s",
		classSettings, wmi.Quote(strings.ToUpper(vmID)), wmi.Quote(typeRealized)))
	if err == nil && !found {
		err = ErrVMNotFound
	}
	return settings, err
}

// Exchange turns the VM off, copies its configuration files aside, makes sure that Hyper-V would take them back, removes the VM and imports the new one. Called
// again it completes what is missing. t has the tag, the name and the disks of the new VM.
//
// ErrImportRefused: Hyper-V does not take the new files, or would not take the old ones back; RollBackExchange then leaves the VM as it was. ErrBusy.
// ErrVMNotFound and ErrDiskMismatch when somebody removed the VM or changed its disks since the plan.
func (h *Host) Exchange(ctx context.Context, x Exchange, t RestoreTarget) (Restored, error) {
	t.Roots = x.Aside.Roots
	if err := h.giveWay(ctx, x, t.Tag); err != nil {
		return Restored{}, fmt.Errorf("exchange %s: %w", x.VMID, err)
	}
	out, err := h.ImportVM(ctx, x.Import, t)
	if err != nil {
		return out, err
	}
	for _, old := range x.Aside.Disks {
		if _, found := out.VM.Disk(old.Key); !found {
			out.Warnings = append(out.Warnings, fmt.Sprintf("%s is not attached any more: the image has no disk at %s. The file stays.", old.Path, old.Key))
		}
	}
	return out, nil
}

// giveWay removes the old VM, if it is still there.
func (h *Host) giveWay(ctx context.Context, x Exchange, tag string) error {
	if err := h.noneRuns(ctx, jobTypeDestroy); err != nil {
		return err
	}
	settings, err := h.activeSettings(ctx, x.VMID)
	if errors.Is(err, ErrVMNotFound) {
		return h.wasAside(ctx, x)
	}
	marked, err := isMarked(settings, err, tag)
	if err != nil || marked {
		return err
	}
	vm, err := h.vm(ctx, x.VMID)
	if err == nil {
		err = replaceable(vm)
	}
	if err == nil {
		err = h.exchangeable(ctx, x.VMID)
	}
	if err == nil {
		err = x.Aside.sameDisks(vm)
	}
	if err == nil {
		err = h.TurnOff(ctx, x.VMID)
	}
	if err == nil {
		err = h.keepAside(ctx, settings, x.Aside)
	}
	if err == nil {
		_, err = h.TryImport(ctx, x.Aside.Import, x.Aside.target(tag))
	}
	if err != nil {
		return err
	}
	return h.destroy(ctx, vm.systemPath)
}

// wasAside tells whether a VM that is gone is gone because it gave way: only what lies aside is removed. ErrVMNotFound.
func (h *Host) wasAside(ctx context.Context, x Exchange) error {
	_, err := h.files.Stat(ctx, x.Aside.Import.File)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %s was removed or moved away by somebody else", ErrVMNotFound, x.VMID)
	}
	return err
}

// sameDisks is ErrDiskMismatch when a VM has other disks than it would be put back with.
func (a Aside) sameDisks(vm VM) error {
	same := slices.EqualFunc(a.Disks, vm.Disks, func(was TargetDisk, is Disk) bool { return was.Key == is.Key && strings.EqualFold(was.Path, is.Path) })
	if !same {
		return fmt.Errorf("%w: somebody has changed the disks since the restore was planned", ErrDiskMismatch)
	}
	return nil
}

// isMarked tells whether settings that were read, with or without an error, carry a mark of their own.
func isMarked(settings wmi.Instance, err error, tag string) (bool, error) {
	if err != nil {
		return false, err
	}
	r := &reader{Instance: settings}
	return carries(r.texts("Notes"), tag, r.text("VirtualSystemIdentifier")), r.err
}

// target is what a VM that was kept aside is imported as.
func (a Aside) target(tag string) RestoreTarget {
	return RestoreTarget{Name: a.Import.Name, Roots: a.Roots, Disks: a.Disks, Tag: tag + putBackSuffix, KeepNetworks: true}
}

// putBackSuffix tells what a restore puts back from what it restores.
const putBackSuffix = " (put back)"

// RestoreOf is the tag of the restore that a tag of PlannedTags belongs to: what is put back carries one of its own.
func RestoreOf(tag string) string { return strings.TrimSuffix(tag, putBackSuffix) }

// keepAside copies the configuration files of a VM that is off and is not being destroyed. It replaces what an earlier call copied: somebody may have started the
// VM since.
func (h *Host) keepAside(ctx context.Context, settings wmi.Instance, a Aside) error {
	files, err := h.configurationFiles(ctx, settings)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := h.copyFile(ctx, f.Path, joinPath(a.Folder, f.Name)); err != nil {
			return fmt.Errorf("copy %s: %w", f.Path, err)
		}
	}
	return nil
}

func (h *Host) copyFile(ctx context.Context, from, to string) error {
	unfinished := to + ".unfinished"
	if err := h.files.Remove(ctx, unfinished); err != nil {
		return err
	}
	source, err := h.files.Open(ctx, from)
	if err != nil {
		return err
	}
	defer source.Close() //nolint:errcheck // read only
	size, err := source.Size()
	if err != nil {
		return err
	}
	target, err := h.files.Create(ctx, unfinished)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(target, 0), io.NewSectionReader(source, 0, size))
	if err := errors.Join(err, target.Sync(), target.Close()); err != nil {
		return err
	}
	if err := h.files.Remove(ctx, to); err != nil {
		return err
	}
	return h.files.Rename(ctx, unfinished, to)
}

// RollBackExchange takes the new VM of a task away and puts the old one back, off, as far as Exchange came; one that somebody else removed before stays gone.
// The new disk files stay. Called again it completes what is missing. It cannot follow FinishExchange. The warnings say what the old VM does not have any more.
// ErrVMState when the new VM runs already.
func (h *Host) RollBackExchange(ctx context.Context, x Exchange, tag string) ([]string, error) {
	warnings, err := h.rollBackExchange(ctx, x, tag)
	if err != nil {
		err = fmt.Errorf("put %s back, whose configuration files are in %s: %w", x.VMID, x.Aside.Folder, err)
	}
	return warnings, err
}

func (h *Host) rollBackExchange(ctx context.Context, x Exchange, tag string) ([]string, error) {
	back := x.Aside.target(tag)
	err := h.RemoveImport(ctx, x.Import, tag)
	if err == nil {
		err = h.RemoveVM(ctx, tag)
	}
	if err == nil {
		err = h.noneRuns(ctx, jobTypeDestroy) // it could be about to go
	}
	if err != nil {
		return nil, err
	}
	settings, err := h.activeSettings(ctx, x.VMID)
	halfway, err := isMarked(settings, err, back.Tag)
	if err == nil && !halfway { // it never went, or is back
		return nil, h.RemoveImport(ctx, x.Aside.Import, back.Tag)
	}
	if errors.Is(err, ErrVMNotFound) {
		if err = h.wasAside(ctx, x); errors.Is(err, ErrVMNotFound) {
			return nil, nil // it did not give way, so there is nothing to put back
		}
	}
	if err != nil {
		return nil, err
	}
	put, err := h.ImportVM(ctx, x.Aside.Import, back)
	if err != nil {
		return put.Warnings, err
	}
	_, err = h.callService(ctx, managementService, "ModifySystemSettings", wmi.Params{"SystemSettings": wmi.Object{
		Class: classSettings, Path: put.VM.settingsPath, Properties: map[string]any{"Notes": x.Aside.Notes},
	}})
	return put.Warnings, err
}

// FinishExchange deletes the old disks, with what tracked their changes, and the copied configuration files. What is gone already is no error. ErrDiskMismatch as
// of FinishReplacement.
func (h *Host) FinishExchange(ctx context.Context, x Exchange) error {
	err := h.FinishReplacement(ctx, Replacement{VMID: x.VMID, Disks: x.Disks})
	return errors.Join(err, h.DropAside(ctx, x))
}

// DropAside deletes the copied configuration files. What is gone already is no error.
func (h *Host) DropAside(ctx context.Context, x Exchange) error {
	var err error
	for _, name := range x.Aside.Names {
		path := joinPath(x.Aside.Folder, name)
		err = errors.Join(err, h.files.Remove(ctx, path+".unfinished"), h.files.Remove(ctx, path))
	}
	return errors.Join(err, h.files.Remove(ctx, x.Aside.Folder))
}
