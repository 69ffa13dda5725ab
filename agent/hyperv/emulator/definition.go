package emulator

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
)

// definitionMagic starts the emulator's .vmcx files. A line with the SHA-256 of the rest follows, then the rest as JSON: a definition. It is for the emulator
// alone; to a client the files are opaque, as Hyper-V's are.
const definitionMagic = "emulated Hyper-V configuration 2\n"

// Folders of the configuration files, below the VM's.
const (
	machineFolder  = "Virtual Machines"
	snapshotFolder = "Snapshots"
)

// definition is what a configuration file says: all that makes a VM but for its disks' content.
type definition struct {
	// ID is the VM's, also in the file of a checkpoint.
	ID string `json:"id"`
	// Config has the checkpoint's name where the file is one's, and the full paths of the disks.
	Config   vmConfig    `json:"config"`
	Settings wire.Values `json:"settings,omitempty"`
	// Checkpoints are those that the VM had, or that the checkpoint builds on, oldest first. Current is the one that it went on from.
	Checkpoints []definedCheckpoint `json:"checkpoints,omitempty"`
	Current     string              `json:"current,omitempty"`
	// Checkpoint is set where the file is one's.
	Checkpoint *definedCheckpoint `json:"checkpoint,omitempty"`
}

// definedCheckpoint is a checkpoint that a definition knows of. Its own file has the rest.
type definedCheckpoint struct {
	ID          string    `json:"id"`
	Parent      string    `json:"parent,omitempty"`
	Name        string    `json:"name"`
	Notes       []string  `json:"notes,omitempty"`
	Type        string    `json:"type"`
	Created     time.Time `json:"created"`
	Consistency int64     `json:"consistency"`
}

var errDefinition = errors.New("the file is no configuration of a virtual machine, or is damaged")

// pack makes the text of a configuration file.
func (d definition) pack() ([]byte, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	return slices.Concat([]byte(definitionMagic), []byte(hex.EncodeToString(sum[:])+"\n"), text), nil
}

// unpackDefinition reads a configuration file. errDefinition when a byte of it is wrong or missing.
func unpackDefinition(text []byte) (definition, error) {
	var d definition
	rest, ours := bytes.CutPrefix(text, []byte(definitionMagic))
	sum, body, complete := bytes.Cut(rest, []byte("\n"))
	want := sha256.Sum256(body)
	if !ours || !complete || string(sum) != hex.EncodeToString(want[:]) {
		return d, errDefinition
	}
	if err := json.Unmarshal(body, &d); err != nil {
		return d, fmt.Errorf("%w: %w", errDefinition, err)
	}
	return d, nil
}

// definitionOf describes a VM, or one of its checkpoints, but for the checkpoints that it knows. The caller holds op.
func (h *Host) definitionOf(s *settings) (definition, error) {
	v := s.vm
	config, err := s.config.clone()
	if err != nil {
		return definition{}, err
	}
	for i, d := range config.Disks {
		if d.Path != "" {
			config.Disks[i].Path = s.file(d)
		}
	}
	config.ID = ""
	d := definition{ID: v.record.ID, Config: config, Settings: maps.Clone(v.record.Settings)}
	if d.Settings == nil {
		d.Settings = wire.Values{}
	}
	if d.Settings["BIOSGUID"] == nil {
		d.Settings["BIOSGUID"] = biosGUID(v.record.ID)
	}
	return d, nil
}

func (s *snapshotRecord) defined() definedCheckpoint {
	return definedCheckpoint{ID: s.ID, Parent: s.Parent, Name: s.Name, Notes: s.Notes, Type: s.Type, Created: s.Created, Consistency: s.Consistency}
}

func biosGUID(id string) string { return "{" + derivedGUID(id, "bios") + "}" }

// legacy says whether a VM has the files of the versions before 6.0: an .xml file, and no guest state.
func (c vmConfig) legacy() bool {
	major, _, _ := strings.Cut(c.Version, ".")
	n, err := strconv.Atoi(major)
	return err == nil && n < 6
}

// definitionFile is the name of the configuration file of the VM, or of its checkpoint, with this id.
func (c vmConfig) definitionFile(id string) string {
	if c.legacy() {
		return id + ".xml"
	}
	return id + ".vmcx"
}

// hasGuestState says whether a VM has UEFI variables, which lie in a .vmgs file.
func (c vmConfig) hasGuestState() bool { return c.Generation == 2 && !c.legacy() }

// writeDefinition writes the configuration files of the VM itself.
func (v *vm) writeDefinition() error {
	d, err := v.host.definitionOf(&settings{vm: v, config: v.config})
	if err != nil {
		return err
	}
	for _, s := range v.record.Snapshots {
		if s.ofUser() { // a backup's own is gone before anybody could import the file
			d.Checkpoints = append(d.Checkpoints, s.defined())
		}
	}
	for _, s := range v.record.branch() {
		if s.ofUser() {
			d.Current = s.ID
			break
		}
	}
	return v.writeConfigurationFiles(machineFolder, v.record.ID, d)
}

