package runner

import (
	"context"
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// release cleans up after a task: its checkpoint goes, the merge is observed, and the journal forgets it. It carries out tasks of kind Release, and is
// the last step of every backup.
type release struct {
	host    *hyperv.Host
	journal *Journal
	clock   clock.Clock
}

// outcome is what the Released condition says.
type outcome struct {
	status          metav1.ConditionStatus
	reason, message string
}

// Run cleans up after another task, which ended without doing so.
func (r *release) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	if err := report.Step(ctx, "Release"); err != nil {
		return err
	}
	entry, found, err := r.journal.Get(task.Spec.Release.Tag)
	if err != nil {
		return err
	}
	if !found {
		entry = Entry{Tag: task.Spec.Release.Tag, VirtualMachineID: task.Spec.Release.VirtualMachineID}
	}
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	result := r.leave(ctx, entry)
	if err := report.Released(context.WithoutCancel(ctx), result.status, result.reason, result.message); err != nil {
		return err
	}
	if result.status != metav1.ConditionTrue {
		return retry(result.reason, errors.New(result.message))
	}
	return nil
}

// leave removes what the task has on the host and waits until it is gone, or until ctx ends. It may be called at any time and any number of times.
func (r *release) leave(ctx context.Context, entry Entry) outcome {
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	for pause := first; ; pause = min(2*pause, longest) {
		state, err := r.once(ctx, &entry)
		switch {
		case err == nil && state.Done:
			if err := r.journal.Delete(entry.Tag); err != nil {
				return outcome{metav1.ConditionFalse, v1alpha1.ReasonReleaseFailed, err.Error()}
			}
			return outcome{metav1.ConditionTrue, v1alpha1.ReasonReleased, "Nothing of this task is left on the host."}
		case err != nil && !passes(err):
			return outcome{metav1.ConditionFalse, v1alpha1.ReasonReleaseFailed, cut(leftOnHost(err), 1024)}
		}
		select {
		case <-ctx.Done():
			return unfinished(state, err)
		case <-r.clock.After(pause):
		}
	}
}

// unfinished is the outcome when time ran out.
func unfinished(state hyperv.ReleaseState, err error) outcome {
	if err != nil {
		return outcome{metav1.ConditionFalse, v1alpha1.ReasonReleaseFailed, cut(leftOnHost(err), 1024)}
	}
	return outcome{metav1.ConditionFalse, v1alpha1.ReasonMergePending, cut("The merge goes on and is watched: "+state.Message+".", 1024)}
}

// once removes the checkpoint, if it is there, and looks what is left. The entry remembers what was found, for the next look.
func (r *release) once(ctx context.Context, entry *Entry) (hyperv.ReleaseState, error) {
	if err := endShadow(ctx, r.host, *entry); err != nil {
		return hyperv.ReleaseState{}, err
	}
	found, err := r.host.FindCheckpoint(ctx, entry.VirtualMachineID, entry.Tag, entry.Intent)
	switch {
	case err == nil:
		if entry.Checkpoint == nil {
			entry.Checkpoint = &found
		}
		if err := r.host.Release(ctx, found); err != nil {
			return hyperv.ReleaseState{}, err
		}
	case errors.Is(err, hyperv.ErrVMNotFound):
		return hyperv.ReleaseState{Done: true}, nil
	case !errors.Is(err, hyperv.ErrCheckpointNotFound):
		return hyperv.ReleaseState{}, err
	case entry.Checkpoint == nil:
		return r.noneTaken(ctx, entry)
	}
	return r.host.Released(ctx, *entry.Checkpoint, entry.Disks)
}

// noneTaken is the state while there is no checkpoint. One that was asked for may still be in the making, when nobody waited for its end.
func (r *release) noneTaken(ctx context.Context, entry *Entry) (hyperv.ReleaseState, error) {
	if entry.Intent.Time.IsZero() {
		return hyperv.ReleaseState{Done: true}, nil
	}
	vm, err := r.host.VM(ctx, entry.VirtualMachineID)
	if err != nil {
		return hyperv.ReleaseState{}, err
	}
	if vm.Operation == hyperv.CreatingCheckpoint {
		return hyperv.ReleaseState{Message: "Hyper-V still works on the checkpoint that was asked for"}, nil
	}
	return hyperv.ReleaseState{Done: true}, nil
}

// passes says whether looking again is worth it.
func passes(err error) bool { return failureOf(err).Action == v1alpha1.FailureRetry }
