package runner

import (
	"context"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// recordedState is the state that a virtual machine restored from an image is to have: NV-16. One that ran while its disks were frozen comes back off; one whose
// memory is in the image, or that did not run, comes back as it was, and one that was paused as a saved one.
func recordedState(before hyperv.State, saved bool) hyperv.State {
	if saved || before == hyperv.Saved || before == hyperv.Paused {
		return hyperv.Saved
	}
	return hyperv.Off
}

// restoredState is the state that a restored virtual machine is brought to: the one that is asked for, or that the image records. "" when neither says anything,
// as images by the method WMI do not: then it is the one that the virtual machine comes in, off, or saved where it was saved when its disks were frozen.
func restoredState(asked v1alpha1.RestoredState, recorded map[string]string) hyperv.State {
	switch asked {
	case v1alpha1.RestoredOff:
		return hyperv.Off
	case v1alpha1.RestoredSaved:
		return hyperv.Saved
	}
	return hyperv.State(recorded[annotationRestoredState])
}

// bringToState brings the restored virtual machine to its state, and starts it if that is asked for. What does not work is a warning: the restore has succeeded.
// Called again it does not touch a virtual machine that runs. One that may not start yet stays off.
func (r *restoreRun) bringToState(ctx context.Context, mayStart bool) {
	id := r.entry.Restore.Result.ID
	switch r.entry.Restore.State {
	case hyperv.Off:
		if err := r.host.DropSavedState(ctx, id); err != nil {
			r.report.Warn("SavedStateRemains", "The virtual machine is restored, and its saved state could not be dropped: %v.", err)
		}
	case hyperv.Saved:
		vm, err := r.host.VM(ctx, id)
		if err != nil || vm.State == hyperv.Off {
			r.report.Warn("NotSaved", "The virtual machine is off, not saved: the image does not have its memory, or Hyper-V did not import it.")
		}
	}
	if !r.spec.PowerOn || !mayStart {
		return
	}
	if err := r.host.Start(ctx, id); err != nil {
		r.report.Warn("NotStarted", "The virtual machine is restored, and could not be started: %v.", err)
	}
}
