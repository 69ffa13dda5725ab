package hyperv

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// The mark of our checkpoints is their name: "hyperkeep <tag> <level>".
const namePrefix = "hyperkeep "

func checkpointName(tag string, level Level) string {
	return namePrefix + tag + " " + strings.ToLower(string(level))
}

// parseName reads our mark. A name that has no level that we know counts as Crash, which promises least.
func parseName(name string) (tag string, level Level, ours bool) {
	rest, ours := strings.CutPrefix(name, namePrefix)
	if !ours {
		return "", "", false
	}
	tag, text, _ := strings.Cut(rest, " ")
	for _, level := range []Level{Application, Offline} {
		if text == strings.ToLower(string(level)) {
			return tag, level, tag != ""
		}
	}
	return tag, Crash, tag != ""
}

// name marks a checkpoint as ours. That Hyper-V renames recovery checkpoints is nowhere promised: one that must go without its name is recognized by its id
// and as good for a backup. wmi.ErrDisconnected.
func (h *Host) name(ctx context.Context, made wmi.Instance, vmID, tag string, level Level) (Checkpoint, error) {
	r := &reader{Instance: made}
	cp := Checkpoint{ID: r.text("InstanceID"), VMID: vmID, Tag: tag, Level: level, Taken: r.time("CreationTime")}
	if r.err != nil {
		return Checkpoint{}, r.err
	}
	_, err := h.callService(ctx, managementService, "ModifySystemSettings", wmi.Params{
		"SystemSettings": wmi.Object{Class: classSettings, Path: made.Path, Properties: map[string]any{"ElementName": checkpointName(tag, level)}},
	})
	switch {
	case err == nil:
	case ctx.Err() != nil, errors.Is(err, wmi.ErrDisconnected):
		return Checkpoint{}, fmt.Errorf("name the checkpoint: %w", err)
	default:
		cp.Unnamed = err.Error()
		h.Recognize(cp)
	}
	return cp, nil
}

// Recognize tells the Host of a checkpoint that an earlier one took and the caller journaled. From then on it is ours, also where Hyper-V did not let it
// have its name. Nothing is called. A second call does nothing.
func (h *Host) Recognize(cp Checkpoint) {
	if cp.Unnamed == "" {
		return // its name says so
	}
	h.recognizing.Lock()
	defer h.recognizing.Unlock()
	h.recognized[strings.ToUpper(cp.ID)] = cp
}

// forget is for a checkpoint that is gone: its id never comes again.
func (h *Host) forget(cp Checkpoint) {
	h.recognizing.Lock()
	defer h.recognizing.Unlock()
	delete(h.recognized, strings.ToUpper(cp.ID))
}

// claimed is what we know of a recovery checkpoint, when it is ours: by its name, else by having been recognized.
func (h *Host) claimed(id, name string) (cp Checkpoint, ours bool) {
	if tag, level, ours := parseName(name); ours {
		return Checkpoint{Tag: tag, Level: level}, true
	}
	h.recognizing.Lock()
	defer h.recognizing.Unlock()
	cp, ours = h.recognized[strings.ToUpper(id)]
	return cp, ours
}

// ours refuses a checkpoint that is not a recovery checkpoint of ours, whatever the caller believes.
func (h *Host) ours(settings wmi.Instance) error {
	r := &reader{Instance: settings}
	kind, id, name := r.text("VirtualSystemType"), r.text("InstanceID"), r.text("ElementName")
	if r.err != nil {
		return r.err
	}
	if _, ok := h.claimed(id, name); !ok || kind != typeRecoverySnapshot {
		return fmt.Errorf("%w: %q", ErrNotOurs, name)
	}
	return nil
}
