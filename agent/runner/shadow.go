package runner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// openShadow starts the service if it must, and finds the virtual machine at the writer (DR-03, DR-04).
func (r *backupRun) openShadow(ctx context.Context) error {
	if err := r.host.StartVSS(ctx); err != nil {
		return err
	}
	var err error
	r.shadow, err = r.host.OpenShadow(ctx, r.vm, hyperv.ShadowOptions{Provider: r.spec.VSSProviderID, CopyOnly: r.copyOnly()})
	return err
}

// freezeShadow makes the shadow copies at the level that is asked for, with the fallback that the policy allows, and looks whether they can be read (DR-08).
func (r *backupRun) freezeShadow(ctx context.Context) error {
	taken, err := r.takeShadow(ctx)
	if err != nil {
		return err
	}
	contents, err := r.shadow.Contents(ctx)
	if err != nil {
		return err
	}
	r.taken, r.frozen, r.companions = taken, contents.Disks, contents.Files
	r.checkpoint = hyperv.Checkpoint{VMID: r.vm.ID, Tag: r.entry.Tag, Level: taken.Level, Taken: taken.Time}
	r.report.Note("Frozen at %s, %s.", taken.Time.UTC().Format(time.RFC3339), consistencyOf(taken.Level))
	if taken.Interruption > 0 {
		r.report.Warn("Interrupted", "The virtual machine was seen not to run for %s: the Hyper-V writer saved it for the snapshot.", taken.Interruption.Round(time.Millisecond))
	}
	return r.exclude(contents.Excluded)
}

// takeShadow asks the guest as often as the policy says, and goes on without it where the policy allows.
func (r *backupRun) takeShadow(ctx context.Context) (hyperv.Taken, error) {
	wanted := r.spec.Consistency
	if wanted.Level != v1alpha1.LevelCrash {
		approach, refusal := hyperv.ApplicationShadow(r.vm, r.shadow.Mode())
		for n := int32(1); refusal == nil && n <= wanted.QuiesceAttempts; n++ {
			taken, err := r.attemptShadow(ctx, approach, time.Duration(wanted.QuiesceTimeoutSeconds)*time.Second)
			if !errors.Is(err, hyperv.ErrQuiesce) {
				return taken, err
			}
			r.report.Note("Attempt %d: %v.", n, err)
			if n == wanted.QuiesceAttempts {
				refusal = err
			}
		}
		if wanted.Level == v1alpha1.LevelApplication {
			return hyperv.Taken{}, stall("QuiesceFailed", fmt.Errorf("%w; %s, or allow ApplicationThenCrash", refusal, quiesceRemedy(r.shadow.Mode())))
		}
		r.report.Warn("QuiesceFellBack", "The image is crash consistent: %v.", refusal)
	}
	save := wanted.AllowSavedState != nil && *wanted.AllowSavedState
	return r.attemptShadow(ctx, hyperv.CrashShadow(r.info, r.vm, r.shadow.Mode(), save), 0)
}

// quiesceRemedy says what helps a guest that the writer did not quiesce.
func quiesceRemedy(mode vss.Mode) string {
	if mode == vss.PartialMode {
		return "move the disks that lie elsewhere to volumes of the host, choose the method WMI"
	}
	return "repair the guest's integration services"
}

// attemptShadow makes the shadow copies once. Before anything happens to the virtual machine the journal has what state it must come back to (NV-07). A
// timeout bounds the wait for a guest; zero waits as long as the host does.
func (r *backupRun) attemptShadow(ctx context.Context, approach hyperv.ShadowApproach, timeout time.Duration) (hyperv.Taken, error) {
	if r.entry.Shadow != nil { // of an attempt that failed
		if err := r.settleShadow(ctx); err != nil {
			return hyperv.Taken{}, err
		}
		if err := r.openShadow(ctx); err != nil {
			return hyperv.Taken{}, err
		}
	}
	intent, err := r.shadow.Begin(ctx, approach)
	if err != nil {
		return hyperv.Taken{}, err
	}
	r.entry.Shadow = &intent
	if err := r.journal.Put(r.entry); err != nil {
		return hyperv.Taken{}, err
	}
	limited, cancel := ctx, context.CancelFunc(func() {})
	if timeout > 0 {
		limited, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	taken, err := r.shadow.Snapshot(limited)
	if err != nil {
		return hyperv.Taken{}, err
	}
	r.entry.Shadow.Settled = true // from here on the virtual machine's state is its user's
	return taken, r.journal.Put(r.entry)
}

// settleShadow puts right what an earlier attempt, or a session that was killed, left: first of all the virtual machine runs again if it did before (NV-07),
// then the shadow copies go. It does nothing where the journal has none.
func (r *backupRun) settleShadow(ctx context.Context) error {
	if r.entry.Shadow == nil {
		return nil
	}
	ctx, done := committed(ctx)
	defer done()
	if err := errors.Join(r.closeShadow(), endShadow(ctx, r.host, r.entry)); err != nil {
		return err
	}
	r.entry.Shadow = nil
	return r.journal.Put(r.entry)
}

// endShadow leaves nothing of a shadow copy of the journal.
func endShadow(ctx context.Context, host *hyperv.Host, entry Entry) error {
	if entry.Shadow == nil {
		return nil
	}
	err := host.SettleShadow(ctx, entry.VirtualMachineID, *entry.Shadow)
	return errors.Join(err, host.DropShadow(ctx, entry.Shadow.SetID))
}

// completeShadow ends the backup at the writer. What fails here is put right by the release.
func (r *backupRun) completeShadow(ctx context.Context) {
	if r.shadow == nil {
		return
	}
	if r.published != nil && r.entry.Shadow != nil && r.entry.Shadow.Settled {
		limited, cancel := context.WithTimeout(ctx, releaseTimeout)
		defer cancel()
		if err := r.shadow.Complete(limited, true); err != nil && !stopping(ctx) {
			r.report.Note("The Hyper-V writer was not told that the backup succeeded: %v.", err)
		}
	}
	if err := r.closeShadow(); err != nil {
		r.report.Note("The shadow copy was not closed in order: %v.", err)
	}
}

func (r *backupRun) closeShadow() error {
	if r.shadow == nil {
		return nil
	}
	shadow := r.shadow
	r.shadow = nil
	return shadow.Close()
}

// memory says whether the image has the virtual machine's memory (EZ-06).
func (r *backupRun) memory() v1alpha1.MemoryCapture {
	switch {
	case r.taken.Saved, r.vm.State == hyperv.Saved:
		return v1alpha1.MemoryCaptured
	case r.vm.State == hyperv.Off:
		return v1alpha1.MemoryNone
	}
	return v1alpha1.MemoryNotCaptured
}
