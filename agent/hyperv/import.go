package hyperv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Import is what a VM is imported from. It is a plain value that the caller journals before ImportVM, so that a restart finds the planned VM that an
// import made and could not mark any more.
type Import struct {
	// File is the configuration file on the host, beside it those of the guest's and the runtime state.
	File string `json:"file"`
	// ID is the Hyper-V id that the VM keeps, "" when it gets a new one.
	ID string `json:"id,omitempty"`
	// Name is the VM's own.
	Name string `json:"name"`
	// Marks are those of earlier restores that the file's notes carry.
	Marks []string `json:"marks,omitempty"`
	// Known are the planned VMs that the host had before.
	Known []string `json:"known,omitempty"`
}

// Restored is a VM that was put back.
type Restored struct {
	VM VM
	// Warnings say, for people, what it does not have of the original, or why it may not start.
	Warnings []string
}

const (
	typePlanned         = "Microsoft:Hyper-V:System:Planned"
	typeMissingSnapshot = "Microsoft:Hyper-V:Snapshot:Missing"
	classPlanned        = "Msvm_PlannedComputerSystem"
	classJob            = "Msvm_ConcreteJob"
	// Msvm_ConcreteJob: JobType, and the JobState below which a job runs.
	jobTypeDestroy    = 3
	jobTypeImport     = 61
	jobStateCompleted = 7
)

// DefinitionFile picks the file that defines a VM out of the names of its configuration files: the .vmcx, or the .xml of the versions before 6.0. "" when
// there is none.
func DefinitionFile(names []string) string {
	for _, ending := range []string{".vmcx", ".xml"} {
		for _, name := range names {
			if strings.HasSuffix(strings.ToLower(name), ending) {
				return name
			}
		}
	}
	return ""
}

// SupportedVersions are the configuration versions of VMs that the host can run. Empty when the host does not tell: then an import has to be tried.
func (h *Host) SupportedVersions(ctx context.Context) ([]string, error) {
	capabilities, found, err := h.one(ctx, "SELECT * FROM Msvm_VirtualSystemManagementCapabilities")
	if errors.Is(err, wmi.ErrInvalidClass) || err == nil && !found {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the supported versions: %w", err)
	}
	settings, err := h.virt.Associators(ctx, capabilities.Path, "Msvm_SettingsDefineCapabilities", classSettings)
	if err != nil {
		return nil, fmt.Errorf("read the supported versions: %w", err)
	}
	var versions []string
	for _, s := range settings {
		version, err := s.String("Version")
		if err != nil {
			return nil, fmt.Errorf("read the supported versions: %w", err)
		}
		if version != "" && !slices.Contains(versions, version) {
			versions = append(versions, version)
		}
	}
	return versions, nil
}

// PrepareImport looks at the host before an import of a file that gives the VM a name and notes. It changes nothing.
func (h *Host) PrepareImport(ctx context.Context, file, keepID, name string, notes []string) (Import, error) {
	h.importing.Lock()
	defer h.importing.Unlock()
	im := Import{File: file, ID: strings.ToUpper(keepID), Name: name, Marks: marks(notes)}
	all, err := h.plannedSettings(ctx)
	if err != nil {
		return Import{}, fmt.Errorf("prepare the import of %s: %w", file, err)
	}
	for _, settings := range all {
		im.Known = append(im.Known, settings.id)
	}
	h.untried[file] = true
	return im, nil
}

// ImportVM lets Hyper-V define a VM from configuration files, or completes what an earlier call with this tag began. The VM's notes carry the tag. It is off, or
// saved where the files have a saved state. Until it is complete it is a planned one, which RemoveImport takes back; RemoveVM takes it back afterwards.
//
// ErrImportRefused (Hyper-V does not take the files, or the VM does not work on this host: nothing is left), ErrBusy, ErrNoSpace, ErrDiskMismatch.
func (h *Host) ImportVM(ctx context.Context, im Import, t RestoreTarget) (Restored, error) {
	out, err := h.importVM(ctx, im, t)
	if err != nil {
		err = fmt.Errorf("import virtual machine %s: %w", t.Name, err)
	}
	if errors.Is(err, ErrImportRefused) {
		err = errors.Join(err, h.RemoveImport(ctx, im, t.Tag))
	}
	return out, err
}

func (h *Host) importVM(ctx context.Context, im Import, t RestoreTarget) (Restored, error) {
	var out Restored
	var err error
	out.Warnings, err = h.planAndRealize(ctx, im, t)
	// Whatever a call answered: a job of it, or of a call before, may have made the VM.
	settings, missing := h.restored(ctx, t.Tag)
	if missing != nil && !errors.Is(missing, ErrVMNotFound) {
		return out, missing
	}
	if missing != nil {
		return out, cmp.Or(err, missing)
	}
	id, err := settings.String("VirtualSystemIdentifier")
	if err == nil {
		out.VM, err = h.VM(ctx, id)
	}
	return out, err
}

