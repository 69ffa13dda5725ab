package hyperv

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Level is how consistent the content of a checkpoint is.
type Level string

// The levels. Offline is never asked for: it is what a VM that was off the whole time gives, and is as good as Application.
const (
	Application Level = "Application"
	Crash       Level = "Crash"
	Offline     Level = "Offline"
)

// Checkpoint is a recovery checkpoint of ours: while it exists the VM writes to new files, and those it had before are frozen. It is a plain
// value that can be stored and used after a restart.
type Checkpoint struct {
	// ID is the InstanceID of the checkpoint.
	ID    string    `json:"id"`
	VMID  string    `json:"vmID"`
	Tag   string    `json:"tag"`
	Level Level     `json:"level"`
	Taken time.Time `json:"taken"`
	// Unnamed is why Hyper-V did not let the checkpoint have the name that says whose it is, "" when it has it. Such a checkpoint is ours to the Host that took or
	// found it, and to one that is told of it (Recognize); to anybody else it looks like another product's.
	Unnamed string `json:"unnamed,omitempty"`
}

// CheckpointRequest says what checkpoint to take.
type CheckpointRequest struct {
	VMID string
	// Tag is the uid of the task. A VM has at most one checkpoint of a tag.
	Tag string
	// Level is Application or Crash.
	Level Level
	// RequireAllDisks makes Hyper-V refuse a VM with disks that no checkpoint can hold, instead of leaving them out.
	RequireAllDisks bool
	// CopyOnly asks the guest's applications to leave their logs alone. Otherwise they may truncate them as soon as the checkpoint is taken: see CopiesGuests.
	CopyOnly bool
	// Timeout bounds the wait for the guest and the host. Zero waits as long as ctx does.
	Timeout time.Duration
	// Intent is what PrepareCheckpoint returned before the first call with this tag.
	Intent Intent
}

// Intent is what the host looked like before a checkpoint was asked for. The caller writes it to its journal, and then calls Checkpoint with it,
// every time for the same tag.
//
// It closes the one window that Hyper-V leaves open: a checkpoint gets its name only after it was made, if Hyper-V lets it have one at all, and an agent
// that dies in between leaves one that nobody can tell from another product's. With the intent it can be told: it is ours if it has no name of
// ours, did not exist when the intent was written, was made soon after, and is the only such one. Another product cannot have made it at the same time,
// because Hyper-V allows a VM one recovery checkpoint at a time; that leaves the case that our request never reached Hyper-V and another product
// came first within adoptionWindow.
type Intent struct {
	// Time is by the host's clock.
	Time  time.Time `json:"time"`
	Level Level     `json:"level"`
	// Known are the recovery checkpoints that existed.
	Known []string `json:"known,omitempty"`
	// ReferencePoints are those that existed, nil where nobody looked.
	ReferencePoints []string `json:"referencePoints"`
}

// adoptionWindow is how long after an intent Hyper-V may still finish the checkpoint that was asked for: longer than anybody waits for a guest.
const adoptionWindow = 90 * time.Minute

// PrepareCheckpoint looks at a VM before a checkpoint at this level. It changes nothing. ErrVMNotFound.
func (h *Host) PrepareCheckpoint(ctx context.Context, vmID string, level Level) (Intent, error) {
	info, err := h.Info(ctx)
	if err != nil {
		return Intent{}, fmt.Errorf("prepare a checkpoint: %w", err)
	}
	vm, err := h.situation(ctx, vmID)
	if err != nil {
		return Intent{}, fmt.Errorf("prepare a checkpoint: %w", err)
	}
	points, err := h.ReferencePoints(ctx, vmID)
	if err != nil {
		return Intent{}, fmt.Errorf("prepare a checkpoint: %w", err)
	}
	intent := Intent{Time: info.Time, Level: level, ReferencePoints: []string{}}
	for _, point := range points {
		intent.ReferencePoints = append(intent.ReferencePoints, point.ID)
	}
	for _, node := range vm.recoveryCheckpoints() {
		intent.Known = append(intent.Known, node.ID)
	}
	return intent, nil
}

