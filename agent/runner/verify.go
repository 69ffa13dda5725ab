package runner

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

const (
	// maxDamagedPacks and maxDamagedImages are what the schema allows a result to name.
	maxDamagedPacks  = 256
	maxDamagedImages = 500
)

// scrub reads a share of a repository. It deletes and moves nothing, so it asks for no lease: two at once only read twice. A task that is repeated goes
// on where it was.
type scrub struct{ repositories *Repositories }

func (s *scrub) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	if err := report.Step(ctx, "Read"); err != nil {
		return err
	}
	asked := task.Spec.Scrub
	allowed, err := allowance(asked.Bandwidth)
	if err != nil {
		return err
	}
	limit := image.NewBandwidth(report.clock.Now)
	limit.Limit(allowed)
	before := v1alpha1.ScrubResult{Position: asked.From}
	if task.Status.Scrubbed != nil {
		before = *task.Status.Scrubbed
	}
	return s.repositories.with(ctx, task.Spec.Repository, func(repository *image.Repository) error {
		found, err := repository.Scrub(ctx, image.ScrubOptions{
			From: int(before.Position), To: int(asked.To), Again: append(slices.Clone(asked.Again), before.DamagedPacks...), Bandwidth: limit,
			Done: func(found image.Scrubbed) error { return report.Scrubbed(ctx, scrubResult(before, found)) },
		})
		if err != nil {
			return err
		}
		return report.Scrubbed(ctx, scrubResult(before, found))
	})
}

// scrubResult is what a task has found, with what it had read in an earlier session. What was damaged then was looked at again.
func scrubResult(before v1alpha1.ScrubResult, found image.Scrubbed) v1alpha1.ScrubResult {
	result := v1alpha1.ScrubResult{
		Position: int32(found.Position), Bytes: before.Bytes + found.Bytes, Contents: before.Contents + found.Contents,
		Damaged: int64(found.Damaged), DamagedPacks: found.Packs[:min(len(found.Packs), maxDamagedPacks)],
	}
	for _, v := range found.Images {
		if len(result.Images) == maxDamagedImages {
			result.OtherImages++
			continue
		}
		result.Images = append(result.Images, v1alpha1.DamagedImage{
			ImageID: v.ImageID, VirtualMachineID: v.VMID, Disks: damagedDisks(v), Message: cut(damageWords(v), maxMessage),
		})
	}
	return result
}

// verify reads a whole image and checks every byte of it.
type verify struct{ repositories *Repositories }

func (v *verify) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	if err := report.Step(ctx, "Verify"); err != nil {
		return err
	}
	return v.repositories.with(ctx, task.Spec.Repository, func(repository *image.Repository) error {
		wanted := task.Spec.Image
		found, err := repository.Match(ctx, wanted.ImageID, wanted.VirtualMachineID, wanted.Digest)
		if err != nil {
			return err
		}
		var counted image.Progress
		total := found.Manifest().ProtectedBytes()
		stop := report.Progress(ctx, func() (int64, int64, int64) { return total, counted.Processed.Load(), 0 })
		result, err := found.Verify(ctx, &counted)
		stop()
		if err != nil || result.Sound() {
			return err
		}
		if err := report.Damaged(ctx, damagedDisks(result)); err != nil {
			return err
		}
		return stall(v1alpha1.ReasonDamaged, fmt.Errorf("the image is damaged and cannot be restored whole: %s", damageWords(result)))
	})
}

// damagedDisks are the keys of the disks that did not pass.
func damagedDisks(found image.Verification) (keys []string) {
	for _, disk := range found.Disks {
		if len(disk.Damaged) > 0 {
			keys = append(keys, disk.Key)
		}
	}
	return keys
}

// damageWords say what did not pass.
func damageWords(found image.Verification) string {
	var damaged []string
	for _, disk := range found.Disks {
		if len(disk.Damaged) > 0 {
			damaged = append(damaged, fmt.Sprintf("disk %s: %s of it, %s", disk.Key, humanize.IBytes(uint64(disk.Damaged.Bytes())), disk.Reason))
		}
	}
	for _, file := range found.DamagedFiles {
		damaged = append(damaged, "file "+file)
	}
	return strings.Join(damaged, "; ")
}
