package runner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/meter"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// errTaskGone means that the task was deleted while it was worked on.
var errTaskGone = errors.New("the task was deleted")

const (
	// progressInterval is how often progress alone is written.
	progressInterval = 2 * time.Second
	// reportRetry is the pause before a write is tried again while the API server is away.
	reportRetry = time.Second
	// maxSteps, maxWarnings and maxMessage keep a status within what the schema allows.
	maxSteps, maxWarnings, maxMessage = 32, 32, 512
)

// Report is the status of one task, as the agent wants it to be. Steps and facts are written before the work goes on, so that the status never lags
// behind the host; progress is written in the background. While the API server is away a write waits.
type Report struct {
	client client.Client
	clock  clock.Clock

	mu     sync.Mutex // over the two below
	task   *v1alpha1.AgentTask
	status v1alpha1.AgentTaskStatus
	write  sync.Mutex // one write at a time, in order
}

func newReport(c client.Client, clk clock.Clock, task *v1alpha1.AgentTask) *Report {
	return &Report{client: c, clock: clk, task: task.DeepCopy(), status: *task.Status.DeepCopy()}
}

// Claim records that this session works on the task, and begins its steps anew. The facts that an earlier session recorded stay.
func (r *Report) Claim(ctx context.Context, session string) error {
	return r.change(ctx, func(s *v1alpha1.AgentTaskStatus) {
		message := "The agent works on the task."
		if s.SessionID != "" && s.SessionID != session {
			message = "The agent was started anew and took the task up again."
		}
		s.SessionID = session
		s.Progress = nil
		s.Steps, s.Warnings = nil, nil
		r.setCondition(s, v1alpha1.ConditionClaimed, metav1.ConditionTrue, v1alpha1.ReasonClaimed, message)
		r.setCondition(s, v1alpha1.ConditionSucceeded, metav1.ConditionUnknown, v1alpha1.ReasonProgressing, message)
	})
}

// Step records that a step begins, and with it the end of the one before.
func (r *Report) Step(ctx context.Context, name string) error {
	return r.change(ctx, func(s *v1alpha1.AgentTaskStatus) {
		r.endStep(s)
		if len(s.Steps) < maxSteps {
			s.Steps = append(s.Steps, v1alpha1.Step{Name: name, StartTime: r.now()})
		}
	})
}

// TryStep records a step like Step, but goes on when the API server is away or the task is gone: cleaning up does not wait for either.
func (r *Report) TryStep(ctx context.Context, name string) {
	r.mu.Lock()
	r.endStep(&r.status)
	if len(r.status.Steps) < maxSteps {
		r.status.Steps = append(r.status.Steps, v1alpha1.Step{Name: name, StartTime: r.now()})
	}
	r.mu.Unlock()
	_ = r.writeOnce(ctx)
}

// Note says what was decided or found in the present step. It is written with the next step.
func (r *Report) Note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(r.status.Steps); n > 0 {
		note := fmt.Sprintf(format, args...)
		if before := r.status.Steps[n-1].Message; before != "" {
			note = before + " " + note
		}
		r.status.Steps[n-1].Message = cut(note, maxMessage)
	}
}

// Warn records something that a person should know, once. It is written with the next step.
func (r *Report) Warn(reason, format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	warning := v1alpha1.Warning{Reason: reason, Message: cut(fmt.Sprintf(format, args...), 1024)}
	if len(r.status.Warnings) < maxWarnings && !slices.Contains(r.status.Warnings, warning) {
		r.status.Warnings = append(r.status.Warnings, warning)
	}
}

// WarnAll is Warn for messages of one reason.
func (r *Report) WarnAll(reason string, messages []string) {
	for _, message := range messages {
		r.Warn(reason, "%s", message)
	}
}

// Image records the published image.
func (r *Report) Image(ctx context.Context, published v1alpha1.ImageSummary) error {
	return r.change(ctx, func(s *v1alpha1.AgentTaskStatus) { s.Image = &published })
}

// Restored records what a restore made.
func (r *Report) Restored(ctx context.Context, restored v1alpha1.RestoredVirtualMachine) error {
	return r.change(ctx, func(s *v1alpha1.AgentTaskStatus) { s.Restored = &restored })
}

// Probe records what a probe found.
func (r *Report) Probe(ctx context.Context, probe v1alpha1.ProbeResult) error {
	return r.change(ctx, func(s *v1alpha1.AgentTaskStatus) { s.Probe = &probe })
}

// Maintained records what a maintenance did.
func (r *Report) Maintained(ctx context.Context, done v1alpha1.MaintainResult) error {
	return r.change(ctx, func(s *v1alpha1.AgentTaskStatus) { s.Maintained = &done })
}

// Scrubbed records what was read of a repository so far.
func (r *Report) Scrubbed(ctx context.Context, found v1alpha1.ScrubResult) error {
	return r.change(ctx, func(s *v1alpha1.AgentTaskStatus) { s.Scrubbed = &found })
}

// Damaged records the disks that a verification found damaged.
func (r *Report) Damaged(ctx context.Context, disks []string) error {
	return r.change(ctx, func(s *v1alpha1.AgentTaskStatus) { s.DamagedDisks = disks })
}