// Checkpoint takes the recovery checkpoint of a task, or returns the one that an earlier call took, whatever its level.
//
// ErrVMNotFound, ErrVMState (Application and the VM is saved, paused or a replica), ErrBusy, ErrForeignCheckpoint, ErrQuiesce (with what the guest
// said; also when Timeout passed at the level Application), ErrNoCopy, ErrNoSpace. After any error, and when ctx ends, a checkpoint may exist all the same:
// call again, or FindCheckpoint and Release.
func (h *Host) Checkpoint(ctx context.Context, r CheckpointRequest) (Checkpoint, error) {
	// One look decides both whether ours exists and whether another may be made: a job of an earlier call may be ending right now.
	vm, err := h.situation(ctx, r.VMID)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	if cp, err := h.find(ctx, vm, r.Tag, r.Intent); !errors.Is(err, ErrCheckpointNotFound) {
		return cp, err
	}
	if err := admits(vm, r); err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint %s: %w", vm.Name, err)
	}
	made, err := h.createCheckpoint(ctx, vm, r)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint %s: %w", vm.Name, err)
	}
	level := r.Level
	if vm.State == Off {
		// Nobody was asked to quiesce. It is Offline only if the VM was still off afterwards.
		level = Crash
		if after, err := h.situation(ctx, r.VMID); err == nil && after.State == Off {
			level = Offline
		}
	}
	return h.name(ctx, made, vm.ID, r.Tag, level)
}

// situation reads what decides about a checkpoint: the VM's state and checkpoints, without its devices.
func (h *Host) situation(ctx context.Context, vmID string) (VM, error) {
	id := strings.ToUpper(vmID)
	settings, err := h.keyed(ctx, classSettings, "VirtualSystemIdentifier", id)
	if err != nil {
		return VM{}, err
	}
	f := facts{settings: map[string][]wmi.Instance{}}
	for _, k := range settings {
		f.settings[k.id] = append(f.settings[k.id], k.instance)
	}
	if f.systems, err = h.keyedOnce(ctx, classSystem, "Name", id); err != nil {
		return VM{}, err
	}
	vm, found, err := h.describeVM(f, id)
	if err == nil && !found {
		err = fmt.Errorf("%w: %s", ErrVMNotFound, vmID)
	}
	return vm, err
}

// admits tells whether a checkpoint may be asked for now.
func admits(vm VM, r CheckpointRequest) error {
	if err := unattended(vm); err != nil {
		return err
	}
	switch {
	case vm.RawState >= criticalFirst && vm.RawState <= criticalLast:
		return fmt.Errorf("%w: critical state %d", ErrVMState, vm.RawState)
	case vm.State == Other:
		return fmt.Errorf("%w: state %d", ErrBusy, vm.RawState)
	case r.Level == Application && (vm.State == Saved || vm.State == Paused):
		return fmt.Errorf("%w: an application-consistent checkpoint of a virtual machine that is %s", ErrVMState, strings.ToLower(string(vm.State)))
	case r.Level == Application && vm.Replica.onReplicaSide():
		return fmt.Errorf("%w: an application-consistent checkpoint of a replica", ErrVMState)
	}
	return nil
}

// unattended tells whether no backup and no other operation works on a VM.
func unattended(vm VM) error {
	if recovery := vm.recoveryCheckpoints(); len(recovery) > 0 {
		if recovery[0].Tag == "" {
			return fmt.Errorf("%w: %q", ErrForeignCheckpoint, recovery[0].Name)
		}
		return fmt.Errorf("%w: the checkpoint of task %s is not released yet", ErrBusy, recovery[0].Tag)
	}
	if vm.Operation != "" {
		return fmt.Errorf("%w: %s", ErrBusy, vm.Operation)
	}
	return nil
}

// Values of CreateSnapshot (Msvm_VirtualSystemSnapshotService, Msvm_VirtualSystemSnapshotSettingData).
const (
	snapshotTypeRecovery   = 32768
	consistencyApplication = 1
	consistencyCrash       = 2
)

// createCheckpoint makes the checkpoint, without its name.
func (h *Host) createCheckpoint(ctx context.Context, vm VM, r CheckpointRequest) (wmi.Instance, error) {
	waiting := ctx
	if r.Timeout > 0 {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeoutCause(ctx, r.Timeout, errTimeout)
		defer cancel()
	}
	consistency := consistencyCrash
	if r.Level == Application && vm.State != Off {
		consistency = consistencyApplication
	}
	settings := map[string]any{"ConsistencyLevel": int64(consistency), "IgnoreNonSnapshottableDisks": !r.RequireAllDisks}
	if err := h.setBackupType(ctx, settings, r.CopyOnly); err != nil {
		return wmi.Instance{}, err
	}
	done, err := h.callService(waiting, snapshotService, "CreateSnapshot", wmi.Params{
		"AffectedSystem":   vm.systemPath,
		"SnapshotType":     int64(snapshotTypeRecovery),
		"SnapshotSettings": wmi.Object{Class: "Msvm_VirtualSystemSnapshotSettingData", Properties: settings},
	})
	if err != nil {
		return wmi.Instance{}, checkpointFailure(err, consistency == consistencyApplication, r.Timeout)
	}
	made, err := h.results(ctx, done, "ResultingSnapshot", classSettings)
	if err != nil {
		return wmi.Instance{}, err
	}
	for _, instance := range made {
		// The VM's own settings are among what the job affected.
		if kind, err := instance.String("VirtualSystemType"); err == nil && kind == typeRecoverySnapshot {
			return instance, nil
		}
	}
	return wmi.Instance{}, fmt.Errorf("%w: Hyper-V reports success but no recovery checkpoint", ErrCheckpointNotFound)
}

