package emulator

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// requestedStates are the RequestedState values of a VM, with the states that each is allowed in.
var requestedStates = map[int64]struct {
	to   vmState
	from []vmState
	job  int64
}{
	2: {stateRunning, []vmState{stateOff, stateSaved, statePaused}, jobTypeStart},
	3: {stateOff, []vmState{stateRunning, stateSaved, statePaused}, jobTypePowerOff},
	6: {stateSaved, []vmState{stateRunning, statePaused}, jobTypeSave},
	9: {statePaused, []vmState{stateRunning}, jobTypePause},
}

func (c call) requestStateChange() (wmi.Result, error) {
	requested, _ := c.in["RequestedState"].(int64)
	change, ok := requestedStates[requested]
	v := c.target.vm
	if !ok || v == nil {
		return refuse(codeInvalidParameter)
	}
	c.host.mu.Lock()
	code := uint32(codeInvalidState)
	for _, from := range change.from {
		if v.config.State == from {
			code = v.claim(opOther)
		}
	}
	c.host.mu.Unlock()
	if code != codeDone {
		return refuse(code)
	}
	return c.job(change.job, v, nil, func(ctx context.Context) ([]string, error) {
		return nil, v.edit(c.host.ctx, func(c *vmConfig) error {
			c.State = change.to
			if change.to == stateOff { // what held the disk files is gone
				c.Troubles = slices.DeleteFunc(c.Troubles, func(t trouble) bool { return t == troubleMergeBlocked })
			}
			return nil
		})
	})
}

func (c call) defineSystem() (wmi.Result, error) {
	o, ok := c.in["SystemSettings"].(wmi.Object)
	if !ok || o.Path != "" || c.in["ReferenceConfiguration"] != nil {
		return refuse(codeInvalidParameter)
	}
	config := vmConfig{}
	config.setDefaults("New Virtual Machine", &c.host.config)
	*config.SCSIControllers = 0 // as Hyper-V: a new VM has none
	config.Generation = 1
	more := map[string]any{}
	if err := applySettings(&config, more, o.Properties, true); err != nil || !c.host.config.runs(config.Version) {
		return refuse(codeInvalidParameter)
	}
	v, err := c.host.createVM(config, more, o.Properties)
	if err != nil {
		return wmi.Result{}, err
	}
	return c.job(jobTypeDefine, v, nil, func(ctx context.Context) ([]string, error) {
		resources, _ := c.in["ResourceSettings"].([]wmi.Object)
		err := v.edit(ctx, func(config *vmConfig) error {
			_, err := c.host.applyResources(v, config, resources, addResource)
			return err
		})
		if err != nil {
			return nil, errors.Join(err, c.host.destroy(v))
		}
		return []string{c.host.vmPath(v)}, nil
	})
}

// createVM makes the folder of a new VM, claimed for the job that defines it.
func (h *Host) createVM(config vmConfig, more, asked map[string]any) (*vm, error) {
	h.scanning.Lock()
	defer h.scanning.Unlock()
	root, _ := asked["ConfigurationDataRoot"].(string)
	h.mu.Lock()
	defer h.mu.Unlock()
	folder := h.freeFolder(config.Name, root)
	v := &vm{
		host: h, folder: folder, dir: filepath.Join(h.dir, folder), config: config, busy: opOther,
		record: &vmRecord{ID: newGUID(), Created: h.now().UTC(), Settings: more},
	}
	if err := v.record.write(v.recordPath()); err != nil {
		return nil, err
	}
	h.vms[folder] = v
	v.op.Lock() // until vm.yaml is there, the scan would take the VM for a removed one
	defer v.op.Unlock()
	text, err := updateYAML(nil, vmConfig{}, config)
	if err != nil {
		return nil, err
	}
	return v, writeFile(filepath.Join(v.dir, "vm.yaml"), text)
}

// freeFolder names the folder of a new VM: the one that a client asked for below the VMs' folder, else the VM's name. The caller holds Host.mu.
func (h *Host) freeFolder(name, root string) string {
	folder := folderFor(name)
	if parent, name := splitPath(strings.TrimSuffix(root, `\`)); strings.EqualFold(parent, vmVolume) && folderFor(name) == name {
		folder = name
	}
	for base, n := folder, 2; h.vms[folder] != nil; n++ {
		folder = base + "-" + strconv.Itoa(n)
	}
	return folder
}

// folderFor makes a folder's name of a VM's.
func folderFor(name string) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || strings.ContainsRune(`<>:"/\|?*`, r) {
			return '_'
		}
		return r
	}, name)
	return strings.TrimRight(strings.TrimLeft(clean, "."), ". ")
}

var errNotVMSettings = errors.New("the property cannot be set")

