package hyperv

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// maxChain is the largest number of files that we follow for one disk. Hyper-V allows 50 checkpoints in a row.
const maxChain = 64

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
