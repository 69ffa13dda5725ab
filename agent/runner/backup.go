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
	method     method              // prepare
	shadow     *hyperv.Shadow      // prepare, with the method VSS
	taken      hyperv.Taken        // checkpoint, with the method VSS
	companions []hyperv.ConfigFile // checkpoint, with the method VSS
	checkpoint hyperv.Checkpoint   // checkpoint
	frozen     []hyperv.FrozenDisk // checkpoint
	excluded   []image.ExcludedDisk
	plan       []diskPlan      // decide
	writer     *image.Writer   // transfer
	published  *image.Manifest // publish
	superseded []string        // reference points that the next base makes superfluous: before the image becomes known
}

// Run backs one virtual machine up, in the order of the steps below. Each is recorded before it begins, and safe to repeat: a run that was
// killed anywhere is called again and finds what the one before it did.
func (b *backup) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	r := &backupRun{backup: b, task: task, spec: task.Spec.Backup, report: report}
	if err := r.recall(); err != nil {
		return err
	}
	err := r.settleShadow(ctx)
	if err == nil {
		err = r.image(ctx)
	}
	if r.published != nil {
		err = r.afterPublish(ctx)
	}
	return errors.Join(err, r.letGo(ctx, err))
}

// image makes the image visible, or finds that an earlier run did: also when the task was canceled since.
func (r *backupRun) image(ctx context.Context) error {
	looking, done := committed(ctx)
	defer done()
	if err := r.step(looking, "Claim", r.open); err != nil || r.published != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"Prepare", r.prepare},
		{"Checkpoint", r.freeze},
	} {
		if err := r.step(ctx, step.name, step.do); err != nil {
			return err
		}
	}
	return r.store(ctx)
}

// store writes the image and makes it visible. That the repository is damaged in a place that the image links to may show only when the image is read
// anew, before anybody sees it: then everything is read and stored anew, once (I9).
func (r *backupRun) store(ctx context.Context) error {
	err := r.tryStore(ctx)
	if !errors.Is(err, image.ErrDamaged) || !r.addRepair() {
		return err
	}
	r.report.Warn("RepositoryDamaged", "What the image would link to is damaged in the repository, so everything is read and stored anew: %v.", err)
	if r.writer != nil {
		_ = r.writer.Close(ctx) // what was not published is lost on purpose
		r.writer = nil
	}
	r.closePlan()
	return r.tryStore(ctx)
}

func (r *backupRun) tryStore(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
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

// addRepair has all disks stored anew. It says whether there is one of which that was not so.
func (r *backupRun) addRepair() bool {
	var disks []string
	more := false
	for _, disk := range r.frozen {
		more = more || !r.repairs(disk.Key)
		disks = append(disks, disk.Key)
	}
	spec := *r.spec // the task's own is what was asked for
	spec.Repair = &v1alpha1.Repair{Disks: disks}
	r.spec = &spec
	return more
}

func (r *backupRun) closePlan() {
	for _, plan := range r.plan {
		_ = plan.content.Close() // read only; an open file may hold up a merge
	}
	r.plan = nil
}

// afterPublish records the image and makes the checkpoint the base of the next increment. What fails here takes nothing from the image.
func (r *backupRun) afterPublish(ctx context.Context) error {
	ctx, done := committed(ctx)
	defer done()
	var err error
	if r.superseded, err = r.referencePoints(ctx); err != nil && stopping(ctx) {
		return err
	}
	// From now on retention may let an older image go, and with it the record of its reference point.
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

// tracks says whether a reference point is to remain for the next increment. The method VSS has none.
func (r *backupRun) tracks() bool {
	if r.method.name == v1alpha1.MethodVSS || (r.published != nil && r.published.Method == string(v1alpha1.MethodVSS)) {
		return false
	}
	enabled := r.spec.ChangeTracking.BlockLevelIncremental
	return enabled == nil || *enabled
}

// recall finds what an earlier run journaled.
func (r *backupRun) recall() error {
	entry, found, err := r.journal.Get(string(r.task.UID))
	if err != nil {
		return err
	}
	if !found {
		entry = Entry{Tag: string(r.task.UID), VirtualMachineID: r.spec.VirtualMachine.ID}
	}
	r.entry = entry
	return nil
}

// open opens the repository and looks whether an earlier run published.
func (r *backupRun) open(ctx context.Context) error {
	var err error
	if r.repository, err = r.repositories.Open(ctx, r.task.Spec.Repository); err != nil {
		return err
	}
	manifest, err := r.repository.Confirm(ctx, r.spec.ImageID, r.spec.VirtualMachine.ID)
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

// publish makes the image visible, unless this agent has lost its claim or the task was canceled until then. Once it may be visible nothing but the
// agent's own end stops the check: an image that is there must not be forgotten.
func (r *backupRun) publish(ctx context.Context) error {
	lasting, done := committed(ctx)
	defer done()
	gate := func(context.Context) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return r.claim.Check(ctx)
	}
	manifest, err := r.writer.Publish(lasting, gate)
	for try := 1; errors.Is(err, image.ErrUnreachable) && try < publishTries; try++ {
		select {
		case <-lasting.Done():
			return err
		case <-r.clock.After(publishPause):
		}
		manifest, err = r.writer.Publish(lasting, gate)
	}
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
	// publishTries and publishPause bridge a repository that goes away for a moment, right when the image may have become visible.
	publishTries, publishPause = 4, 5 * time.Second
	// releaseTimeout bounds the clean-up after a backup that ended in any way.
	releaseTimeout = 10 * time.Minute
	// closeTimeout bounds giving the repository back.
	closeTimeout = time.Minute
)

// letGo leaves nothing of this run on the host, whatever became of it: unless another agent owns the host now, or this one stops and its next
// session takes the task up again. Its own outcome is the Released condition: a green transfer does not hide a growing .avhdx.
func (r *backupRun) letGo(ctx context.Context, failure error) error {
	ctx, done := committed(ctx)
	defer done()
	defer r.close(context.WithoutCancel(ctx))
	r.closePlan()
	if stopping(ctx) || errors.Is(failure, ErrClaimLost) {
		_ = r.closeShadow() // its shadow copies end with this session
		return nil
	}
	r.report.TryStep(ctx, "Release")
	r.completeShadow(ctx)
	release := &release{host: r.host, journal: r.journal, clock: r.clock}
	limited, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	outcome := release.leave(limited, r.entry)
	if stopping(ctx) {
		return nil
	}
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
