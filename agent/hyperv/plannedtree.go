package hyperv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// TargetTree is what the checkpoints of a VM's user are imported from. Its files belong to the VM from then on, but for those in Folder.
type TargetTree struct {
	// Folder has the configuration files of the checkpoints.
	Folder string
	// Disks are the restored disk files of the tree. Each names the one above which it was made, so they have to be where they are.
	Disks []MovedFile
}

// MovedFile is a file that is restored to another path than it had.
type MovedFile struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// at is where a file of the tree is restored, also when it is named by that path already.
func (t *TargetTree) at(path string) (string, bool) {
	for _, f := range t.Disks {
		if strings.EqualFold(f.To, path) {
			return f.To, true
		}
	}
	for _, f := range t.Disks {
		if strings.EqualFold(f.From, path) {
			return f.To, true
		}
	}
	return "", false
}

// importCheckpoints lets Hyper-V find the checkpoints that a planned VM's definition names, and makes each fit as the VM itself: whoever goes back to one gets
// restored disks, and no address or switch that a copy must not have.
func (h *Host) importCheckpoints(ctx context.Context, planned plannedVM, t RestoreTarget) error {
	if t.Tree == nil {
		return nil
	}
	checkpoints, err := h.plannedCheckpoints(ctx, planned)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(checkpoints, plannedCheckpoint.isMissing) || len(checkpoints) == 0 {
		done, err := h.callService(ctx, managementService, "ImportSnapshotDefinitions", wmi.Params{
			"PlannedSystem": planned.system, "SnapshotFolder": t.Tree.Folder,
		})
		if err != nil && !errors.Is(err, wmi.ErrJobGone) { // what came of a job that is gone is looked at next
			return refusal(fmt.Errorf("import the checkpoints: %w", err))
		}
		if err := warnAll(t, done.Warnings); err != nil {
			return err
		}
		if checkpoints, err = h.plannedCheckpoints(ctx, planned); err != nil {
			return err
		}
	}
	for _, c := range checkpoints {
		if c.isMissing() {
			continue
		}
		of := plannedVM{id: planned.id, system: planned.system, settings: c.settings}
		for _, step := range []func(context.Context, plannedVM, RestoreTarget) error{h.placeTree, h.ejectMissing, h.placeAdapters} {
			if err := step(ctx, of, t); err != nil {
				return fmt.Errorf("checkpoint %q: %w", c.name, err)
			}
		}
	}
	return nil
}

// plannedCheckpoint is a checkpoint of a planned VM.
type plannedCheckpoint struct {
	kind, name string
	settings   wmi.Instance
}

// isMissing says that the definition names the checkpoint, and its own files were not imported.
func (c plannedCheckpoint) isMissing() bool { return c.kind == typeMissingSnapshot }

func (h *Host) plannedCheckpoints(ctx context.Context, planned plannedVM) ([]plannedCheckpoint, error) {
	snapshots, err := h.virt.Associators(ctx, planned.system, "Msvm_SnapshotOfVirtualSystem", classSettings)
	if err != nil {
		return nil, fmt.Errorf("list the planned checkpoints: %w", err)
	}
	out := make([]plannedCheckpoint, 0, len(snapshots))
	for _, s := range snapshots {
		r := &reader{Instance: s}
		out = append(out, plannedCheckpoint{kind: r.text("VirtualSystemType"), name: r.text("ElementName"), settings: s})
		if r.err != nil {
			return nil, r.err
		}
	}
	return out, nil
}

// placeTree points the disks of a checkpoint to the restored files, and takes out those that the image does not have.
func (h *Host) placeTree(ctx context.Context, checkpoint plannedVM, t RestoreTarget) error {
	have, err := h.storageOf(ctx, checkpoint.settings.Path)
	if err != nil {
		return err
	}
	for _, d := range have.disks {
		path, restored := t.Tree.at(d.Path)
		switch {
		case restored && strings.EqualFold(d.Path, path):
		case restored:
			err = h.modifyDevices(ctx, wmi.Object{Class: classAllocation, Path: d.path, Properties: map[string]any{"HostResource": []string{path}}})
		default:
			err = h.takeOut(ctx, d, t, fmt.Sprintf("A checkpoint has nothing at %s in place of %s, which the image does not have.", d.Key, d.Path))
		}
		if err != nil {
			return refusal(fmt.Errorf("place the disk at %s: %w", d.Key, err))
		}
	}
	return nil
}
