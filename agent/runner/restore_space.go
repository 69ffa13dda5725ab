package runner

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/recovery"
)

// space refuses a restore that does not fit, before a byte is written.
func (r *restoreRun) space(ctx context.Context) error {
	if r.entry.Restore.Written {
		return nil
	}
	needed := map[string]int64{} // by path
	for i := range r.disks {
		if r.tree() != nil || r.rollsBack(i) {
			continue // as much as the tree has, or as differs, which nobody knows yet
		}
		_, file, err := recovery.Needs(r.disks[i].source, recovery.VHDX)
		if err != nil {
			return err
		}
		needed[r.disks[i].path] = file
	}
	r.eachTreeDisk(func(file TreeFile) { needed[file.To] = file.Size })
	return r.fits(ctx, needed)
}

// fits says whether files of these sizes, by their paths, find room: each volume must have it for all of those that it gets.
func (r *restoreRun) fits(ctx context.Context, sizes map[string]int64) error {
	needed, spaces := map[string]int64{}, map[string]hostfs.Space{} // by volume
	for path, size := range sizes {
		space, err := r.host.Space(ctx, path)
		if err != nil {
			return err
		}
		key := strings.ToUpper(space.Volume)
		needed[key] += size
		spaces[key] = space
	}
	for _, key := range slices.Sorted(maps.Keys(needed)) {
		name := strings.TrimSuffix(spaces[key].Volume, `\`)
		need, free := humanize.IBytes(uint64(needed[key])), humanize.IBytes(uint64(spaces[key].Free))
		if spaces[key].Free < needed[key] {
			return stall("NotEnoughSpace", fmt.Errorf("the restore needs %s on volume %s, which has %s free: free space there, or name a target.folder on another volume",
				need, name, free))
		}
		r.report.Note("Up to %s of files on volume %s, which has %s free.", need, name, free)
	}
	return nil
}
