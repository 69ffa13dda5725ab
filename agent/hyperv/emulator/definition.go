package emulator

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// definitionMagic starts the emulator's .vmcx files. What follows is for the emulator alone; to a client the files are opaque, as Hyper-V's are.
const definitionMagic = "emulated Hyper-V configuration 1\n"

// Folders of the configuration files, below the VM's.
const (
	machineFolder  = "Virtual Machines"
	snapshotFolder = "Snapshots"
)

// writeDefinition writes the configuration files of the VM itself.
func (v *vm) writeDefinition() error {
	return v.writeConfigurationFiles(machineFolder, v.record.ID, v.config)
}

func (v *vm) writeSnapshotFiles(s *snapshotRecord) error {
	return v.writeConfigurationFiles(snapshotFolder, s.ID, s.Config)
}

// writeConfigurationFiles writes what Hyper-V keeps beside the disks: the definition, the runtime state, and for generation 2 the guest's
// state (UEFI variables).
func (v *vm) writeConfigurationFiles(folder, id string, config vmConfig) error {
	definition, err := json.Marshal(config)
	if err != nil {
		return err
	}
	files := map[string][]byte{".vmcx": append([]byte(definitionMagic), definition...), ".VMRS": []byte("emulated Hyper-V runtime state 1\n" + id)}
	if config.Generation == 2 {
		files[".vmgs"] = []byte("emulated Hyper-V guest state 1\n" + v.record.ID)
	}
	for extension, content := range files {
		if err := writeFile(filepath.Join(v.dir, folder, id+extension), content); err != nil {
			return err
		}
	}
	return nil
}

func (v *vm) removeSnapshotFiles(s *snapshotRecord) error {
	var errs []error
	for _, extension := range []string{".vmcx", ".VMRS", ".vmgs"} {
		if err := os.Remove(filepath.Join(v.dir, snapshotFolder, s.ID+extension)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