// planAndRealize makes a planned VM fit for this host, and then one of its own.
func (h *Host) planAndRealize(ctx context.Context, im Import, t RestoreTarget) ([]string, error) {
	planned, err := h.plan(ctx, im, t)
	if errors.Is(err, errRealized) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	warnings, err := h.fit(ctx, planned, t)
	if err == nil {
		_, err = h.callService(ctx, managementService, "RealizePlannedSystem", wmi.Params{"PlannedSystem": planned.system})
		err = refusal(err)
	}
	if errors.Is(err, wmi.ErrJobGone) {
		return warnings, nil // the caller looks for the VM
	}
	return warnings, h.unlessGone(ctx, planned, err)
}

// TryImport imports configuration files under a new id, makes the planned VM fit, lets Hyper-V validate it and destroys it: what ImportVM would do, but for
// the last step. It returns the warnings. ErrImportRefused. RemoveImport takes back what a killed call left.
func (h *Host) TryImport(ctx context.Context, im Import, t RestoreTarget) ([]string, error) {
	im.ID = ""
	planned, err := h.plan(ctx, im, t)
	var warnings []string
	if err == nil {
		warnings, err = h.fit(ctx, planned, t)
		err = h.unlessGone(ctx, planned, err)
	}
	if err != nil && !errors.Is(err, ErrImportRefused) {
		return nil, fmt.Errorf("try to import %s: %w", im.File, err)
	}
	if err := errors.Join(err, h.RemoveImport(ctx, im, t.Tag)); err != nil {
		return nil, fmt.Errorf("try to import %s: %w", im.File, err)
	}
	return warnings, nil
}

// RemoveImport destroys the planned VM of a task; nil when there is none. Without a File in im, only one that carries the mark is found. ErrBusy while an
// import runs, which may be its.
func (h *Host) RemoveImport(ctx context.Context, im Import, tag string) error {
	im.ID = "" // what tried the import has another
	h.importing.Lock()
	defer h.importing.Unlock()
	planned, err := h.awaitedPlanned(ctx, im, tag)
	if errors.Is(err, ErrVMNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the planned virtual machine of task %s: %w", tag, err)
	}
	if err := h.destroy(ctx, planned.system); err != nil {
		return fmt.Errorf("remove the planned virtual machine of task %s: %w", tag, err)
	}
	return nil
}

// destroy removes a VM, planned or not. One that is gone already is no error.
func (h *Host) destroy(ctx context.Context, system string) error {
	_, err := h.callService(ctx, managementService, "DestroySystem", wmi.Params{"AffectedSystem": system})
	if err == nil || errors.Is(err, wmi.ErrNotFound) || errors.Is(err, wmi.ErrJobGone) {
		return nil // whether it is really gone shows when its id or its files are used
	}
	if _, lookErr := h.virt.Get(ctx, system); errors.Is(lookErr, wmi.ErrNotFound) {
		return nil
	}
	return err
}

// PlannedTags lists the tags of the planned VMs that carry our mark with their own id, not one that came with the file that they were imported from: what a sweeper compares, by RestoreOf, with the tasks that live.
func (h *Host) PlannedTags(ctx context.Context) ([]string, error) {
	all, err := h.plannedSettings(ctx)
	if err != nil {
		return nil, fmt.Errorf("list our planned virtual machines: %w", err)
	}
	var tags []string
	for _, p := range all {
		notes, err := p.settings.Strings("Notes")
		if err != nil {
			return nil, fmt.Errorf("list our planned virtual machines: %w", err)
		}
		for _, mark := range marks(notes) {
			if tag, own := strings.CutSuffix(mark, markedAs+p.id); own {
				tags = append(tags, tag)
			}
		}
	}
	return tags, nil
}

// unlessGone makes a refusal, or that something was not found, ErrBusy when it came of the planned VM being destroyed meanwhile, by the job of an earlier call.
func (h *Host) unlessGone(ctx context.Context, planned plannedVM, err error) error {
	if !errors.Is(err, ErrImportRefused) && !errors.Is(err, wmi.ErrNotFound) {
		return err
	}
	_, lookErr := h.virt.Get(ctx, planned.settings.Path)
	switch {
	case errors.Is(lookErr, wmi.ErrNotFound):
		return fmt.Errorf("%w: the planned virtual machine is being destroyed", ErrBusy)
	case lookErr != nil:
		return lookErr
	}
	return err
}

// refusal tells an import that can be tried again from one that Hyper-V does not take.
func refusal(err error) error {
	var failed *wmi.MethodError
	if err == nil || errors.Is(err, ErrBusy) || errors.Is(err, ErrNoSpace) || errors.Is(err, wmi.ErrAccessDenied) || !errors.As(err, &failed) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrImportRefused, err)
}
