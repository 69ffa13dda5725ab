package runner

import (
	"context"
	"errors"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// backup carries out tasks of kind Backup.
type backup struct {
	host         *hyperv.Host
	files        hostfs.FS
	repositories *Repositories
	journal      *Journal
	claim        *Claim
	clock        clock.Clock
	version      string
}

// backupRun is one backup under way. Its fields are set by the step that is named.
type backupRun struct {
	*backup
	task   *v1alpha1.AgentTask
	spec   *v1alpha1.BackupTask
	report *Report
	entry  Entry // what the journal has of this task

	repository *image.Repository   // claim
	vm         hyperv.VM           // prepare
	info       hyperv.HostInfo     // prepare
	checkpoint hyperv.Checkpoint   // checkpoint
	frozen     []hyperv.FrozenDisk // checkpoint
	excluded   []image.ExcludedDisk
	plan       []diskPlan      // decide
	writer     *image.Writer   // transfer
	published  *image.Manifest // publish
}

// Run backs one virtual machine up, in the order of the steps below. Each is recorded before it begins, and safe to repeat: a run that was
// killed anywhere is called again and finds what the one before it did.
func (b *backup) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	r := &backupRun{backup: b, task: task, spec: task.Spec.Backup, report: report}
	err := r.image(ctx)
	if r.published != nil {
		err = r.afterPublish(ctx)
	}
	return errors.Join(err, r.letGo(ctx, err))
}

// image makes the image visible, or finds that an earlier run did.
func (r *backupRun) image(ctx context.Context) error {
	if err := r.step(ctx, "Claim", r.open); err != nil || r.published != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"Prepare", r.prepare},
		{"Checkpoint", r.freeze},
		{"Decide", r.decide},
		{"Transfer", r.transfer},
		{"Publish", r.publish},
	} {
		if err := r.step(ctx, step.name, step.do); err != nil {
			return err
		}
	}
	return nil
}

// afterPublish records the image and makes the checkpoint the base of the next increment. What fails here takes nothing from the image.
func (r *backupRun) afterPublish(ctx context.Context) error {
	ctx, done := committed(ctx)
	defer done()
	if err := r.report.Image(ctx, summaryOf(*r.published)); err != nil {
		return err
	}
	if !r.tracks() {
		return r.step(ctx, "Convert", r.dropReferencePoints)
	}
	return r.step(ctx, "Convert", r.convert)
}

func (r *backupRun) step(ctx context.Context, name string, do func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := r.report.Step(ctx, name); err != nil {
		return err
	}
	return do(ctx)
}

// tracks says whether a reference point is to remain for the next increment.
func (r *backupRun) tracks() bool {
	enabled := r.spec.ChangeTracking.BlockLevelIncremental
	return enabled == nil || *enabled
}

// open opens the repository, finds what an earlier run journaled, and looks whether it published.
func (r *backupRun) open(ctx context.Context) error {
	entry, found, err := r.journal.Get(string(r.task.UID))
	if err != nil {
		return err
	}
	if !found {
		entry = Entry{Tag: string(r.task.UID), VirtualMachineID: r.spec.VirtualMachine.ID}
	}
	r.entry = entry
	if r.repository, err = r.repositories.Open(ctx, r.task.Spec.Repository); err != nil {
		return err
	}
	manifest, err := r.repository.Confirm(ctx, r.spec.ImageID)
	if errors.Is(err, image.ErrImageNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	r.published = &manifest
	r.report.Note("An earlier run has published the image already.")
	return nil
}

// publish makes the image visible, unless this agent has lost its claim or the task was canceled meanwhile.
func (r *backupRun) publish(ctx context.Context) error {
	manifest, err := r.writer.Publish(ctx, func(ctx context.Context) error {
		return errors.Join(ctx.Err(), r.claim.Check(ctx))
	})
	if errors.Is(err, image.ErrBaseUnusable) {
		return retry("BaseUnusable", err)
	}
	if err != nil {
		return err
	}
	r.published = &manifest
	return nil
}

const (
	// releaseTimeout bounds the clean-up after a backup that ended in any way.
	releaseTimeout = 10 * time.Minute
	// closeTimeout bounds giving the repository back.
	closeTimeout = time.Minute
)

// letGo leaves nothing of this run on the host, whatever became of it: unless another agent owns the host now, or this one stops and its next
// session takes the task up again. Its own outcome is the Released condition: a green transfer does not hide a growing .avhdx.
func (r *backupRun) letGo(ctx context.Context, failure error) error {
	cause := context.Cause(ctx)
	ctx = context.WithoutCancel(ctx)
	defer r.close(ctx)
	if errors.Is(cause, errStopping) || errors.Is(cause, ErrClaimLost) || errors.Is(failure, ErrClaimLost) {
		return nil
	}
	r.report.TryStep(ctx, "Release")
	release := &release{host: r.host, journal: r.journal, clock: r.clock}
	limited, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	outcome := release.leave(limited, r.entry)
	if outcome.status == metav1.ConditionFalse {
		r.report.Warn(outcome.reason, "%s", outcome.message)
	}
	return r.report.Released(ctx, outcome.status, outcome.reason, outcome.message)
}

func (r *backupRun) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	if r.writer != nil {
		_ = r.writer.Close(ctx) // what was not published is lost on purpose
	}
	if r.repository != nil {
		_ = r.repository.Close(ctx)
	}
}