// applySettings sets properties of Msvm_VirtualSystemSettingData. Those that vm.yaml has no field for go to more.
func applySettings(c *vmConfig, more, properties map[string]any, define bool) error { //nolint:gocyclo // a case for each property
	for name, value := range properties {
		switch x := value.(type) {
		case string:
			switch name {
			case "ElementName":
				c.Name = x
				continue
			case "VirtualSystemSubType", "Version":
				if !define && x != map[string]string{"Version": c.Version, "VirtualSystemSubType": "Microsoft:Hyper-V:SubType:" + strconv.FormatInt(c.Generation, 10)}[name] {
					return errNotVMSettings
				}
				if name == "Version" {
					c.Version = x
				} else if generation, ok := strings.CutPrefix(x, "Microsoft:Hyper-V:SubType:"); ok {
					c.Generation = int64(generation[0] - '0')
				} else {
					return errNotVMSettings
				}
				continue
			}
		case []string:
			if name == "Notes" {
				c.Notes = x
				continue
			}
		case bool:
			if name == "SecureBootEnabled" {
				c.SecureBoot = x
				continue
			}
		case int64:
			if name == "UserSnapshotType" {
				for policy, n := range userSnapshotTypes {
					if n == x {
						c.Checkpoints = policy
					}
				}
				continue
			}
		}
		more[name] = value
	}
	return c.check()
}

func (c call) modifySystemSettings() (wmi.Result, error) {
	o, _ := c.in["SystemSettings"].(wmi.Object)
	c.host.mu.Lock()
	target, ok := c.host.find(o.Path)
	if !ok || !target.isSettings() {
		c.host.mu.Unlock()
		return refuse(codeInvalidParameter)
	}
	v := target.vm
	code := v.claim(opOther)
	c.host.mu.Unlock()
	if code != codeDone {
		return refuse(code)
	}
	defer v.unclaim()
	v.op.Lock()
	defer v.op.Unlock()
	var err error
	switch s := target.settings.snapshot; {
	case s != nil && s.Type == typeRecoverySnapshot && v.has(troubleNamesRefused):
		return refuse(codeInvalidState)
	case s != nil:
		err = v.modifySnapshot(s, o.Properties)
	default:
		more := map[string]any{}
		err = v.edit(c.host.ctx, func(c *vmConfig) error { return applySettings(c, more, o.Properties, false) })
		if err == nil && len(more) > 0 {
			err = v.commit(func(r *vmRecord) {
				if r.Settings == nil {
					r.Settings = map[string]any{}
				}
				for name, value := range more {
					r.Settings[name] = value
				}
			})
		}
	}
	if err != nil {
		c.host.log.Info("settings were refused", "vm", v.folder, "error", err)
		return refuse(codeInvalidParameter)
	}
	return refuse(codeDone)
}

// modifySnapshot renames a checkpoint; nothing else of it can be changed. The caller holds op.
func (v *vm) modifySnapshot(s *snapshotRecord, properties map[string]any) error {
	for name := range properties {
		if name != "ElementName" && name != "Notes" {
			return errNotVMSettings
		}
	}
	err := v.commit(func(*vmRecord) {
		if name, ok := properties["ElementName"].(string); ok {
			s.Name = name
		}
		if notes, ok := properties["Notes"].([]string); ok {
			s.Notes = notes
		}
	})
	if err != nil || v.planned {
		return err
	}
	return v.writeSnapshotFiles(s)
}

func (c call) destroySystem() (wmi.Result, error) {
	c.host.mu.Lock()
	target, ok := c.object("AffectedSystem")
	if !ok || !target.isVM() {
		c.host.mu.Unlock()
		return refuse(codeInvalidParameter)
	}
	v := target.vm
	if v.planned {
		code := v.claim(opOther)
		c.host.mu.Unlock()
		if code != codeDone {
			return refuse(code)
		}
		return c.job(jobTypeDestroy, v, nil, func(context.Context) ([]string, error) { return nil, c.host.destroyPlanned(v) })
	}
	code := uint32(codeInvalidState)
	ofBackup := slices.ContainsFunc(v.record.Snapshots, func(s *snapshotRecord) bool { return !s.ofUser() })
	if v.config.State == stateOff && !ofBackup && len(v.record.Merges) == 0 {
		code = v.claim(opOther)
	}
	c.host.mu.Unlock()
	if code != codeDone {
		return refuse(code)
	}
	return c.job(jobTypeDestroy, v, nil, func(context.Context) ([]string, error) {
		return nil, c.host.destroy(v)
	})
}

// destroy removes what makes a folder a VM, its checkpoints with it, and never its disks. Hyper-V merges those of checkpoints first; here they stay as they are.
// The caller holds op.
func (h *Host) destroy(v *vm) error {
	if err := os.Remove(filepath.Join(v.dir, "vm.yaml")); err != nil { // from here on it is no VM
		return err
	}
	h.forget(v)
	var errs []error
	for _, folder := range []string{privateFolder, machineFolder, snapshotFolder} {
		errs = append(errs, os.RemoveAll(filepath.Join(v.dir, folder)))
	}
	if err := os.Remove(v.dir); err != nil {
		h.log.Info("the folder of a destroyed VM stays", "folder", v.folder, "reason", err) // its disks are in it
	}
	return errors.Join(errs...)
}
