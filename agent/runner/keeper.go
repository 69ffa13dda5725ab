package runner

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// RunKeeper is the agent in keeper mode: it probes and maintains repositories, and verifies and deletes images in them. It works until ctx ends.
func RunKeeper(ctx context.Context, opts Options) error {
	a, err := newAgent(opts)
	if err != nil {
		return err
	}
	repositories := &Repositories{Client: a.client, Namespace: a.Namespace, Keeper: true, Options: a.Image, Kept: NewKept(a.clock)}
	defer repositories.Kept.Close(context.WithoutCancel(ctx)) //nolint:errcheck // what they wrote is durable already
	exclusive := NewExclusive(a.claim)
	return a.run(ctx, map[v1alpha1.TaskKind]Handler{
		v1alpha1.TaskProbe:       &probe{repositories: repositories, clock: a.claim.Clock},
		v1alpha1.TaskVerify:      &verify{repositories},
		v1alpha1.TaskScrub:       &scrub{repositories},
		v1alpha1.TaskDeleteImage: &deleteImage{repositories: repositories, exclusive: exclusive},
		v1alpha1.TaskMaintain:    &maintain{repositories: repositories, exclusive: exclusive},
		v1alpha1.TaskSyncCatalog: &syncCatalog{repositories},

		v1alpha1.TaskChangePassword: &changePassword{repositories: repositories, exclusive: exclusive},
	}, func(*Tasks) []manager.Runnable { return nil })
}

// probe opens a repository, making it when there is none yet, and tells what is in it. If asked, it tests the storage and makes new images
// immutable.
type probe struct {
	repositories *Repositories
	clock        clock.PassiveClock
}

func (p *probe) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	if err := report.Step(ctx, "Probe"); err != nil {
		return err
	}
	return p.repositories.withAny(ctx, task.Spec.Repository, func(repository *image.Repository) error {
		asked := task.Spec.Probe
		if asked == nil {
			asked = &v1alpha1.ProbeTask{}
		}
		facts, err := p.test(ctx, repository, asked)
		if err != nil {
			return err
		}
		if err := repository.Protect(ctx, immutabilityOf(asked.Immutability)); err != nil {
			return err
		}
		stats, err := repository.Stats(ctx)
		if err != nil {
			return err
		}
		result := v1alpha1.ProbeResult{
			RepositoryID: stats.UniqueID, Images: int32(stats.Images), StoredBytes: stats.StoredBytes, Storage: facts,
		}
		if stats.CapacityBytes > 0 {
			result.FreeBytes = ptr.To(stats.FreeBytes)
		}
		return report.Probe(ctx, result)
	})
}

// test tests the storage, if that is asked for.
func (p *probe) test(ctx context.Context, repository *image.Repository, asked *v1alpha1.ProbeTask) (*v1alpha1.StorageFacts, error) {
	if !asked.TestStorage {
		return nil, nil
	}
	found, err := repository.TestStorage(ctx)
	if err != nil {
		return nil, err
	}
	facts := &v1alpha1.StorageFacts{TestTime: metav1.NewTime(p.clock.Now()), ClockDriftSeconds: int64(found.ClockDrift / time.Second)}
	for _, ability := range found.Lacks {
		facts.Lacks = append(facts.Lacks, v1alpha1.StorageAbility(ability))
	}
	return facts, nil
}

func immutabilityOf(wanted *v1alpha1.Immutability) image.Immutability {
	if wanted == nil {
		return image.Immutability{}
	}
	return image.Immutability{Mode: image.LockMode(wanted.Mode), Period: time.Duration(wanted.RetentionDays) * 24 * time.Hour}
}

// changePassword makes a repository open with the new password. A task that is repeated ends what was begun.
type changePassword struct {
	repositories *Repositories
	exclusive    *Exclusive
}

func (c *changePassword) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	if err := report.Step(ctx, "Wait"); err != nil {
		return err
	}
	return c.exclusive.Run(ctx, task.Spec.Repository.Name, func(ctx context.Context) error {
		if err := report.Step(ctx, "Change"); err != nil {
			return err
		}
		return c.repositories.changePassword(ctx, task.Spec.Repository)
	})
}

// deleteImage deletes one image. An image that is not there is deleted already. The space that it took is freed by maintenance.
type deleteImage struct {
	repositories *Repositories
	exclusive    *Exclusive
}

func (d *deleteImage) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	if err := report.Step(ctx, "Wait"); err != nil {
		return err
	}
	return d.exclusive.Run(ctx, task.Spec.Repository.Name, func(ctx context.Context) error {
		if err := report.Step(ctx, "Delete"); err != nil {
			return err
		}
		return d.repositories.with(ctx, task.Spec.Repository, func(repository *image.Repository) error {
			return repository.Delete(ctx, task.Spec.Image.ImageID)
		})
	})
}
