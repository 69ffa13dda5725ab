package emulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// maxDefinition is the size of the largest file that is taken for a definition.
const maxDefinition = 16 << 20

func (c call) importSystem() (wmi.Result, error) {
	path, _ := c.in["SystemDefinitionFile"].(string)
	generate, _ := c.in["GenerateNewSystemIdentifier"].(bool)
	if path == "" {
		return refuse(codeInvalidParameter)
	}
	if c.host.configures(path) {
		return refuse(codeInUse)
	}
	return c.jobWithout(jobTypeImport, "Import of "+path, func(ctx context.Context) ([]string, error) {
		d, err := c.host.readDefinition(ctx, path)
		if err != nil {
			return nil, err
		}
		id := d.ID
		if generate {
			id = newGUID()
		}
		v, err := c.host.plan(d, id)
		if err != nil {
			return nil, err
		}
		return []string{c.host.vmPath(v)}, nil
	})
}

// configures says whether a file is that of a VM or checkpoint which exists.
func (h *Host) configures(path string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.sortedVMs() {
		if v.record == nil || v.planned {
			continue
		}
		for _, s := range v.allSettings() {
			folder := machineFolder
			if s.snapshot != nil {
				folder = snapshotFolder
			}
			if strings.EqualFold(path, v.windowsPath(folder, s.config.definitionFile(s.id()))) {
				return true
			}
		}
	}
	return false
}

// readDefinition reads a configuration file and the guest's state beside it, and refuses what this host cannot run.
func (h *Host) readDefinition(ctx context.Context, path string) (importedDefinition, error) {
	var d importedDefinition
	text, err := h.readSmall(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return d, &jobError{codeFileNotFound, fmt.Sprintf("The file %s was not found.", path)}
	}
	if err == nil {
		d.definition, err = unpackDefinition(text)
	}
	if err != nil {
		return d, &jobError{codeFailed, fmt.Sprintf("Failed to load virtual machine configuration from %s: %v.", path, err)}
	}
	if !h.config.runs(d.Config.Version) {
		return d, &jobError{codeFailed, fmt.Sprintf("The version %s of the virtual machine's configuration is not supported by this host.", d.Config.Version)}
	}
	stem := strings.TrimSuffix(path, filepath.Ext(path))
	if d.Config.hasGuestState() {
		d.guestState, err = h.readBeside(ctx, stem+".vmgs")
	}
	if err == nil && d.Config.State == stateSaved {
		d.savedState, err = h.readBeside(ctx, d.Config.runtimeFile(stem))
	}
	return d, err
}

// readBeside reads a file that a definition may do without.
func (h *Host) readBeside(ctx context.Context, path string) ([]byte, error) {
	text, err := h.readSmall(ctx, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return text, err
}

func (h *Host) readSmall(ctx context.Context, path string) ([]byte, error) {
	f, err := h.files.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // read only
	size, err := f.Size()
	if err != nil || size > maxDefinition {
		return nil, errors.Join(err, errDefinition)
	}
	return io.ReadAll(io.NewSectionReader(f, 0, size))
}

// plannedVM resolves a planned VM and claims it.
func (c call) plannedVM() (*vm, uint32) {
	c.host.mu.Lock()
	defer c.host.mu.Unlock()
	target, ok := c.object("PlannedSystem")
	if !ok || !target.isVM() || !target.vm.planned {
		return nil, codeInvalidParameter
	}
	return target.vm, target.vm.claim(opOther)
}

func (c call) validatePlanned() (wmi.Result, error) {
	v, code := c.plannedVM()
	if code != codeDone {
		return refuse(code)
	}
	return c.job(jobTypeValidate, v, nil, func(ctx context.Context) ([]string, error) {
		refused, warnings := v.unfit(ctx)
		if all := append(refused, warnings...); len(all) > 0 {
			return nil, &jobWarnings{all}
		}
		return nil, nil
	})
}

func (c call) realizePlanned() (wmi.Result, error) {
	v, code := c.plannedVM()
	if code != codeDone {
		return refuse(code)
	}
	return c.job(jobTypeRealize, v, nil, func(ctx context.Context) ([]string, error) {
		realized, err := c.host.realize(ctx, v)
		if err != nil {
			return nil, err
		}
		return []string{c.host.vmPath(realized)}, nil
	})
}