// writeSnapshotFiles writes those of a checkpoint: before it exists with the disks that it is about to freeze, and again when it gets another name.
func (v *vm) writeSnapshotFiles(s *snapshotRecord) error {
	of := &settings{vm: v, config: s.Config}
	if len(s.Disks) > 0 {
		of.snapshot = s
	}
	d, err := v.host.definitionOf(of)
	if err != nil {
		return err
	}
	for _, above := range slices.Backward(v.record.ancestors(s.Parent)) {
		d.Checkpoints = append(d.Checkpoints, above.defined())
	}
	self := s.defined()
	d.Config.Name, d.Current, d.Checkpoint = s.Name, s.Parent, &self
	return v.writeConfigurationFiles(snapshotFolder, s.ID, d)
}

// writeTree writes the files of the VM and of its user's checkpoints anew, where one has come or gone, or its disks lie in other files.
func (v *vm) writeTree() error {
	for _, s := range v.record.Snapshots {
		if s.ofUser() {
			if err := v.writeSnapshotFiles(s); err != nil {
				return err
			}
		}
	}
	return v.writeDefinition()
}

func (s *snapshotRecord) ofUser() bool { return s.Type == typeSnapshot }

// writeConfigurationFiles writes what Hyper-V keeps beside the disks: the definition, the runtime state, and the guest's state (UEFI variables), which a
// checkpoint copies from its VM. Before version 6.0 only a saved VM has a runtime state.
func (v *vm) writeConfigurationFiles(folder, id string, d definition) error {
	text, err := d.pack()
	if err != nil {
		return err
	}
	runtime, err := v.runtimeState(folder, id, d.Config)
	if err != nil {
		return err
	}
	files := map[string][]byte{d.Config.definitionFile(id): text, id + ".VMRS": runtime}
	if d.Config.legacy() {
		delete(files, id+".VMRS")
		if d.Config.State == stateSaved {
			files[id+".bin"], files[id+".vsv"] = runtime, runtime
		}
	}
	if d.Config.hasGuestState() {
		if files[id+".vmgs"], err = v.guestState(folder, id); err != nil {
			return err
		}
	}
	for name, content := range files {
		path := filepath.Join(v.dir, folder, name)
		if present, err := os.ReadFile(path); err == nil && bytes.Equal(present, content) {
			continue
		}
		if err := writeFile(path, content); err != nil {
			return err
		}
	}
	return nil
}

// guestState reads the UEFI variables of a checkpoint, or of the VM, which a new checkpoint copies. They are made up for a VM that has none yet: whoever has
// the same has them from this VM.
func (v *vm) guestState(folder, id string) ([]byte, error) {
	text, err := v.firstOf(filepath.Join(folder, id+".vmgs"), filepath.Join(machineFolder, v.record.ID+".vmgs"))
	if err == nil && text == nil {
		text = []byte("emulated Hyper-V guest state 1\n" + newGUID())
	}
	return text, err
}

// firstOf reads the first of some files of the VM that exists. nil when none does.
func (v *vm) firstOf(names ...string) ([]byte, error) {
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(v.dir, name))
		if !errors.Is(err, fs.ErrNotExist) {
			return text, err
		}
	}
	return nil, nil
}

// savedMemory is the size of the memory that the emulator pretends to save: enough to find it again.
const savedMemory = 64 << 10

// savedMark starts the memory in a runtime state.
const savedMark = "\nmemory of "

// runtimeFile is the name of the file with the runtime state of the VM, or of its checkpoint, with this id.
func (c vmConfig) runtimeFile(id string) string {
	if c.legacy() {
		return id + ".bin"
	}
	return id + ".VMRS"
}

// runtimeState is the content of a .VMRS file. That of a saved VM holds its memory, and so does that of a checkpoint of it: what was saved or imported, made up
// for a VM that has none yet.
func (v *vm) runtimeState(folder, id string, config vmConfig) ([]byte, error) {
	state := []byte("emulated Hyper-V runtime state 1\n" + id)
	if config.State != stateSaved {
		return state, nil
	}
	present, err := v.firstOf(filepath.Join(folder, config.runtimeFile(id)), filepath.Join(machineFolder, config.runtimeFile(v.record.ID)))
	if err != nil || bytes.Contains(present, []byte(savedMark)) {
		return present, err
	}
	return append(state, bytes.Repeat([]byte(savedMark+newGUID()), savedMemory/(len(savedMark)+len(id)))...), nil
}

func (v *vm) removeSnapshotFiles(s *snapshotRecord) error {
	var errs []error
	for _, extension := range []string{".vmcx", ".xml", ".VMRS", ".vmgs", ".bin", ".vsv"} {
		if err := os.Remove(filepath.Join(v.dir, snapshotFolder, s.ID+extension)); !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
