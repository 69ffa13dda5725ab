package hyperv

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// Lineage is what a disk was built on at a checkpoint.
type Lineage struct {
	// Files are the disk's files, topmost first.
	Files []string `json:"files,omitempty"`
	// Checkpoints are the ids of the checkpoints that the VM had come from, its latest first. Backups' own are none of them. The first one has the second file
	// as its own, and so on: no guest writes that file until the checkpoint is deleted.
	Checkpoints []string `json:"checkpoints,omitempty"`
}

// lineage describes a frozen disk, and names the file right above it in the chain of the VM's disk, "" when that does not stand on it. It need not be the topmost:
// the VM's user may have made a checkpoint since.
func (h *Host) lineage(ctx context.Context, frozen, live string, checkpoints []string) (of Lineage, above string, err error) {
	of.Checkpoints = checkpoints
	if live != "" {
		chain, err := h.chain(ctx, live)
		if err != nil {
			return Lineage{}, "", err
		}
		if at := indexFile(chain, frozen); at >= 0 {
			of.Files = chain[at:]
			if at > 0 {
				above = chain[at-1]
			}
			return of, above, nil
		}
	}
	of.Files, err = h.chain(ctx, frozen)
	return of, "", err
}

func indexFile(files []string, file string) int {
	return slices.IndexFunc(files, func(f string) bool { return strings.EqualFold(f, file) })
}

// before lists the ids of the checkpoints that a checkpoint follows, without those of backups.
func (vm VM) before(id string) []string {
	var out []string
	for range vm.Checkpoints { // parents that go round in a circle are followed once
		at := slices.IndexFunc(vm.Checkpoints, func(node CheckpointNode) bool { return strings.EqualFold(node.ID, id) })
		if at < 0 {
			break
		}
		if id = vm.Checkpoints[at].Parent; id == "" {
			break
		}
		if !slices.ContainsFunc(vm.recoveryCheckpoints(), func(node CheckpointNode) bool { return node.ID == id }) {
			out = append(out, id)
		}
	}
	return out
}

// continues tells whether a disk goes on from where it was at its base, so that all that differs was written since. It does while it stands on the file that it had
// then. That file goes in two ways: it is merged into the next one when the checkpoint between them is deleted, and thrown away when that checkpoint is applied. Of
// the second nothing else need be left: who applies one checkpoint again and again has the same one each time.
func (now Lineage) continues(base Lineage, exists func(checkpoint string) (bool, error)) (bool, error) {
	for i, file := range base.Files {
		if indexFile(now.Files, file) >= 0 {
			return true, nil
		}
		if i >= len(base.Checkpoints) {
			return false, nil
		}
		if applied, err := exists(base.Checkpoints[i]); applied || err != nil {
			return false, err
		}
	}
	return false, nil
}

// sameLineage is a *TrackingLostError for a disk that does not continue its base, whatever the host would answer about it. A base of an agent that did not
// record its lineage yet is left to the host.
func (h *Host) sameLineage(ctx context.Context, now, base Lineage) error {
	if len(base.Files) == 0 {
		return nil
	}
	continues, err := now.continues(base, func(checkpoint string) (bool, error) {
		_, found, err := h.settingsByID(ctx, checkpoint)
		return found, err
	})
	if err == nil && !continues {
		err = &TrackingLostError{Reason: AnotherFile,
			Detail: fmt.Sprintf("it does not stand on %s any more: a checkpoint was applied since, or the file was moved", base.Files[0])}
	}
	return err
}
