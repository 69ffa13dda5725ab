package hyperv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// plannedVM is a VM that was imported and not realized yet.
type plannedVM struct {
	id       string // the Hyper-V id, in upper case
	system   string // path of the Msvm_PlannedComputerSystem
	settings wmi.Instance
}

// dataRoots are the properties of Msvm_VirtualSystemSettingData that say where the files of a VM lie, its disks aside. GuestStateDataRoot came with
// Server 2016.
var dataRoots = []string{"ConfigurationDataRoot", "SnapshotDataRoot", "SuspendDataRoot", "SwapFileDataRoot", "GuestStateDataRoot"}

// plannedSettings reads all planned VMs of the host, without their systems.
func (h *Host) plannedSettings(ctx context.Context) ([]plannedVM, error) {
	found, err := h.virt.Query(ctx, fmt.Sprintf("SELECT * FROM %s WHERE VirtualSystemType=%s", classSettings, wmi.Quote(typePlanned)))
	if err != nil {
		return nil, err
	}
	var out []plannedVM
	for _, settings := range found {
		id, err := settings.String("VirtualSystemIdentifier")
		if err != nil {
			return nil, err
		}
		out = append(out, plannedVM{id: strings.ToUpper(id), settings: settings})
	}
	return out, nil
}

// findPlanned finds the planned VM of a task: the one with its mark, else the only one that came after the import was prepared, carries the name that the file
// gave it and the marks that the file has, if any: an agent that died between importing and marking left it. Before this import was tried there is none, and of
// several that fit any may be somebody else's: they stay. ErrVMNotFound. The caller holds importing.
func (h *Host) findPlanned(ctx context.Context, im Import, tag string) (plannedVM, error) {
	all, err := h.plannedSettings(ctx)
	if err != nil {
		return plannedVM{}, err
	}
	var unnamed []plannedVM
	for _, p := range all {
		r := &reader{Instance: p.settings}
		notes, name := r.texts("Notes"), r.text("ElementName")
		if r.err != nil {
			return plannedVM{}, r.err
		}
		_, _, checkpoint := parseName(name)
		switch {
		case slices.Contains(marks(notes), tag+markedAs+p.id):
			return h.systemOf(ctx, p)
		case im.File == "", h.untried[im.File]: // only what is marked
		case slices.Contains(im.Known, p.id), im.ID != "" && p.id != im.ID, !checkpoint && name != im.Name:
		case slices.Equal(marks(notes), im.Marks):
			unnamed = append(unnamed, p)
		}
	}
	if len(unnamed) != 1 {
		return plannedVM{}, fmt.Errorf("%w: planned by task %s", ErrVMNotFound, tag)
	}
	return h.systemOf(ctx, unnamed[0])
}

func (h *Host) systemOf(ctx context.Context, p plannedVM) (plannedVM, error) {
	system, found, err := h.one(ctx, fmt.Sprintf("SELECT * FROM %s WHERE Name=%s", classPlanned, wmi.Quote(p.id)))
	if err == nil && !found {
		err = fmt.Errorf("%w: planned as %s", ErrVMNotFound, p.id)
	}
	p.system = system.Path
	return p, err
}

// plan finds or makes the planned VM of a task, marks it and gives it its name and folders. One at a time: what is not marked yet could be mistaken for
// another task's.
func (h *Host) plan(ctx context.Context, im Import, t RestoreTarget) (plannedVM, error) {
	h.importing.Lock()
	defer h.importing.Unlock()
	planned, err := h.awaitedPlanned(ctx, im, t.Tag)
	if errors.Is(err, ErrVMNotFound) {
		// Only now: the job of an earlier call may have realized the planned VM since it was looked for.
		if _, err = h.restored(ctx, t.Tag); err == nil {
			return plannedVM{}, errRealized
		}
	}
	if errors.Is(err, ErrVMNotFound) {
		planned, err = h.importDefinition(ctx, im, t.Tag)
	}
	if err != nil {
		return plannedVM{}, err
	}
	notes, err := planned.settings.Strings("Notes")
	if err != nil {
		return plannedVM{}, err
	}
	properties := map[string]any{"ElementName": t.Name, "Notes": markedNotes(notes, t.Tag+markedAs+planned.id)}
	for _, root := range dataRoots {
		if _, known := planned.settings.Properties[root]; known {
			properties[root] = cmp.Or(t.Roots[root], t.Folder)
		}
	}
	_, err = h.callService(ctx, managementService, "ModifySystemSettings", wmi.Params{
		"SystemSettings": wmi.Object{Class: classSettings, Path: planned.settings.Path, Properties: properties},
	})
	if err != nil {
		return plannedVM{}, h.unlessGone(ctx, planned, refusal(fmt.Errorf("name the planned virtual machine: %w", err)))
	}
	return planned, nil
}

