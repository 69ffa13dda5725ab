package emulator

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/nbd"
)

// vm is one folder with a vm.yaml.
type vm struct {
	host   *Host
	folder string
	dir    string
	// planned is a VM that was imported and not realized yet.
	planned bool

	// op is held by who changes the VM as a whole: one operation at a time.
	op      sync.Mutex
	servers []*nbd.Server
	merging bool // the merge loop runs
	gone    bool

	// The rest is changed under op and Host.mu, so either lets one read it.
	stamp   yamlStamp
	config  vmConfig
	record  *vmRecord
	problem error // why the VM cannot be used
	disks   []*disk
	running bool
	started time.Time
	busy    operation // what was started through WMI and is not over
	leaving bool      // another node gets it
}

// operation is the second OperationalStatus of a VM at work. None is zero.
type operation int64

const (
	opNone             operation = 0
	opCreatingSnapshot operation = 32768
	opApplyingSnapshot operation = 32769
	opDeletingSnapshot operation = 32770
	opMerging          operation = 32772
	opOther            operation = -1 // shows no status of its own
)

// yamlStamp tells whether vm.yaml was changed.
type yamlStamp struct {
	bytes    int64
	modified time.Time
}

// refresh takes up vm.yaml if it changed, or if the VM could not be used so far. The caller holds op.
func (v *vm) refresh(ctx context.Context) {
	stamp, err := v.readStamp()
	if err == nil && stamp == v.stamp && v.problem == nil && v.filesExist() {
		v.continueMerges()
		return
	}
	var config vmConfig
	if err == nil {
		config, err = v.readConfig()
	}
	v.host.mu.Lock()
	v.stamp = stamp
	v.host.mu.Unlock()
	if err == nil {
		err = v.adopt(ctx, config)
	}
	if err != nil {
		v.fail(err)
		return
	}
	v.host.mu.Lock()
	v.problem = nil
	v.host.mu.Unlock()
	v.continueMerges()
}

// fail puts the VM into its critical state.
func (v *vm) fail(reason error) {
	v.host.mu.Lock()
	known := v.problem != nil && v.problem.Error() == reason.Error()
	v.problem = reason
	if v.record == nil {
		v.record = &vmRecord{ID: newGUID()}
	}
	if v.config.Name == "" {
		v.config = vmConfig{}
		v.config.setDefaults(filepath.Base(v.dir), &v.host.config)
	}
	v.host.mu.Unlock()
	if !known {
		v.host.log.Warn("a VM cannot be used", "vm", v.folder, "reason", reason)
	}
	if err := v.stop(); err != nil {
		v.host.log.Warn("stop a VM", "vm", v.folder, "error", err)
	}
}

func (v *vm) readStamp() (yamlStamp, error) {
	info, err := os.Stat(filepath.Join(v.dir, "vm.yaml"))
	if err != nil {
		return yamlStamp{}, err
	}
	return yamlStamp{info.Size(), info.ModTime()}, nil
}

const maxYAML = 1 << 20

