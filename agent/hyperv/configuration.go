package hyperv

import (
	"context"
	"fmt"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// ConfigFile is one file of a checkpoint's configuration.
type ConfigFile struct {
	// Name is the file's name without its folder. Path is where it lies on the host.
	Name string `json:"name"`
	Path string `json:"path"`
	// Source is where it lies outside of a shadow copy, "" when Path is that.
	Source string `json:"source,omitempty"`
	Size   int64  `json:"size"`
}

// ConfigurationFiles lists the files that describe the VM as the checkpoint holds it: the configuration (.vmcx), the guest's state (.vmgs) and the runtime
// state (.vmrs). Read them after the disks, when Hyper-V has written them. ErrCheckpointNotFound.
func (h *Host) ConfigurationFiles(ctx context.Context, cp Checkpoint) ([]ConfigFile, error) {
	settings, err := h.checkpointSettings(ctx, cp)
	if err != nil {
		return nil, fmt.Errorf("list the configuration of checkpoint %s: %w", cp.ID, err)
	}
	out, err := h.configurationFiles(ctx, settings)
	if err != nil {
		return nil, fmt.Errorf("list the configuration of checkpoint %s: %w", cp.ID, err)
	}
	return out, nil
}

// configurationFiles lists the files of a settings object: the one that it names, and those of its stem.
func (h *Host) configurationFiles(ctx context.Context, settings wmi.Instance) ([]ConfigFile, error) {
	r := &reader{Instance: settings}
	main := joinPath(r.text("ConfigurationDataRoot"), r.text("ConfigurationFile"))
	if r.err != nil {
		return nil, r.err
	}
	folder, name := splitPath(main)
	stem := name
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		stem = name[:i]
	}
	entries, err := h.files.ReadDir(ctx, folder)
	if err != nil {
		return nil, err
	}
	var out []ConfigFile
	for _, entry := range entries {
		if entry.IsDir() || len(entry.Name()) <= len(stem) || !strings.EqualFold(entry.Name()[:len(stem)+1], stem+".") {
			continue
		}
		out = append(out, ConfigFile{Name: entry.Name(), Path: joinPath(folder, entry.Name()), Size: entry.Size()})
	}
	return out, nil
}
