package emulator

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// trouble is what is wrong with a VM for as long as vm.yaml lists it.
type trouble string

const (
	// troubleMergeBlocked: the files of removed checkpoints are not merged until the VM was turned off, as after an export of the configuration without its
	// storage.
	troubleMergeBlocked trouble = "mergeBlocked"
	// troubleUnequalArrays: new reference points have no change tracking id of their first disk, so their two arrays differ in length.
	troubleUnequalArrays trouble = "unequalArrays"
	// troubleDirtyLog: a checkpoint leaves a log in the frozen files that has to be replayed by who reads them.
	troubleDirtyLog trouble = "dirtyLog"
	// troubleReplicating: Hyper-V Replica works on the disks right now, and a backup conflicts with that.
	troubleReplicating trouble = "replicating"
	// troubleTrackingKept: applying a checkpoint leaves the change tracking of the disks as it was, and ids of the abandoned branch are answered.
	troubleTrackingKept trouble = "trackingKept"
	// troubleLiveFilesHeld: the file that the VM writes while it runs cannot be opened for writing, so that only a conversion switches its tracking on.
	troubleLiveFilesHeld trouble = "liveFilesHeld"
	// troubleNamesRefused: recovery checkpoints cannot be renamed.
	troubleNamesRefused trouble = "namesRefused"
)

var troubles = []trouble{troubleMergeBlocked, troubleUnequalArrays, troubleDirtyLog, troubleReplicating, troubleNamesRefused, troubleTrackingKept, troubleLiveFilesHeld}

func (c *vmConfig) checkTroubles() error {
	for _, t := range c.Troubles {
		if !slices.Contains(troubles, t) {
			return fmt.Errorf("troubles: %q is none of %q", t, troubles)
		}
	}
	return nil
}

// has says whether a trouble is switched on. The caller holds op or Host.mu.
func (v *vm) has(t trouble) bool { return slices.Contains(v.config.Troubles, t) }

// SetTrouble switches a trouble of a VM on or off, as an edit of its vm.yaml does. The VM is named by its name, its folder or its id. What it means is
// in docs/emulator.md.
func (f *Faults) SetTrouble(machine, name string, on bool) error {
	v, err := f.host.machine(machine)
	if err != nil {
		return err
	}
	v.op.Lock()
	defer v.op.Unlock()
	if err := v.setTrouble(f.host.ctx, trouble(name), on); err != nil {
		return err
	}
	v.continueMerges()
	return nil
}

// setTrouble changes vm.yaml. The caller holds op.
func (v *vm) setTrouble(ctx context.Context, t trouble, on bool) error {
	if v.has(t) == on && slices.Contains(troubles, t) {
		return nil
	}
	return v.edit(ctx, func(c *vmConfig) error {
		c.Troubles = slices.DeleteFunc(c.Troubles, func(other trouble) bool { return other == t })
		if on {
			c.Troubles = append(c.Troubles, t)
		}
		return nil
	})
}

// machine finds a VM by its name, folder or id.
func (h *Host) machine(name string) (*vm, error) {
	h.scan()
	for _, v := range h.allVMs() {
		if v.record != nil && (filepath.Base(v.dir) == name || v.config.Name == name || strings.EqualFold(v.record.ID, name)) {
			return v, nil
		}
	}
	return nil, fmt.Errorf("no virtual machine %s", name)
}
