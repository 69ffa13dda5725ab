package runner

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Sweeper removes from the host what belongs to no live task: a task may be deleted while its agent is away (I4). It touches only what carries a
// tag of ours or stands in the journal.
type Sweeper struct {
	Host      *hyperv.Host
	Journal   *Journal
	Restores  *restore
	Tasks     *Tasks
	Client    client.Client // uncached: a task that was made a moment ago is alive
	Namespace string
	Interval  time.Duration
	// Limit is how long the host may take to say what is on it.
	Limit time.Duration
	Clock clock.Clock
}

// Start sweeps at once and then at intervals, until ctx ends.
func (s *Sweeper) Start(ctx context.Context) error {
	log := ctrl.LoggerFrom(ctx).WithName("sweeper")
	for {
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			log.Error(err, "Host not swept")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.Clock.After(s.Interval):
		}
	}
}

// sweep compares the host and the journal with the tasks that live. What is found before the tasks are listed cannot be of a task that is newer, and a task
// that is deleted may still be worked on.
func (s *Sweeper) sweep(ctx context.Context) error {
	planned, leftovers, err := s.look(ctx)
	if err != nil || len(leftovers)+len(planned) == 0 {
		return err
	}
	if err := s.sweepPlanned(ctx, planned); err != nil {
		return err
	}
	live, err := s.live(ctx)
	if err != nil {
		return err
	}
	for tag, entry := range leftovers {
		if live[tag] || s.Tasks.Running(types.UID(tag)) {
			continue
		}
		// A task that ended since has written its last word into the journal by now.
		if now, found, err := s.Journal.Get(tag); err != nil {
			return err
		} else if found {
			entry = now
		} else if entry.journaled {
			continue
		}
		if settled, err := s.forget(entry); err != nil {
			return err
		} else if !settled {
			s.takeBack(ctx, tag, entry)
		}
	}
	return nil
}

// look finds what is on the host and in the journal.
func (s *Sweeper) look(ctx context.Context) (planned []string, leftovers map[string]Entry, err error) {
	limited, cancel := context.WithTimeoutCause(ctx, s.Limit, errNoAnswer)
	defer cancel()
	if planned, err = s.Host.PlannedTags(limited); err == nil {
		leftovers, err = s.found(limited)
	}
	return planned, leftovers, causeOf(limited, err)
}

// takeBack takes back what a dead task left. What cannot be is tried at the next sweep.
func (s *Sweeper) takeBack(ctx context.Context, tag string, entry Entry) {
	log := ctrl.LoggerFrom(ctx).WithValues("task", tag)
	limited, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	if entry.Restore != nil {
		log.Info("Took back what a dead restore left behind", "error", s.Restores.sweep(limited, tag, entry.Restore.ID, s.Clock.Now()))
		return
	}
	result := (&release{host: s.Host, journal: s.Journal, clock: s.Clock}).leave(limited, entry)
	log.Info("Swept what a dead backup left behind", "virtualMachine", entry.VirtualMachineID, "result", result.reason, "message", result.message)
}

// settledPeriod is how long the result of a dead attempt is remembered: longer than the next one may wait for its host.
const settledPeriod = 14 * 24 * time.Hour

// forget says whether an entry is no more than the result of a restore, and deletes one that nobody asks for any more.
func (s *Sweeper) forget(entry Entry) (settled bool, err error) {
	if entry.Restore == nil || entry.Restore.Settled.IsZero() {
		return false, nil
	}
	if s.Clock.Since(entry.Restore.Settled) >= settledPeriod {
		err = s.Journal.Delete(entry.Tag)
	}
	return true, err
}

// sweepPlanned destroys the planned virtual machines of restores that nobody works on and that the journal does not know: what it knows is taken back as a
// whole.
func (s *Sweeper) sweepPlanned(ctx context.Context, tags []string) error {
	if len(tags) == 0 {
		return nil
	}
	known := map[string]bool{}
	tasks := &v1alpha1.AgentTaskList{}
	if err := s.Client.List(ctx, tasks, client.InNamespace(s.Namespace)); err != nil {
		return fmt.Errorf("list tasks: %w", err)
	}
	for i := range tasks.Items {
		task := &tasks.Items[i]
		if task.Spec.Restore != nil && (!finished(task) || s.Tasks.Running(task.UID)) {
			known[task.Spec.Restore.RestoreID] = true
		}
	}
	entries, err := s.Journal.List()
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Restore != nil {
			known[entry.Restore.ID] = true
		}
	}
	for _, tag := range tags {
		if !known[hyperv.RestoreOf(tag)] {
			limited, cancel := context.WithTimeoutCause(ctx, releaseTimeout, errNoAnswer)
			err := causeOf(limited, s.Host.RemoveImport(limited, hyperv.Import{}, tag))
			cancel()
			ctrl.LoggerFrom(ctx).Info("Swept a planned virtual machine that a dead restore left behind", "restore", tag, "error", err)
		}
	}
	return nil
}

// found lists, by tag, what is on the host or in the journal.
func (s *Sweeper) found(ctx context.Context) (map[string]Entry, error) {
	leftovers := map[string]Entry{}
	checkpoints, err := s.Host.Owned(ctx)
	if err != nil {
		return nil, err
	}
	for _, checkpoint := range checkpoints {
		leftovers[checkpoint.Tag] = Entry{Tag: checkpoint.Tag, VirtualMachineID: checkpoint.VMID}
	}
	entries, err := s.Journal.List()
	if err != nil {
		return nil, err
	}
	for _, entry := range entries {
		entry.journaled = true
		leftovers[entry.Tag] = entry
	}
	return leftovers, nil
}

// live lists the uids of tasks that have no verdict yet, or are still worked on.
func (s *Sweeper) live(ctx context.Context) (map[string]bool, error) {
	tasks := &v1alpha1.AgentTaskList{}
	if err := s.Client.List(ctx, tasks, client.InNamespace(s.Namespace)); err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	live := map[string]bool{}
	for i := range tasks.Items {
		task := &tasks.Items[i]
		live[string(task.UID)] = !finished(task) || s.Tasks.Running(task.UID)
		if task.Spec.Release != nil && !finished(task) {
			live[task.Spec.Release.Tag] = true // that task cleans up
		}
	}
	return live, nil
}