var errTimeout = errors.New("timed out")

// checkpointFailure finds the meaning of a failed CreateSnapshot. What is wrong in a guest reaches us only as text in the host's language, so at the
// level Application every failure that no code explains counts as the guest's. If it was not, the crash-consistent attempt fails as well.
func checkpointFailure(err error, application bool, timeout time.Duration) error {
	var failed *wmi.MethodError
	switch {
	case !application:
		return err
	case errors.Is(err, errTimeout):
		return fmt.Errorf("%w: no answer within %s", ErrQuiesce, timeout)
	case errors.Is(err, ErrBusy), errors.Is(err, ErrNoSpace), errors.Is(err, wmi.ErrAccessDenied), errors.Is(err, wmi.ErrInvalidParameter):
		return err
	case errors.As(err, &failed):
		return fmt.Errorf("%w: %w", ErrQuiesce, err)
	}
	return err
}

// FindCheckpoint returns the checkpoint of a task: the one that carries its tag, else the one that its intent identifies, which then gets
// its name, if Hyper-V lets it. ErrCheckpointNotFound, ErrVMNotFound.
func (h *Host) FindCheckpoint(ctx context.Context, vmID, tag string, intent Intent) (Checkpoint, error) {
	vm, err := h.situation(ctx, vmID)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("find the checkpoint of task %s: %w", tag, err)
	}
	return h.find(ctx, vm, tag, intent)
}

func (h *Host) find(ctx context.Context, vm VM, tag string, intent Intent) (Checkpoint, error) {
	var made []CheckpointNode
	for _, node := range vm.recoveryCheckpoints() {
		if node.Tag == tag {
			cp, _ := h.claimed(node.ID, node.Name)
			cp.ID, cp.VMID, cp.Taken = node.ID, vm.ID, node.Created
			return cp, nil
		}
		if intent.identifies(node) {
			made = append(made, node)
		}
	}
	if len(made) != 1 {
		return Checkpoint{}, fmt.Errorf("%w: of task %s", ErrCheckpointNotFound, tag)
	}
	settings, err := h.virt.Get(ctx, made[0].path)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("find the checkpoint of task %s: %w", tag, err)
	}
	// The VM's state at that moment is not known any more, so Offline cannot be claimed.
	return h.name(ctx, settings, vm.ID, tag, intent.Level)
}

// identifies tells whether a recovery checkpoint is the unnamed one that was asked for after the intent.
func (i Intent) identifies(node CheckpointNode) bool {
	return node.Tag == "" && !i.Time.IsZero() && !slices.Contains(i.Known, node.ID) &&
		!node.Created.Before(i.Time.Truncate(time.Second)) && node.Created.Before(i.Time.Add(adoptionWindow))
}

// Owned lists every checkpoint on the host that is known as ours, by its name or to this Host, with one query: what a sweeper compares with the tasks that live.
func (h *Host) Owned(ctx context.Context) ([]Checkpoint, error) {
	found, err := h.virt.Query(ctx, fmt.Sprintf("SELECT * FROM %s WHERE VirtualSystemType=%s", classSettings, wmi.Quote(typeRecoverySnapshot)))
	if err != nil {
		return nil, fmt.Errorf("list our checkpoints: %w", err)
	}
	var out []Checkpoint
	for _, instance := range found {
		r := &reader{Instance: instance}
		if cp, ours := h.claimed(r.text("InstanceID"), r.text("ElementName")); ours {
			cp.ID, cp.VMID, cp.Taken = r.text("InstanceID"), strings.ToUpper(r.text("VirtualSystemIdentifier")), r.time("CreationTime")
			out = append(out, cp)
		}
		if r.err != nil {
			return nil, fmt.Errorf("list our checkpoints: %w", r.err)
		}
	}
	slices.SortFunc(out, func(a, b Checkpoint) int { return strings.Compare(a.ID, b.ID) })
	return out, nil
}
