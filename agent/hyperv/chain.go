package hyperv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// maxChain is the largest number of files that we follow for one disk. Hyper-V allows 50 checkpoints in a row.
const maxChain = 64

// OpenDisk is the content of a frozen disk, open for reading.
type OpenDisk struct {
	*vhdx.Disk
	files []hostfs.File
}

// Close closes all files of the chain. The disk cannot be read afterwards.
func (d *OpenDisk) Close() error {
	var errs []error
	for _, f := range d.files {
		errs = append(errs, f.Close())
	}
	d.files = nil
	return errors.Join(errs...)
}

// OpenDisk opens a frozen disk as the guest saw it. The files of its chain are found by asking the host for the parent of each; what a file itself says
// about its parent is only compared. ErrPath when the chain leaves the host's fixed volumes, loops or is too deep; vhdx.ErrCorrupt and its kin when the
// files do not belong together.
func (h *Host) OpenDisk(ctx context.Context, d FrozenDisk) (*OpenDisk, error) {
	chain := d.Chain
	if len(chain) == 0 {
		var err error
		if chain, err = h.chain(ctx, d.Path); err != nil {
			return nil, fmt.Errorf("open disk %s: %w", d.Key, err)
		}
	}
	open := &OpenDisk{}
	members := make([]*vhdx.File, 0, len(chain))
	for _, path := range chain {
		member, err := h.openMember(ctx, open, path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("open disk %s: %s: %w", d.Key, path, err), open.Close())
		}
		members = append(members, member)
	}
	var err error
	if open.Disk, err = vhdx.NewDisk(members...); err != nil {
		return nil, errors.Join(fmt.Errorf("open disk %s: %w", d.Key, err), open.Close())
	}
	return open, nil
}

func (h *Host) openMember(ctx context.Context, open *OpenDisk, path string) (*vhdx.File, error) {
	file, err := h.files.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	open.files = append(open.files, file)
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	return vhdx.Open(file, size)
}

// chain lists the files of a disk, topmost first, by asking the host.
func (h *Host) chain(ctx context.Context, path string) ([]string, error) {
	volumes, err := h.volumes(ctx)
	if err != nil {
		return nil, err
	}
	var chain []string
	for path != "" {
		if err := checkDiskPath(path, volumes); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(chain, func(seen string) bool { return strings.EqualFold(seen, path) }) {
			return nil, fmt.Errorf("%w: the chain of disk files comes back to %s", ErrPath, path)
		}
		if len(chain) == maxChain {
			return nil, fmt.Errorf("%w: more than %d files in a chain", ErrPath, maxChain)
		}
		chain = append(chain, path)
		info, err := h.disks.Info(ctx, path)
		if err != nil {
			return nil, fmt.Errorf("inspect %s: %w", path, err)
		}
		path = info.ParentPath
	}
	return chain, nil
}
