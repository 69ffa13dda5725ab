package runner

import (
	"context"
	"errors"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// replace gives the original's id to what the image has. What it was stays aside until the restore has succeeded. Where an import cannot do it, the original
// is kept and gets the restored disks.
func (r *restoreRun) replace(ctx context.Context) error {
	if r.entry.Restore.Beneath != nil {
		return r.rollBack(ctx)
	}
	imported, err := r.exchange(ctx)
	if err != nil {
		return err
	}
	if imported != nil {
		return r.succeeded(imported, v1alpha1.RestoreImport)
	}
	if r.entry.Restore.Replacement == nil {
		plan, err := r.host.PlanReplacement(ctx, r.image.Manifest().VM.ID, r.targetDisks(), r.settings())
		if err != nil {
			return err
		}
		r.entry.Restore.Replacement = &plan
		if err := r.journal.Put(r.entry); err != nil {
			return err
		}
	}
	if err := r.host.Replace(ctx, *r.entry.Restore.Replacement); err != nil {
		return err
	}
	vm, err := r.host.VM(ctx, r.entry.Restore.Replacement.VMID)
	if err != nil {
		return err
	}
	return r.succeeded(&hyperv.Restored{VM: vm}, v1alpha1.RestoreSwapDisks)
}

// settings are those that a replaced machine gets: none when only some of its disks are restored.
func (r *restoreRun) settings() *hyperv.Definition {
	if len(r.spec.Disks) > 0 {
		return nil
	}
	return &r.definition
}

// exchange lets an imported virtual machine take the original's place. It returns none when that cannot be: then the original is there as it was, and the
// journal says why.
func (r *restoreRun) exchange(ctx context.Context) (*hyperv.Restored, error) {
	made := r.entry.Restore
	if made.NotImported != "" {
		return nil, nil
	}
	if made.Exchange == nil {
		if err := r.planExchange(ctx); err != nil || made.NotImported != "" {
			return nil, err
		}
	}
	var out hyperv.Restored
	err := patiently(ctx, func() (err error) {
		out, err = r.host.Exchange(ctx, *made.Exchange, r.replacingTarget())
		return err
	})
	if errors.Is(err, hyperv.ErrImportRefused) {
		return nil, r.exchangeRefused(ctx, err)
	}
	if err != nil {
		return nil, err
	}
	return &out, nil
}

// replacingTarget is a virtual machine as it takes the original's place.
func (r *restoreRun) replacingTarget() hyperv.RestoreTarget {
	return hyperv.RestoreTarget{
		Name: r.name, Disks: r.targetDisks(), Tree: r.targetTree(), Tag: r.entry.Restore.ID, KeepNetworks: true, Switches: r.switches(),
		Warned: r.warned,
	}
}

// planExchange tries the import beside the original, which goes on running, and journals the exchange when it would work. A tree of checkpoints that Hyper-V
// does not take is given up.
func (r *restoreRun) planExchange(ctx context.Context) error {
	made := r.entry.Restore
	if made.Import == nil {
		im, err := r.host.PrepareImport(ctx, made.Config[0], r.image.Manifest().VM.ID, r.definition.Name, r.definition.Notes)
		if err != nil {
			return err
		}
		made.Import = &im
		if err := r.journal.Put(r.entry); err != nil {
			return err
		}
	}
	target := r.replacingTarget()
	plan, err := r.host.PlanExchange(ctx, *made.Import, target.Disks, made.Staging+"-replaced")
	if err == nil {
		target.Roots = plan.Aside.Roots
		err = patiently(ctx, func() error {
			_, err := r.host.TryImport(ctx, *made.Import, target)
			return err
		})
	}
	switch {
	case errors.Is(err, hyperv.ErrImportRefused) && r.tree() != nil:
		if err := r.giveTreeUp(ctx, err); err != nil {
			return err
		}
		return r.planExchange(ctx)
	case errors.Is(err, hyperv.ErrImportRefused):
		return r.notImported(err)
	case err != nil:
		return err
	}
	made.Exchange = &plan
	return r.journal.Put(r.entry)
}

// exchangeRefused puts the original back. Only when that is done does the journal forget the exchange.
func (r *restoreRun) exchangeRefused(ctx context.Context, refusal error) error {
	made := r.entry.Restore
	warnings, err := r.putBack(ctx, made)
	r.report.WarnAll(reasonPutBack, warnings)
	if err == nil {
		err = r.host.DropAside(ctx, *made.Exchange)
	}
	if err != nil {
		return errors.Join(refusal, err)
	}
	made.Exchange = nil
	if err := r.giveTreeUp(ctx, refusal); err != nil { // what takes its place now gets its disks alone
		return err
	}
	return r.notImported(refusal)
}

// finishReplaced deletes what was kept aside of a replaced virtual machine.
func (r *restore) finishReplaced(ctx context.Context, made *RestoreEntry) error {
	switch {
	case made.Exchange != nil:
		return r.host.FinishExchange(ctx, *made.Exchange)
	case made.Beneath != nil:
		return r.finishRollBack(ctx, made)
	case made.Replacement != nil:
		return r.host.FinishReplacement(ctx, *made.Replacement)
	}
	return nil
}

// settle clears up after a restore that succeeded and was killed before it could do so. What a virtual machine that has changed since may still need stays for
// good. The result stays in the journal, so that an attempt that follows reports it and does not restore a second time.
func (r *restore) settle(ctx context.Context, entry Entry, now time.Time) error {
	made := entry.Restore
	unmarked := r.host.DropMark(ctx, made.Result.ID, made.ID)
	if errors.Is(unmarked, hyperv.ErrVMNotFound) {
		unmarked = nil // it was removed since
	}
	err := errors.Join(r.finishReplaced(ctx, made), r.unstage(ctx, made), unmarked)
	if err != nil && !errors.Is(err, hyperv.ErrDiskMismatch) && !errors.Is(err, hyperv.ErrVMNotFound) {
		return err
	}
	entry.Restore.Settled = now
	return errors.Join(err, r.journal.Put(entry))
}