// errRealized: the VM is there already.
var errRealized = errors.New("the planned virtual machine is realized")

// awaitedPlanned is findPlanned, but for an import of an earlier call that may still run: its result is ours. ErrBusy until it has ended.
func (h *Host) awaitedPlanned(ctx context.Context, im Import, tag string) (plannedVM, error) {
	planned, err := h.findPlanned(ctx, im, tag)
	if !errors.Is(err, ErrVMNotFound) {
		return planned, err
	}
	if err := h.noneRuns(ctx, jobTypeImport); err != nil {
		return plannedVM{}, err
	}
	return h.findPlanned(ctx, im, tag)
}

// noneRuns is ErrBusy while the host has a job of a type: one that a call began whose answer was lost, or somebody else's.
func (h *Host) noneRuns(ctx context.Context, jobType int) error {
	jobs, err := h.virt.Query(ctx, fmt.Sprintf("SELECT * FROM %s WHERE JobType=%d AND JobState<%d", classJob, jobType, jobStateCompleted))
	if err != nil {
		return fmt.Errorf("look for jobs: %w", err)
	}
	if len(jobs) > 0 {
		return fmt.Errorf("%w: the host imports or removes one", ErrBusy)
	}
	return nil
}

func (h *Host) importDefinition(ctx context.Context, im Import, tag string) (plannedVM, error) {
	delete(h.untried, im.File)
	done, err := h.callService(ctx, managementService, "ImportSystemDefinition", wmi.Params{
		"SystemDefinitionFile": im.File, "SnapshotFolder": "", "GenerateNewSystemIdentifier": im.ID == "",
	})
	if errors.Is(err, wmi.ErrJobGone) {
		return h.findPlanned(ctx, im, tag)
	}
	if err != nil {
		return plannedVM{}, refusal(err)
	}
	made, err := h.results(ctx, done, "ImportedSystem", classPlanned)
	if err != nil {
		return plannedVM{}, err
	}
	if len(made) == 0 {
		return h.findPlanned(ctx, im, tag)
	}
	id, err := made[0].String("Name")
	if err != nil {
		return plannedVM{}, err
	}
	all, err := h.plannedSettings(ctx)
	for _, p := range all {
		if strings.EqualFold(p.id, id) {
			p.system = made[0].Path
			return p, err
		}
	}
	return plannedVM{}, errors.Join(err, fmt.Errorf("%w: the planned virtual machine %s has no settings", ErrVMNotFound, id))
}

// fit changes what a planned VM cannot have on this host, and lets Hyper-V validate the rest. Called again it completes what is missing. The warnings say
// what the VM does not have of the original.
func (h *Host) fit(ctx context.Context, planned plannedVM, t RestoreTarget) ([]string, error) {
	var warnings []string
	tell := t.Warned
	t.Warned = func(warning string) error {
		if slices.Contains(warnings, warning) { // a checkpoint may lack what the VM lacks
			return nil
		}
		warnings = append(warnings, warning)
		if tell == nil {
			return nil
		}
		return tell(warning)
	}
	for _, step := range []func(context.Context, plannedVM, RestoreTarget) error{
		h.importCheckpoints, h.dropCheckpoints, h.placeDisks, h.ejectMissing, h.placeAdapters, h.validate,
	} {
		if err := step(ctx, planned, t); err != nil {
			return nil, err
		}
	}
	return warnings, nil
}

