package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// definitionFile is the file of an image that says in portable words how to define the virtual machine anew.
const definitionFile = "definition.json"

// What an image records for us beside its own facts.
const (
	annotationNamespace  = "hyperkeep.io/namespace"
	annotationObjectName = "hyperkeep.io/virtual-machine"
	annotationRetention  = "hyperkeep.io/retention" // as JSON
	annotationRunType    = "hyperkeep.io/run-type"
	annotationAllocated  = "hyperkeep.io/allocated-bytes"
	// annotationMethodReason is why the method was chosen, as "Reason: message".
	annotationMethodReason = "hyperkeep.io/method-reason"
	// annotationInterruption is how long the virtual machine was seen not to run, in milliseconds.
	annotationInterruption = "hyperkeep.io/interruption-milliseconds"
	// annotationMemory is a v1alpha1.MemoryCapture.
	annotationMemory = "hyperkeep.io/memory"
	// annotationRestoredState is the state that a virtual machine restored from the image has, Off or Saved, with the method VSS (NV-16).
	annotationRestoredState = "hyperkeep.io/restored-state"
)

// transfer reads what was decided and stores it. Nothing of it is visible before publishing.
func (r *backupRun) transfer(ctx context.Context) error {
	writer, err := r.repository.Begin(ctx, r.imageSpec())
	if err != nil {
		return err
	}
	r.writer = writer
	counters := make([]diskProgress, len(r.plan))
	for i := range r.plan {
		counters[i].estimate.Store(r.plan[i].estimate)
	}
	stop := r.report.LimitedProgress(ctx, r.repositories.Options.Bandwidth, func() (total, done, stored int64) {
		for i := range counters {
			estimate := counters[i].estimate.Load()
			total += estimate
			done += min(counters[i].Read.Load(), estimate)
		}
		return total, done, writer.Stored()
	})
	defer stop()
	group, adding := errgroup.WithContext(ctx)
	group.SetLimit(disksAtOnce)
	for i := range r.plan {
		group.Go(func() error { return r.addDisk(adding, &r.plan[i], &counters[i]) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return r.addConfiguration(ctx)
}

// disksAtOnce is how many disks of a virtual machine are read at the same time: while one waits for the host's storage, the others keep the CPUs
// busy. They share the writer's memory.
const disksAtOnce = 4

// diskProgress counts the work on one disk, while others look.
type diskProgress struct {
	image.Progress
	estimate atomic.Int64 // of the bytes to read
}

func (r *backupRun) imageSpec() image.ImageSpec {
	vm := r.spec.VirtualMachine
	return image.ImageSpec{
		ID: r.spec.ImageID, TaskUID: r.entry.Tag, Policy: r.spec.PolicyName,
		VM:      image.VM{ID: vm.ID, Name: vm.Name, Host: vm.HostName},
		TakenAt: r.checkpoint.Taken, Consistency: string(consistencyOf(r.checkpoint.Level)), Method: string(r.method.name),
		Tool: "hyperkeep " + r.version, Excluded: r.excluded, Repair: r.spec.Repair != nil,
		Annotations: r.annotations(),
	}
}

func (r *backupRun) annotations() map[string]string {
	var allocated int64
	for _, plan := range r.plan {
		allocated += plan.allocated
	}
	out := map[string]string{
		annotationNamespace: r.spec.Namespace, annotationObjectName: r.spec.VirtualMachine.ObjectName,
		annotationRunType: string(r.spec.Type), annotationAllocated: strconv.FormatInt(allocated, 10),
		annotationMethodReason: r.method.why.String(), annotationMemory: string(r.memory()),
	}
	if r.spec.Retention != nil {
		text, _ := json.Marshal(r.spec.Retention) // a number and a text
		out[annotationRetention] = string(text)
	}
	if r.method.name == v1alpha1.MethodVSS {
		out[annotationInterruption] = strconv.FormatInt(r.taken.Interruption.Milliseconds(), 10)
		out[annotationRestoredState] = string(recordedState(r.vm.State, r.taken.Saved))
	}
	return out
}

// addDisk stores one disk. An increment that turns out not to be sound becomes a full read of that disk alone (AC-12, AC-14).
func (r *backupRun) addDisk(ctx context.Context, plan *diskPlan, progress *diskProgress) error {
	defer plan.content.Close() //nolint:errcheck // read only
	spec := image.DiskSpec{
		Key: plan.disk.Key, Name: plan.disk.Key, VirtualDiskID: plan.disk.DiskID, SourcePath: sourceOf(plan.disk),
		LogicalSectorSize: int(plan.disk.SectorSize), PhysicalSectorSize: int(plan.content.PhysicalSectorSize),
		ReadPath: readPathText(plan.content.Choice),
		Reason:   plan.reason.String(), Increment: plan.increment, Repair: plan.reason == reasonDamaged,
	}
	_, err := r.writer.AddDisk(ctx, spec, plan.content, &progress.Progress)
	lost, isLost := errors.AsType[*hyperv.TrackingLostError](err)
	switch {
	case isLost:
		plan.demote(readReason{string(lost.Reason), lost.Detail})
	case errors.Is(err, image.ErrBaseUnusable):
		plan.demote(readReason{"BaseUnusable", err.Error()})
	default:
		return err
	}
	r.report.Warn("IncrementDemoted", "Disk %s is read in full: %s.", plan.disk.Key, plan.reason)
	spec.Increment, spec.Reason = nil, plan.reason.String()
	spec.Repair = errors.Is(err, image.ErrBaseUnusable)
	progress.estimate.Store(plan.estimate)
	progress.Read.Store(0)
	_, err = r.writer.AddDisk(ctx, spec, plan.content, &progress.Progress)
	return err
}

// sourceOf is where a disk lies on the host: in a shadow copy it is only for a while.
func sourceOf(disk hyperv.FrozenDisk) string {
	if len(disk.Chain) > 0 {
		return disk.LivePath
	}
	return disk.Path
}

// addConfiguration stores what the virtual machine is besides its disks: Hyper-V's own files, and the same in portable words.
func (r *backupRun) addConfiguration(ctx context.Context) error {
	definition, err := json.MarshalIndent(r.vm.Definition(), "", "  ")
	if err != nil {
		return fmt.Errorf("describe the virtual machine: %w", err)
	}
	if err := r.writer.AddFile(ctx, definitionFile, bytes.NewReader(definition)); err != nil {
		return err
	}
	files, err := r.configuration(ctx)
	if err != nil {
		return err
	}
	for _, file := range files {
		if err := r.addFile(ctx, file); err != nil {
			return err
		}
	}
	return nil
}

func (r *backupRun) addFile(ctx context.Context, file hyperv.ConfigFile) error {
	content, err := r.files.Open(ctx, file.Path)
	if err != nil {
		return fmt.Errorf("open %s: %w", file.Path, err)
	}
	size, err := content.Size()
	if err == nil {
		err = r.writer.AddFile(ctx, file.Name, io.NewSectionReader(content, 0, size))
	}
	return errors.Join(err, content.Close())
}
