package emulator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
)

// A planned VM lies in a folder of its own below the host's private one: its vm.yaml and record are like a VM's, its disks need not exist, and no guest
// runs. It survives the host's process, as Hyper-V's does, until it is realized or destroyed. The rename of its vm.yaml is the moment at which
// it becomes a VM.

const (
	plannedFolder = "planned"
	// guestStateFile keeps the UEFI variables that were imported with a planned VM.
	guestStateFile = "guest.vmgs"
	// savedStateFile keeps the memory of a saved one.
	savedStateFile = "saved.vmrs"
	// importedRoot is where a planned VM says that its files will lie, until a client says something else.
	importedRoot = `C:\ProgramData\Microsoft\Windows\Hyper-V`
	typeMissing  = "Microsoft:Hyper-V:Snapshot:Missing"
	typePlanned  = "Microsoft:Hyper-V:System:Planned"
	// typePlannedSnapshot is a checkpoint of a planned VM whose files were imported.
	typePlannedSnapshot = "Microsoft:Hyper-V:Snapshot:Planned"
)

// importedDefinition is what ImportSystemDefinition read.
type importedDefinition struct {
	definition
	guestState []byte // nil when there was none
	savedState []byte // of a saved VM, nil when it was missing
}

// plan makes a planned VM of a definition.
func (h *Host) plan(d importedDefinition, id string) (*vm, error) {
	h.scanning.Lock()
	defer h.scanning.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, other := range h.vms {
		if other.record != nil && other.record.ID == id {
			return nil, &jobError{codeFailed, fmt.Sprintf("A virtual machine with the identifier %s exists already.", id)}
		}
	}
	if d.Config.State != stateSaved || d.savedState == nil {
		d.Config.State = stateOff // what a running VM's checkpoint has is its disks
	}
	d.Config.Replica = replicaNone // replication is a relation of its own
	v := h.newPlanned(id)
	v.config, v.record = d.Config, &vmRecord{ID: id, Created: h.now().UTC(), Settings: wire.Values{}}
	for name, value := range d.Settings {
		if !strings.HasSuffix(name, "DataRoot") {
			v.record.Settings[name] = value
		}
	}
	v.record.Origin, v.record.Current = d.ID, v.snapshotID(d.Current, d.ID)
	for _, c := range d.Checkpoints { // their files were not imported yet
		v.record.Snapshots = append(v.record.Snapshots, &snapshotRecord{
			ID: v.snapshotID(c.ID, d.ID), Parent: v.snapshotID(c.Parent, d.ID), Name: c.Name, Type: typeMissing, Created: c.Created, Config: d.Config,
		})
	}
	if err := v.writePlanned(d); err != nil {
		return nil, errors.Join(err, os.RemoveAll(v.dir))
	}
	h.vms[v.folder] = v
	return v, nil
}

// snapshotID is the id that a checkpoint gets with a VM: that of the file, where the VM keeps its own. origin is the id that the VM has in the file.
func (v *vm) snapshotID(id, origin string) string {
	if id == "" || v.record.ID == origin {
		return id
	}
	return derivedGUID(v.record.ID, id)
}

// writePlanned writes the files of a planned VM, its vm.yaml last.
func (v *vm) writePlanned(d importedDefinition) error {
	text, err := updateYAML(nil, vmConfig{}, d.Config)
	if err == nil && d.guestState != nil {
		err = writeFile(filepath.Join(v.dir, guestStateFile), d.guestState)
	}
	if err == nil && d.savedState != nil {
		err = writeFile(filepath.Join(v.dir, savedStateFile), d.savedState)
	}
	if err == nil {
		err = v.record.write(v.recordPath())
	}
	if err == nil {
		err = writeFile(filepath.Join(v.dir, "vm.yaml"), text)
	}
	return err
}

func (h *Host) newPlanned(id string) *vm {
	folder := filepath.Join(privateFolder, plannedFolder, id)
	return &vm{host: h, folder: folder, dir: filepath.Join(h.dir, folder), planned: true}
}

// loadPlanned finds the planned VMs of an earlier process, and clears up what one left half made.
func (h *Host) loadPlanned() error {
	entries, err := os.ReadDir(filepath.Join(h.dir, privateFolder, plannedFolder))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		v := h.newPlanned(e.Name())
		if _, statErr := os.Stat(filepath.Join(v.dir, "vm.yaml")); errors.Is(statErr, fs.ErrNotExist) {
			err = errors.Join(err, os.RemoveAll(v.dir))
			continue
		}
		var loadErr error
		if v.config, loadErr = v.readConfig(); loadErr == nil {
			v.record, loadErr = readRecord(v.recordPath())
		}
		if loadErr != nil {
			err = errors.Join(err, fmt.Errorf("load the planned VM %s: %w", e.Name(), loadErr))
			continue
		}
		h.vms[v.folder] = v
	}
	return err
}