func (v *vm) readConfig() (vmConfig, error) {
	f, err := os.OpenInRoot(filepath.Dir(v.dir), filepath.Join(filepath.Base(v.dir), "vm.yaml"))
	if err != nil {
		return vmConfig{}, err
	}
	defer func() { _ = f.Close() }() // read only
	info, err := f.Stat()
	if err != nil {
		return vmConfig{}, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxYAML {
		return vmConfig{}, fmt.Errorf("vm.yaml is no file of at most %d bytes", maxYAML)
	}
	text := make([]byte, info.Size())
	if _, err := f.ReadAt(text, 0); err != nil && len(text) > 0 {
		return vmConfig{}, err
	}
	config, err := parseVMConfig(text, filepath.Base(v.dir), &v.host.config)
	if err != nil {
		return vmConfig{}, fmt.Errorf("vm.yaml: %w", err)
	}
	return config, nil
}

// filesExist notices a disk that was removed while nobody has it open.
func (v *vm) filesExist() bool {
	for _, d := range v.record.Disks {
		if _, err := v.host.files.Stat(context.Background(), d.Leaf); err != nil {
			return false
		}
	}
	return true
}

// adopt makes a new vm.yaml the VM's definition and brings the VM into the state that it asks for.
func (v *vm) adopt(ctx context.Context, config vmConfig) error {
	if v.planned { // its disks need not be there yet
		v.host.mu.Lock()
		defer v.host.mu.Unlock()
		v.config = config
		return nil
	}
	record, err := v.loadRecord(config)
	if err != nil {
		return err
	}
	if err := v.takeRecord(record); err != nil {
		return err
	}
	if err := v.removeGarbage(); err != nil {
		return err
	}
	if err := v.adoptDisks(ctx, config); err != nil {
		return err
	}
	v.host.mu.Lock()
	v.config = config
	v.host.mu.Unlock()
	if err := v.writeDefinition(); err != nil {
		return err
	}
	if config.State == stateRunning {
		return v.start(ctx)
	}
	return v.stop()
}

// loadRecord returns the record for a definition. It is stored when it turns out that nobody else has its id.
func (v *vm) loadRecord(config vmConfig) (vmRecord, error) {
	known := v.record
	if known == nil || known.Created.IsZero() {
		var err error
		if known, err = readRecord(v.recordPath()); err != nil {
			return vmRecord{}, err
		}
	}
	record := *known
	if config.ID != "" {
		record.ID = config.ID
	}
	if record.ID == "" && v.record != nil {
		record.ID = v.record.ID // the one under which the VM was shown so far
	}
	if record.ID == "" {
		record.ID = newGUID()
	}
	if record.Created.IsZero() {
		record.Created = v.host.now().UTC()
	}
	return record, nil
}

// takeRecord makes a record the VM's. A second VM with the same id, such as a copied folder, is refused and shown under an id of its
// own: all calls would confuse the two.
func (v *vm) takeRecord(record vmRecord) error {
	v.host.mu.Lock()
	defer v.host.mu.Unlock()
	for _, other := range v.host.vms {
		if other != v && other.record != nil && other.record.ID == record.ID {
			v.record = &vmRecord{ID: derivedGUID("copy", v.folder)}
			return fmt.Errorf("the VM in folder %s has the same id %s; give one of them another id, or remove %s of the copy", other.folder, record.ID, privateFolder)
		}
	}
	v.record = &record
	return nil
}

func (v *vm) recordPath() string { return filepath.Join(v.dir, privateFolder, "state.json") }

// commit changes the record and stores it. The caller holds op.
func (v *vm) commit(change func(*vmRecord)) error {
	v.host.mu.Lock()
	defer v.host.mu.Unlock()
	if v.gone {
		return fmt.Errorf("the VM in folder %s was removed", v.folder)
	}
	change(v.record)
	return v.record.write(v.recordPath())
}

// start opens the disks and serves them. The caller holds op.
func (v *vm) start(ctx context.Context) error {
	if v.running {
		return nil
	}
	if err := v.host.config.checkVersion(v.config.Version); err != nil {
		return err
	}
	for i, d := range v.disks {
		if err := d.acquire(ctx); err != nil {
			return errors.Join(err, releaseAll(v.disks[:i]))
		}
	}
	names := make(map[string]bool)
	for _, d := range v.disks {
		_, name := splitPath(d.path)
		for socket := name; ; socket += "+" {
			if !names[socket] {
				names[socket], name = true, socket
				break
			}
		}
		l, err := nbd.Listen(ctx, filepath.Join(v.dir, name+".nbd"))
		if err != nil {
			return errors.Join(fmt.Errorf("serve %s: %w", d.path, err), v.stopServers(), releaseAll(v.disks))
		}
		v.servers = append(v.servers, nbd.Serve(l, name, d))
	}
	v.host.mu.Lock()
	v.running, v.started = true, v.host.now()
	v.host.mu.Unlock()
	return nil
}

// stop ends the guest's access to its disks. A second call does nothing. The caller holds op.
func (v *vm) stop() error {
	if !v.running {
		return nil
	}
	err := errors.Join(v.stopServers(), releaseAll(v.disks))
	v.host.mu.Lock()
	v.running = false
	v.host.mu.Unlock()
	return err
}

func (v *vm) stopServers() error {
	var errs []error
	for _, s := range v.servers {
		errs = append(errs, s.Close())
	}
	v.servers = nil
	return errors.Join(errs...)
}

func releaseAll(disks []*disk) error {
	var errs []error
	for _, d := range disks {
		errs = append(errs, d.release())
	}
	return errors.Join(errs...)
}

// windowsPath is the path of something in the VM's folder.
func (v *vm) windowsPath(names ...string) string {
	volume := vmVolume
	if strings.HasPrefix(v.folder, sharedPrefix) {
		volume = sharedVolume
	}
	return strings.Join(append([]string{volume, filepath.Base(v.dir)}, names...), `\`)
}

// diskPath is the Windows path of a disk of vm.yaml.
func (v *vm) diskPath(d diskConfig) string {
	if d.remote() || len(d.Path) > 1 && d.Path[1] == ':' {
		return strings.ReplaceAll(d.Path, "/", `\`)
	}
	return v.windowsPath(strings.ReplaceAll(d.Path, "/", `\`))
}

func newGUID() string { return strings.ToUpper(uuid.NewString()) }
