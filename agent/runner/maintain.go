package runner

import (
	"context"
	"sync/atomic"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// maintain keeps a repository fast, and in full mode frees what no image uses. A task that is repeated starts over.
type maintain struct {
	repositories *Repositories
	exclusive    *Exclusive
}

func (m *maintain) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	if err := report.Step(ctx, "Wait"); err != nil {
		return err
	}
	return m.exclusive.Run(ctx, task.Spec.Repository.Name, func(ctx context.Context) error {
		if err := report.Step(ctx, "Maintain"); err != nil {
			return err
		}
		return m.repositories.with(ctx, task.Spec.Repository, func(repository *image.Repository) error {
			return m.maintain(ctx, repository, task, report)
		})
	})
}

func (m *maintain) maintain(ctx context.Context, repository *image.Repository, task *v1alpha1.AgentTask, report *Report) error {
	opts := image.MaintainOptions{Full: task.Spec.Maintain.Mode == v1alpha1.MaintainFull, Looked: &atomic.Int64{}}
	total := int64(0)
	if opts.Full {
		stats, err := repository.Stats(ctx)
		if err != nil {
			return err
		}
		total = stats.StoredBytes
	}
	stop := report.Progress(ctx, func() (int64, int64, int64) { return total, min(total, opts.Looked.Load()), 0 })
	done, err := repository.Maintain(ctx, opts)
	stop()
	if err != nil {
		return err
	}
	return report.Maintained(ctx, v1alpha1.MaintainResult{
		FreedBytes: done.FreedBytes, UnusedBytes: done.UnusedBytes, RecoveredBytes: done.RecoveredBytes, IndexBlobs: int32(done.IndexBlobs),
	})
}