// unfit lists what keeps a planned VM from working on this host, in Hyper-V's order: first what realizing refuses, then what it only warns of. The caller
// holds op.
func (v *vm) unfit(ctx context.Context) (refused, warnings []string) {
	paths, refused := v.unfitDisks(ctx)
	if err := v.checkNotTaken(paths); err != nil {
		refused = append(refused, err.Error())
	}
	for _, d := range v.config.DVDDrives {
		if _, err := v.host.files.Stat(ctx, d.Image); d.Image != "" && err != nil {
			refused = append(refused, fmt.Sprintf("Could not find the file '%s' of the DVD drive at %s.", d.Image, d.Controller))
		}
	}
	for _, a := range v.config.NetworkAdapters {
		if _, found := v.host.switchOf(a.Switch); a.Switch != "" && !found {
			refused = append(refused, fmt.Sprintf("Could not find the Ethernet switch '%s'.", a.Switch))
		}
	}
	if n := v.host.config.Processors; v.config.Processors > n {
		warnings = append(warnings, fmt.Sprintf("The virtual machine has %d processors, more than the host's %d.", v.config.Processors, n))
	}
	return refused, warnings
}

// realize makes a planned VM one of the host's. The caller holds op of the planned one.
func (h *Host) realize(ctx context.Context, planned *vm) (*vm, error) {
	if refused, _ := planned.unfit(ctx); len(refused) > 0 {
		return nil, &jobError{codeFailed, strings.Join(refused, " ")}
	}
	h.scanning.Lock()
	defer h.scanning.Unlock()
	h.mu.Lock()
	root, _ := planned.record.Settings["ConfigurationDataRoot"].(string)
	folder := h.freeFolder(planned.config.Name, root)
	h.mu.Unlock()
	v := &vm{host: h, folder: folder, dir: filepath.Join(h.dir, folder), problem: errors.New("vm.yaml was not read yet")}
	if err := v.become(ctx, planned); err != nil {
		return nil, err
	}
	if err := os.Rename(filepath.Join(planned.dir, "vm.yaml"), filepath.Join(v.dir, "vm.yaml")); err != nil {
		return nil, err
	}
	h.mu.Lock()
	delete(h.vms, planned.folder)
	planned.gone = true
	h.vms[folder] = v
	h.mu.Unlock()
	v.op.Lock()
	v.refresh(ctx)
	v.op.Unlock()
	return v, os.RemoveAll(planned.dir)
}

// become gives a new VM all that a planned one has, but for the vm.yaml, which is made ready where it is.
func (v *vm) become(ctx context.Context, planned *vm) error {
	tree := len(planned.record.Snapshots) > 0
	if tree {
		if err := planned.nameRoots(ctx); err != nil {
			return err
		}
	}
	v.config = planned.config
	v.record = &vmRecord{
		ID: planned.record.ID, Created: planned.record.Created, Settings: planned.record.Settings, Disks: planned.record.Disks, Current: planned.record.Current,
	}
	if tree {
		if err := v.takeTree(planned); err != nil {
			return err
		}
	}
	if err := v.record.write(v.recordPath()); err != nil {
		return err
	}
	return v.takeStates(planned)
}

// takeStates copies the guest's and the saved state of a planned VM, as far as it has them.
func (v *vm) takeStates(planned *vm) error {
	for from, to := range map[string]string{guestStateFile: v.record.ID + ".vmgs", savedStateFile: v.config.runtimeFile(v.record.ID)} {
		state, err := os.ReadFile(filepath.Join(planned.dir, from))
		if err == nil {
			err = writeFile(filepath.Join(v.dir, machineFolder, to), state)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// destroyPlanned forgets a planned VM. The caller holds op.
func (h *Host) destroyPlanned(v *vm) error {
	if err := os.Remove(filepath.Join(v.dir, "vm.yaml")); err != nil {
		return err
	}
	h.mu.Lock()
	delete(h.vms, v.folder)
	v.gone = true
	h.mu.Unlock()
	return os.RemoveAll(v.dir)
}
