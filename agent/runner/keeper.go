package runner

import (
	"context"
	"fmt"
	"strings"

	"github.com/dustin/go-humanize"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// RunKeeper is the agent in keeper mode: it probes repositories, and verifies and deletes images in them. It works until ctx ends.
func RunKeeper(ctx context.Context, opts Options) error {
	a, err := newAgent(opts)
	if err != nil {
		return err
	}
	repositories := &Repositories{Client: a.client, Namespace: a.Namespace, Keeper: true, Options: a.Image}
	return a.run(ctx, map[v1alpha1.TaskKind]Handler{
		v1alpha1.TaskProbe:       &probe{repositories},
		v1alpha1.TaskVerify:      &verify{repositories},
		v1alpha1.TaskDeleteImage: &deleteImage{repositories, a.claim},
	}, func(*Tasks) []manager.Runnable { return nil })
}

// probe opens a repository, making it when there is none yet, and tells what is in it.
type probe struct{ repositories *Repositories }

func (p *probe) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	if err := report.Step(ctx, "Probe"); err != nil {
		return err
	}
	return p.repositories.with(ctx, task.Spec.Repository, func(repository *image.Repository) error {
		stats, err := repository.Stats(ctx)
		if err != nil {
			return err
		}
		result := v1alpha1.ProbeResult{
			RepositoryID: stats.UniqueID, Images: int32(stats.Images), StoredBytes: stats.StoredBytes,
		}
		if stats.CapacityBytes > 0 {
			result.FreeBytes = ptr.To(stats.FreeBytes)
		}
		return report.Probe(ctx, result)
	})
}

// deleteImage deletes one image. One that is not there is deleted already.
type deleteImage struct {
	repositories *Repositories
	claim        *Claim
}

func (d *deleteImage) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	if err := report.Step(ctx, "Delete"); err != nil {
		return err
	}
	return d.repositories.with(ctx, task.Spec.Repository, func(repository *image.Repository) error {
		if err := d.claim.Check(ctx); err != nil {
			return err
		}
		return repository.Delete(ctx, task.Spec.Image.ImageID)
	})
}

// verify reads a whole image and checks every byte of it.
type verify struct{ repositories *Repositories }

func (v *verify) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	if err := report.Step(ctx, "Verify"); err != nil {
		return err
	}
	return v.repositories.with(ctx, task.Spec.Repository, func(repository *image.Repository) error {
		id := task.Spec.Image.ImageID
		found, err := repository.Image(ctx, id)
		if err != nil {
			return err
		}
		var counted image.Progress
		total := found.Manifest().ProtectedBytes()
		stop := report.Progress(ctx, func() (int64, int64, int64) { return total, counted.Processed.Load(), 0 })
		result, err := repository.Verify(ctx, id, &counted)
		stop()
		if err != nil {
			return err
		}
		return damageOf(result)
	})
}

// damageOf makes an error of what did not pass.
func damageOf(found image.Verification) error {
	if found.Sound() {
		return nil
	}
	var damaged []string
	for _, disk := range found.Disks {
		if len(disk.Damaged) > 0 {
			damaged = append(damaged, fmt.Sprintf("disk %s: %s of it, %s", disk.Key, humanize.IBytes(uint64(disk.Damaged.Bytes())), disk.Reason))
		}
	}
	for _, file := range found.DamagedFiles {
		damaged = append(damaged, "file "+file)
	}
	return stall(v1alpha1.ReasonDamaged, fmt.Errorf("the image is damaged and cannot be restored whole: %s", strings.Join(damaged, "; ")))
}
