package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// prepare looks at the virtual machine and refuses what cannot be backed up, before anything happens to it.
func (r *backupRun) prepare(ctx context.Context) error {
	var err error
	if r.info, err = r.host.Info(ctx); err != nil {
		return err
	}
	if r.vm, err = r.host.VM(ctx, r.spec.VirtualMachine.ID); err != nil {
		return err
	}
	if r.method, err = chooseMethod(r.spec, r.info, nil); err != nil {
		return err
	}
	for _, concern := range r.vm.Concerns {
		if concern.Reason == hyperv.CriticalState || concern.Reason == hyperv.OwnedElsewhere {
			return stall(string(concern.Reason), errors.New(concern.Message))
		}
		if concern.Reason.Severity() == hyperv.Information {
			continue
		}
		r.report.Warn(string(concern.Reason), "%s", concern.Message)
	}
	r.report.Note("The virtual machine is %s, with %d disks.", r.vm.State, len(r.vm.Disks))
	if err := r.settleMethod(ctx); err != nil {
		return err
	}
	r.enableTracking(ctx)
	return nil
}

// settleMethod opens what the method needs. Where the Hyper-V writer does not offer the virtual machine, the other method is taken if it may be.
func (r *backupRun) settleMethod(ctx context.Context) error {
	if r.method.name == v1alpha1.MethodVSS {
		err := r.openShadow(ctx)
		if notOffered(err) {
			r.method, err = chooseMethod(r.spec, r.info, map[v1alpha1.BackupMethod]error{v1alpha1.MethodVSS: err})
		}
		if err != nil {
			return err
		}
	}
	if r.method.why.reason == reasonIneligible {
		r.report.Warn(reasonIneligible, "The method is %s: %s", r.method.name, r.method.why.message)
		return nil
	}
	r.report.Note("The method is %s: %s.", r.method.name, r.method.why)
	return nil
}

// enableTracking switches change tracking on for each disk that can have it, so that the checkpoint seals an id for it (AC-04). Where Hyper-V does not let us, as
// the file of a running virtual machine may be held, converting the checkpoint switches it on: only then it is known which disks have none.
func (r *backupRun) enableTracking(ctx context.Context) {
	if !r.tracks() || !hyperv.Trackable(r.info, r.vm) {
		return
	}
	for _, disk := range r.vm.Disks {
		if disk.Kind != hyperv.DiskVHDX || disk.TrackingEnabled {
			continue
		}
		if err := r.host.EnableTracking(ctx, disk.Path); err != nil {
			r.report.Note("Change tracking of disk %s is left to the checkpoint's conversion: %v.", disk.Key, err)
		}
	}
}

// freeze takes the recovery checkpoint at the level that is asked for, with the fallback that the policy allows.
func (r *backupRun) freeze(ctx context.Context) error {
	if r.method.name == v1alpha1.MethodVSS {
		return r.freezeShadow(ctx)
	}
	checkpoint, err := r.host.FindCheckpoint(ctx, r.vm.ID, r.entry.Tag, r.entry.Intent)
	switch {
	case errors.Is(err, hyperv.ErrCheckpointNotFound):
		checkpoint, err = r.takeCheckpoint(ctx)
	case err == nil:
		r.report.Note("An earlier run took the checkpoint already.")
	}
	if err != nil {
		return err
	}
	r.checkpoint = checkpoint
	frozen, excluded, err := r.host.Disks(ctx, checkpoint)
	if err != nil {
		return err
	}
	r.frozen = frozen
	r.entry.Checkpoint, r.entry.Disks = &checkpoint, frozen
	if err := r.journal.Put(r.entry); err != nil {
		return err
	}
	r.report.Note("Frozen at %s, %s.", checkpoint.Taken.UTC().Format(time.RFC3339), consistencyOf(checkpoint.Level))
	if checkpoint.Unnamed != "" {
		r.report.Note("Hyper-V does not let the checkpoint be named: %s. Until it is released, only this host's agent knows whose it is.", checkpoint.Unnamed)
	}
	return r.exclude(excluded)
}

