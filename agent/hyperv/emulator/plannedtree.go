package emulator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// importSnapshots looks in a folder for the files of a planned VM's checkpoints. Each that is good becomes a planned checkpoint; the job warns of the others.
func (c call) importSnapshots() (wmi.Result, error) {
	folder, _ := c.in["SnapshotFolder"].(string)
	v, code := c.plannedVM()
	if code == codeDone && folder == "" {
		v.unclaim()
		code = codeInvalidParameter
	}
	if code != codeDone {
		return refuse(code)
	}
	return c.job(jobTypeImport, v, nil, func(ctx context.Context) ([]string, error) {
		return v.importSnapshots(ctx, strings.TrimSuffix(folder, `\`))
	})
}

// importSnapshots makes planned checkpoints of the files in a folder, parents first. The caller holds op.
func (v *vm) importSnapshots(ctx context.Context, folder string) ([]string, error) {
	found, warnings, err := v.snapshotDefinitions(ctx, folder)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b importedDefinition) int { return len(a.Checkpoints) - len(b.Checkpoints) })
	var made []string
	for _, d := range found {
		s, err := v.planSnapshot(d)
		if err != nil {
			warnings = append(warnings, err.Error())
			continue
		}
		made = append(made, v.host.settingsPath(s.ID))
	}
	if len(warnings) > 0 {
		return made, &jobWarnings{warnings}
	}
	return made, nil
}

// snapshotDefinitions reads the files of a planned VM's checkpoints in a folder. Files of something else are passed over, and of damaged ones it warns.
func (v *vm) snapshotDefinitions(ctx context.Context, folder string) (found []importedDefinition, warnings []string, err error) {
	files, err := v.host.files.ReadDir(ctx, folder)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, hostfs.ErrPath) {
		return nil, nil, &jobError{codeFileNotFound, fmt.Sprintf("The folder %s was not found.", folder)}
	}
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		path := folder + `\` + file.Name()
		if extension := strings.ToLower(filepath.Ext(path)); file.IsDir() || extension != ".vmcx" && extension != ".xml" {
			continue
		}
		if v.host.configures(path) {
			return nil, nil, &jobError{codeInUse, fmt.Sprintf("The file %s is in use by another virtual machine.", path)}
		}
		d, err := v.host.readDefinition(ctx, path)
		switch {
		case err != nil:
			warnings = append(warnings, err.Error())
		case d.Checkpoint != nil && d.Checkpoint.Type == typeSnapshot && d.ID == v.record.Origin:
			found = append(found, d)
		}
	}
	return found, warnings, nil
}

// planSnapshot makes a planned checkpoint in the place of the missing one, or a new one upon a parent that is there.
func (v *vm) planSnapshot(d importedDefinition) (*snapshotRecord, error) {
	id := v.snapshotID(d.Checkpoint.ID, d.ID)
	s := &snapshotRecord{
		ID: id, Parent: v.snapshotID(d.Checkpoint.Parent, d.ID), Name: d.Checkpoint.Name, Notes: d.Checkpoint.Notes, Type: typePlannedSnapshot,
		Created: d.Checkpoint.Created, Consistency: d.Checkpoint.Consistency, Config: d.Config,
	}
	if s.Parent != "" && v.record.snapshot(s.Parent) == nil {
		return nil, &jobError{codeFailed, fmt.Sprintf("The checkpoint %q follows one that the virtual machine does not have.", s.Name)}
	}
	if d.Config.State != stateSaved || d.savedState == nil {
		s.Config.State = stateOff
	}
	for name, content := range map[string][]byte{id + ".vmgs": d.guestState, s.Config.runtimeFile(id): d.savedState} {
		if content == nil {
			continue
		}
		if err := writeFile(filepath.Join(v.dir, snapshotFolder, name), content); err != nil {
			return nil, err
		}
	}
	return s, v.commit(func(r *vmRecord) {
		at := slices.IndexFunc(r.Snapshots, func(other *snapshotRecord) bool { return other.ID == id })
		if at < 0 {
			r.Snapshots = append(r.Snapshots, s)
		} else {
			r.Snapshots[at] = s
		}
	})
}

// unfitDisks lists the disk files of a planned VM and of its checkpoints, and what is wrong with them.
func (v *vm) unfitDisks(ctx context.Context) (paths, refused []string) {
	chains := map[string][]string{} // of each settings object, by its id and the place of the disk
	for _, s := range v.allSettings() {
		of := ""
		if s.snapshot != nil {
			of = fmt.Sprintf(" of the checkpoint %q", s.snapshot.Name)
			if s.snapshot.Type == typeMissing {
				refused = append(refused, fmt.Sprintf("The checkpoint %q is missing.", s.snapshot.Name))
				continue
			}
		}
		for _, d := range s.config.Disks {
			if d.Path == "" {
				continue
			}
			path := s.file(d)
			paths = append(paths, path)
			c, err := openChain(ctx, v.host.files, path)
			if err != nil {
				refused = append(refused, fmt.Sprintf("The virtual hard disk %s%s cannot be used: %v.", path, of, err))
				continue
			}
			chains[s.id()+d.Controller] = c.paths()
			_ = c.close() // read only
		}
	}
	return paths, append(refused, v.strayDisks(chains)...)
}

// strayDisks are the disks that do not build upon those of the checkpoint before.
func (v *vm) strayDisks(chains map[string][]string) []string {
	var refused []string
	for _, s := range v.allSettings() {
		parent := v.record.Current
		if s.snapshot != nil {
			parent = s.snapshot.Parent
		}
		for _, d := range s.config.Disks {
			chain, below := chains[s.id()+d.Controller], chains[parent+d.Controller]
			if parent == "" || len(chain) == 0 || len(below) == 0 {
				continue
			}
			if !slices.ContainsFunc(chain[1:], func(path string) bool { return strings.EqualFold(path, below[0]) }) {
				refused = append(refused, fmt.Sprintf("The virtual hard disk %s does not build upon %s, as its checkpoint does.", chain[0], below[0]))
			}
		}
	}
	return refused
}

// nameRoots lets vm.yaml name the files at the ends of the disks' chains, and the record those that the guest will write, as with every VM that has
// checkpoints. The caller holds op.
func (v *vm) nameRoots(ctx context.Context) error {
	roots := map[string]string{} // by the places of the disks
	var records []*diskRecord
	of := &settings{vm: v, config: v.config}
	for _, d := range v.config.Disks {
		if d.Path == "" {
			continue
		}
		c, err := openChain(ctx, v.host.files, of.file(d))
		if err != nil {
			return err
		}
		paths, info := c.paths(), c[0].vhdx.Info()
		_ = c.close() // read only
		root := paths[len(paths)-1]
		roots[d.Controller] = root
		records = append(records, &diskRecord{Path: root, Leaf: paths[0], DiskID: info.VirtualDiskID, Size: info.VirtualSize})
	}
	if err := v.commit(func(r *vmRecord) { r.Disks = records }); err != nil {
		return err
	}
	return v.edit(ctx, func(c *vmConfig) error {
		for i, d := range c.Disks {
			if root := roots[d.Controller]; root != "" {
				c.Disks[i].Path = root
			}
		}
		return nil
	})
}

// takeTree makes the checkpoints of a planned VM, which fits and names its roots, those of a new one.
func (v *vm) takeTree(planned *vm) error {
	roots := map[string]string{} // by the places of the disks
	for _, d := range v.config.Disks {
		roots[d.Controller] = d.Path
	}
	for _, s := range planned.record.Snapshots {
		realized := *s
		realized.Type = typeSnapshot
		var err error
		if realized.Config, err = s.Config.clone(); err != nil {
			return err
		}
		for i, d := range realized.Config.Disks {
			if d.Path == "" {
				continue
			}
			frozen := planned.diskPath(d)
			path := cmp.Or(roots[d.Controller], frozen)
			realized.Config.Disks[i].Path = path
			realized.Disks = append(realized.Disks, snapshotDisk{Path: path, Frozen: frozen})
		}
		v.record.Snapshots = append(v.record.Snapshots, &realized)
	}
	return v.takeSnapshotFiles(planned)
}

// takeSnapshotFiles copies what was imported with the checkpoints.
func (v *vm) takeSnapshotFiles(planned *vm) error {
	entries, err := os.ReadDir(filepath.Join(planned.dir, snapshotFolder))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for _, e := range entries {
		text, readErr := os.ReadFile(filepath.Join(planned.dir, snapshotFolder, e.Name()))
		if readErr == nil {
			readErr = writeFile(filepath.Join(v.dir, snapshotFolder, e.Name()), text)
		}
		err = errors.Join(err, readErr)
	}
	for _, s := range v.record.Snapshots {
		err = errors.Join(err, v.writeSnapshotFiles(s))
	}
	return err
}