// dropCheckpoints removes the checkpoints that the definition names and whose files are not there.
func (h *Host) dropCheckpoints(ctx context.Context, planned plannedVM, t RestoreTarget) error {
	checkpoints, err := h.plannedCheckpoints(ctx, planned)
	if err != nil {
		return err
	}
	for _, c := range checkpoints {
		if !c.isMissing() {
			continue
		}
		if err := t.Warned(fmt.Sprintf("Checkpoint %q of the original is not restored: its disks are as they were when the image was taken.", c.name)); err != nil {
			return err
		}
		_, err := h.callService(ctx, snapshotService, "DestroySnapshot", wmi.Params{"AffectedSnapshot": c.settings.Path})
		if err != nil && !errors.Is(err, wmi.ErrNotFound) {
			return refusal(fmt.Errorf("drop the missing checkpoint %q: %w", c.name, err))
		}
	}
	return nil
}

// placeDisks points each disk to its restored file, and takes out those that have none (EZ-25).
func (h *Host) placeDisks(ctx context.Context, planned plannedVM, t RestoreTarget) error {
	have, err := h.storageOf(ctx, planned.settings.Path)
	if err != nil {
		return err
	}
	wanted := map[string]string{}
	for _, d := range t.Disks {
		wanted[d.Key] = d.Path
	}
	for _, d := range have.disks {
		path, restored := wanted[d.Key]
		switch {
		case restored && d.Kind != DiskPassThrough && strings.EqualFold(d.Path, path):
		case restored && d.Kind != DiskPassThrough:
			err = h.modifyDevices(ctx, wmi.Object{Class: classAllocation, Path: d.path, Properties: map[string]any{"HostResource": []string{path}}})
		default:
			err = h.takeOut(ctx, d, t, fmt.Sprintf("Nothing is attached at %s in place of %s, which the image does not have.", d.Key, d.Path))
		}
		if err != nil {
			return refusal(fmt.Errorf("place the disk at %s: %w", d.Key, err))
		}
	}
	for _, d := range t.Disks {
		if _, found := have.disk(d.Key); !found {
			if err := h.attach(ctx, planned.settings.Path, d.Key, d.Path); err != nil {
				return refusal(err)
			}
		}
	}
	return nil
}

// takeOut takes a disk out of a planned VM, which has a warning instead.
func (h *Host) takeOut(ctx context.Context, d Disk, t RestoreTarget, warning string) error {
	if err := t.Warned(warning); err != nil {
		return err
	}
	_, err := h.callService(ctx, managementService, "RemoveResourceSettings", wmi.Params{"ResourceSettings": []string{d.path}})
	return err
}

// warnAll tells warnings, of which some may have been told before.
func warnAll(t RestoreTarget, warnings []string) error {
	for _, warning := range warnings {
		if err := t.Warned(warning); err != nil {
			return err
		}
	}
	return nil
}

// ejectMissing takes the images out of DVD drives that the host does not have: no image of a VM has them, and Hyper-V realizes no VM that lacks a file.
func (h *Host) ejectMissing(ctx context.Context, planned plannedVM, t RestoreTarget) error {
	devices, err := h.components(ctx, planned.settings.Path, classAllocation)
	if err != nil {
		return fmt.Errorf("read %s: %w", classAllocation, err)
	}
	for _, instance := range devices {
		r := &reader{Instance: instance}
		subType, image := r.text("ResourceSubType"), r.hostResource()
		if r.err != nil {
			return r.err
		}
		if subType != subTypeImage || image == "" {
			continue
		}
		_, err := h.files.Stat(ctx, image)
		switch {
		case err == nil:
			continue
		case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, hostfs.ErrPath):
			return fmt.Errorf("look at %s: %w", image, err)
		}
		if err := t.Warned(fmt.Sprintf("The DVD drive is empty: %s was in it, which is not on a volume of this host.", image)); err != nil {
			return err
		}
		if _, err := h.callService(ctx, managementService, "RemoveResourceSettings", wmi.Params{"ResourceSettings": []string{instance.Path}}); err != nil {
			return refusal(fmt.Errorf("eject %s: %w", image, err))
		}
	}
	return nil
}

// validate asks Hyper-V whether the planned VM works here. What it warns of may still be realized.
func (h *Host) validate(ctx context.Context, planned plannedVM, t RestoreTarget) error {
	done, err := h.callService(ctx, managementService, "ValidatePlannedSystem", wmi.Params{"PlannedSystem": planned.system})
	if errors.Is(err, wmi.ErrJobGone) {
		return nil
	}
	return cmp.Or(refusal(err), warnAll(t, done.Warnings))
}