// takeCheckpoint asks the guest as often as the policy says, and goes on without it where the policy allows.
func (r *backupRun) takeCheckpoint(ctx context.Context) (hyperv.Checkpoint, error) {
	level := r.spec.Consistency.Level
	if level == v1alpha1.LevelCrash {
		return r.attempt(ctx, hyperv.Crash)
	}
	refusal := r.unable()
	for n := int32(1); refusal == nil && n <= r.spec.Consistency.QuiesceAttempts; n++ {
		checkpoint, err := r.attempt(ctx, hyperv.Application)
		if !errors.Is(err, hyperv.ErrQuiesce) {
			return checkpoint, err
		}
		r.report.Note("Attempt %d: %v.", n, err)
		if n == r.spec.Consistency.QuiesceAttempts {
			refusal = err
		}
	}
	if level == v1alpha1.LevelApplication {
		return hyperv.Checkpoint{}, refusal
	}
	r.report.Warn("QuiesceFellBack", "The image is crash consistent: %v.", refusal)
	return r.attempt(ctx, hyperv.Crash)
}

// unable says why the guest need not, or must not, even be asked.
func (r *backupRun) unable() error {
	if ok, reason := hyperv.Quiescible(r.vm); !ok {
		return fmt.Errorf("%w: %s", hyperv.ErrQuiesce, reason)
	}
	return r.guardLogs()
}

// attempt takes a checkpoint at one level, after it journaled what the host looked like before. An attempt that nobody waited for any longer may still have
// made one: what came since the first attempt is ours.
func (r *backupRun) attempt(ctx context.Context, level hyperv.Level) (hyperv.Checkpoint, error) {
	earlier := r.entry.Intent
	if !earlier.Time.IsZero() {
		late, err := r.host.FindCheckpoint(ctx, r.vm.ID, r.entry.Tag, earlier)
		if !errors.Is(err, hyperv.ErrCheckpointNotFound) {
			return late, err
		}
	}
	intent, err := r.host.PrepareCheckpoint(ctx, r.vm.ID, level)
	if err != nil {
		return hyperv.Checkpoint{}, err
	}
	if !earlier.Time.IsZero() {
		intent.Time, intent.Known = earlier.Time, earlier.Known
	}
	r.entry.Intent = intent
	if err := r.journal.Put(r.entry); err != nil {
		return hyperv.Checkpoint{}, err
	}
	request := hyperv.CheckpointRequest{VMID: r.vm.ID, Tag: r.entry.Tag, Level: level, CopyOnly: r.copyOnly(), Intent: intent}
	if level == hyperv.Application && r.vm.State == hyperv.Running {
		// Only a guest is given up on; the host itself has until the task's deadline.
		request.Timeout = time.Duration(r.spec.Consistency.QuiesceTimeoutSeconds) * time.Second
	}
	return r.host.Checkpoint(ctx, request)
}

// exclude notes the disks that no checkpoint covers, or refuses where the policy wants all or nothing.
func (r *backupRun) exclude(disks []hyperv.ExcludedDisk) error {
	for _, disk := range disks {
		r.excluded = append(r.excluded, image.ExcludedDisk{
			Key: disk.Key, Name: disk.Key, Reason: string(disk.Reason) + ": " + disk.Message,
		})
		if r.spec.UnsupportedDisks == v1alpha1.UnsupportedDisksFail {
			return stall(string(disk.Reason), fmt.Errorf("disk %s: %s; unsupportedDisks: ExcludeAndWarn would back the other disks up", disk.Key, disk.Message))
		}
	}
	return nil
}

func consistencyOf(level hyperv.Level) v1alpha1.AchievedConsistency {
	switch level {
	case hyperv.Application:
		return v1alpha1.ConsistencyApplication
	case hyperv.Offline:
		return v1alpha1.ConsistencyOffline
	}
	return v1alpha1.ConsistencyCrash
}