// Catalog records a page of the repository's catalog.
func (r *Report) Catalog(ctx context.Context, page v1alpha1.CatalogPage) error {
	return r.change(ctx, func(s *v1alpha1.AgentTaskStatus) { s.Catalog = &page })
}

// Released records whether the host is clean again.
func (r *Report) Released(ctx context.Context, status metav1.ConditionStatus, reason, message string) error {
	return r.change(ctx, func(s *v1alpha1.AgentTaskStatus) {
		r.setCondition(s, v1alpha1.ConditionReleased, status, reason, message)
	})
}

// Finish records the verdict. A nil err is success. When the API server refuses what was reported on the way, the verdict alone is recorded: a task must
// never stay open because of a detail.
func (r *Report) Finish(ctx context.Context, err error) error {
	refused := r.finish(ctx, err, func(*v1alpha1.AgentTaskStatus) {})
	if apierrors.IsInvalid(refused) {
		return r.finish(ctx, err, func(s *v1alpha1.AgentTaskStatus) { s.Progress, s.Steps, s.Warnings = nil, nil, nil })
	}
	return refused
}

func (r *Report) finish(ctx context.Context, err error, drop func(*v1alpha1.AgentTaskStatus)) error {
	return r.change(ctx, func(s *v1alpha1.AgentTaskStatus) {
		drop(s)
		r.endStep(s)
		now := r.now()
		s.CompletionTime = &now
		if err == nil {
			s.Failure = nil
			r.setCondition(s, v1alpha1.ConditionSucceeded, metav1.ConditionTrue, v1alpha1.ReasonSucceeded, "The task is done.")
			return
		}
		failure := failureOf(err)
		s.Failure = &failure
		r.setCondition(s, v1alpha1.ConditionSucceeded, metav1.ConditionFalse, failure.Reason, failure.Message)
	})
}

// Progress shows how far a transfer is until the returned function is called, which takes the last sample. read gives the total and what is done and
// stored of it, in bytes.
func (r *Report) Progress(ctx context.Context, read func() (total, done, stored int64)) (stop func()) {
	return r.LimitedProgress(ctx, nil, read)
}

// LimitedProgress shows the bandwidth that a transfer is limited to as well. limit may be nil.
func (r *Report) LimitedProgress(ctx context.Context, limit *image.Bandwidth, read func() (total, done, stored int64)) (stop func()) {
	var m meter.Meter
	sample := func() {
		total, done, stored := read()
		now := r.clock.Now()
		progress := progressOf(m.Read(now, total, done), now, stored, limit.Limited())
		r.mu.Lock()
		defer r.mu.Unlock()
		r.status.Progress = progress
	}
	ended := make(chan struct{})
	var watching sync.WaitGroup
	watching.Go(func() {
		for {
			sample()
			_ = r.writeOnce(ctx) // what fails is written with the next progress or step
			select {
			case <-ended:
				return
			case <-r.clock.After(progressInterval):
			}
		}
	})
	return func() {
		close(ended)
		watching.Wait()
		sample()
	}
}

// change alters the status and writes it, waiting while the API server is away. errTaskGone when the task was deleted.
func (r *Report) change(ctx context.Context, alter func(*v1alpha1.AgentTaskStatus)) error {
	r.mu.Lock()
	alter(&r.status)
	r.status.ObservedGeneration = r.task.Generation
	r.mu.Unlock()
	for {
		err := r.writeOnce(ctx)
		if err == nil || errors.Is(err, errTaskGone) || apierrors.IsInvalid(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("report: %w", errors.Join(context.Cause(ctx), err))
		case <-r.clock.After(reportRetry):
		}
	}
}

// writeOnce writes the status as it is now. The agent is its only writer, so the patch replaces without comparing versions.
func (r *Report) writeOnce(ctx context.Context) error {
	r.write.Lock()
	defer r.write.Unlock()
	r.mu.Lock()
	before := r.task
	after := before.DeepCopy()
	after.Status = *r.status.DeepCopy()
	r.mu.Unlock()
	if equality.Semantic.DeepEqual(before.Status, after.Status) {
		return nil
	}
	if err := r.client.Status().Patch(ctx, after, client.MergeFrom(before)); err != nil {
		if apierrors.IsNotFound(err) {
			return errTaskGone
		}
		return err
	}
	r.mu.Lock()
	r.task = after
	r.mu.Unlock()
	return nil
}

func (r *Report) endStep(s *v1alpha1.AgentTaskStatus) {
	if n := len(s.Steps); n > 0 && s.Steps[n-1].CompletionTime == nil {
		now := r.now()
		s.Steps[n-1].CompletionTime = &now
	}
}

func (r *Report) setCondition(s *v1alpha1.AgentTaskStatus, kind string, status metav1.ConditionStatus, reason, message string) {
	apimeta.SetStatusCondition(&s.Conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: r.task.Generation,
		LastTransitionTime: r.now(),
	})
}

func (r *Report) now() metav1.Time { return metav1.NewTime(r.clock.Now()) }

// cut shortens a text to n bytes without splitting a character.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	const mark = "…"
	end := n - len(mark)
	for end > 0 && text[end]&0xC0 == 0x80 {
		end--
	}
	return text[:end] + mark
}
