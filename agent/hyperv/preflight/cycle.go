package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Measurements are what a cycle found out. Durations are in milliseconds.
type Measurements struct {
	VM    string       `json:"vm"`
	Level hyperv.Level `json:"level"`
	// Checkpoint, Convert and Merge are how long each took: the merge until nothing of the checkpoint was left.
	CheckpointMillis int64 `json:"checkpointMillis"`
	ConvertMillis    int64 `json:"convertMillis"`
	MergeMillis      int64 `json:"mergeMillis"`
	// ReferencePointDisks and ReferencePointIDs are the lengths of the two arrays of the reference point, which should be equal.
	ReferencePointDisks int               `json:"referencePointDisks"`
	ReferencePointIDs   int               `json:"referencePointIDs"`
	Disks               []DiskMeasurement `json:"disks,omitempty"`
}

// DiskMeasurement is about one disk.
type DiskMeasurement struct {
	Key string `json:"key"`
	// Chain is how many files the frozen disk has, DirtyLog whether the topmost has a log that must be replayed.
	Chain    int  `json:"chain"`
	DirtyLog bool `json:"dirtyLog"`
	// Sampled is how many bytes were read in each way, Reads how fast and whether the bytes were the same as those of the first.
	Sampled int64  `json:"sampled"`
	Reads   []Read `json:"reads,omitempty"`
	// Reported is how many bytes change tracking says were changed between the two checkpoints, Changed how many sampled pieces were, Missed how many of
	// those it did not say.
	Reported int64 `json:"reported"`
	Changed  int   `json:"changed"`
	Missed   int   `json:"missed"`
}

// Read is one way to read a frozen disk.
type Read struct {
	Way    string `json:"way"`
	Millis int64  `json:"millis"`
	// Problem is why it did not work, or how it differed; "" when all was well.
	Problem string `json:"problem,omitempty"`
}

// How long a cycle waits for each thing.
const (
	checkpointLimit = 15 * time.Minute
	mergeLimit      = 30 * time.Minute
	cleanupLimit    = 10 * time.Minute
	mergePoll       = time.Second
)

// Cycle takes one VM, by its name or id, twice through a checkpoint and a read, makes a reference point of the first checkpoint, asks what changed until
// the second, and removes all that it made, also when ctx ends or something fails. Change tracking of the VM's disks stays on. What it finds is in the report.
func (p *Preflight) Cycle(ctx context.Context, r *Report, name string) {
	c := &cycle{Preflight: p, report: r, host: hyperv.New(p.Seams), found: &Measurements{}}
	if err := c.choose(ctx, name); err != nil {
		r.fail(SectionCycle, name, err, "Name a virtual machine that is free for a checkpoint, such as one made for tests.")
	} else {
		r.Cycle = c.found
		err := c.run(ctx)
		cleanup := c.cleanUp(context.WithoutCancel(ctx))
		if err != nil {
			r.fail(SectionCycle, "cycle", err, "")
		}
		if cleanup != nil {
			r.fail(SectionCycle, "clean up", cleanup, c.remedy())
		} else {
			r.pass(SectionCycle, "clean up", "nothing is left on the host")
		}
	}
	r.conclude()
}

// cycle is one run, and what has to be taken back.
type cycle struct {
	*Preflight
	report *Report
	host   *hyperv.Host
	found  *Measurements

	info   hyperv.HostInfo
	vm     hyperv.VM
	before []string // the reference points that are not ours
	passes []*pass
	point  *hyperv.ReferencePoint
}

// pass is one of the two checkpoints.
type pass struct {
	tag        string
	intent     hyperv.Intent
	checkpoint hyperv.Checkpoint
	disks      []hyperv.FrozenDisk
	converting bool
	samples    map[string]samples // by the disk's key
}

// choose finds the VM, and refuses one with which anything else is going on.
func (c *cycle) choose(ctx context.Context, name string) error {
	inventory, err := c.host.Inventory(ctx)
	if err != nil {
		return err
	}
	var found []hyperv.VM
	for _, vm := range inventory.VMs {
		if strings.EqualFold(vm.Name, name) || strings.EqualFold(vm.ID, name) {
			found = append(found, vm)
		}
	}
	if len(found) != 1 {
		return fmt.Errorf("%d virtual machines are called %q", len(found), name)
	}
	c.info, c.vm, c.found.VM = inventory.Host, found[0], found[0].Name
	for _, concern := range c.vm.Concerns {
		if concern.Reason.Severity() == hyperv.Critical {
			return errors.New(concern.Message)
		}
	}
	points, err := c.host.ReferencePoints(ctx, c.vm.ID)
	for _, point := range points {
		c.before = append(c.before, point.ID)
	}
	return err
}

func (c *cycle) run(ctx context.Context) error {
	c.checkWriter(ctx)
	first, err := c.freeze(ctx)
	if err != nil {
		return err
	}
	if err := c.read(ctx, first); err != nil {
		return err
	}
	if err := c.convert(ctx, first); err != nil {
		return err
	}
	if err := c.awaitMerge(ctx, first); err != nil {
		return err
	}
	second, err := c.freeze(ctx)
	if err != nil {
		return err
	}
	return c.compare(ctx, first, second)
}

// checkWriter asks the Hyper-V writer what it offers. The service is started for it, and stops by itself.
func (c *cycle) checkWriter(ctx context.Context) {
	const name = "VSS writer"
	if c.Seams.Shadows == nil {
		c.report.add(SectionCycle, name, Unchecked, "this program has no access to VSS", "")
		return
	}
	components, err := c.components(ctx)
	switch {
	case err != nil:
		c.report.add(SectionCycle, name, Concern, err.Error(), "The method VSS will not work; backups through WMI do not need it. Look at vssadmin list writers.")
	case !slices.ContainsFunc(components, func(v vss.Component) bool { return strings.EqualFold(v.Name, c.vm.ID) }):
		c.report.add(SectionCycle, name, Concern, fmt.Sprintf("it offers %s, and not this one", plural(len(components), "virtual machine")),
			"The method VSS will not work for it; backups through WMI do not need it.")
	default:
		c.report.pass(SectionCycle, name, "it offers %s, this one among them", plural(len(components), "virtual machine"))
	}
}

func (c *cycle) components(ctx context.Context) (_ []vss.Component, err error) {
	if err := c.host.StartVSS(ctx); err != nil {
		return nil, err
	}
	requester, err := c.Seams.Shadows.Open(ctx, vss.Copy)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, requester.Close()) }()
	return requester.Components(ctx)
}

// freeze takes a checkpoint, application consistent where the guest can be without its applications truncating their logs.
func (c *cycle) freeze(ctx context.Context) (*pass, error) {
	level := hyperv.Crash
	if ok, _ := hyperv.Quiescible(c.vm); ok && hyperv.CopiesGuests(c.info) {
		level = hyperv.Application
	}
	q := &pass{tag: "preflight-" + uuid.NewString(), samples: map[string]samples{}}
	var err error
	if q.intent, err = c.host.PrepareCheckpoint(ctx, c.vm.ID, level); err != nil {
		return nil, err
	}
	c.passes = append(c.passes, q)
	began := c.Seams.Clock.Now()
	request := hyperv.CheckpointRequest{VMID: c.vm.ID, Tag: q.tag, Level: level, CopyOnly: true, Timeout: checkpointLimit, Intent: q.intent}
	q.checkpoint, err = c.host.Checkpoint(ctx, request)
	if errors.Is(err, hyperv.ErrQuiesce) {
		c.report.add(SectionCycle, "quiesce", Concern, err.Error(), "Look into the guest's event log for VSS, or at hv_vss_daemon in a Linux guest.")
		request.Level, began = hyperv.Crash, c.Seams.Clock.Now()
		q.checkpoint, err = c.host.Checkpoint(ctx, request)
	}
	if err != nil {
		return nil, err
	}
	if len(c.passes) == 1 {
		c.found.Level, c.found.CheckpointMillis = q.checkpoint.Level, c.since(began)
		c.report.pass(SectionCycle, "checkpoint", "%s consistent, after %d ms", strings.ToLower(string(q.checkpoint.Level)), c.found.CheckpointMillis)
		c.checkName(q.checkpoint)
	}
	var excluded []hyperv.ExcludedDisk
	q.disks, excluded, err = c.host.Disks(ctx, q.checkpoint)
	if err == nil && len(q.disks)+len(excluded) != len(c.vm.Disks) {
		err = fmt.Errorf("the checkpoint has %d disks and leaves out %d of %d", len(q.disks), len(excluded), len(c.vm.Disks))
	}
	return q, err
}

// checkName tells whether Hyper-V let the checkpoint have the name by which everybody knows whose it is.
func (c *cycle) checkName(cp hyperv.Checkpoint) {
	if cp.Unnamed == "" {
		c.report.pass(SectionCycle, "checkpoint's name", "Hyper-V takes it")
		return
	}
	c.report.add(SectionCycle, "checkpoint's name", Concern, "Hyper-V refuses it: "+cp.Unnamed,
		"Backups work, and remove their checkpoints. Keep the agent's state folder: only it tells during a backup whose the checkpoint is.")
}

// remedy is what a person does about a checkpoint that could not be removed.
func (c *cycle) remedy() string {
	const remove = "is of no use any more. Remove it: Get-VMSnapshot -SnapshotType Recovery, Remove-VMSnapshot."
	for _, q := range c.passes {
		if q.checkpoint.Unnamed != "" {
			return fmt.Sprintf("The recovery checkpoint of %s, made at %s, %s", c.vm.Name, q.checkpoint.Taken.Format(time.RFC3339), remove)
		}
	}
	return fmt.Sprintf("The recovery checkpoint of %s named \"hyperkeep preflight-...\", or one without such a name that was made since %s, %s",
		c.vm.Name, c.report.Time.Format(time.RFC3339), remove)
}

func (c *cycle) since(began time.Time) int64 { return c.Seams.Clock.Now().Sub(began).Milliseconds() }

// convert makes the reference point, and looks at the two arrays that tie ids to disks.
func (c *cycle) convert(ctx context.Context, q *pass) error {
	began := c.Seams.Clock.Now()
	q.converting = true
	point, err := c.host.Convert(ctx, q.checkpoint, q.disks)
	if err != nil {
		return err
	}
	c.point, c.found.ConvertMillis = &point, c.since(began)
	raw, err := c.Seams.Virtualization.Query(ctx, "SELECT * FROM Msvm_VirtualSystemReferencePoint WHERE InstanceID="+wmi.Quote(point.ID))
	if err == nil && len(raw) != 1 {
		err = hyperv.ErrReferencePointNotFound
	}
	if err != nil {
		return fmt.Errorf("read the reference point: %w", err)
	}
	disks, err := raw[0].Strings("VirtualDiskIdentifiers")
	ids, idsErr := raw[0].Strings("ResilientChangeTrackingIdentifiers")
	if err := errors.Join(err, idsErr); err != nil {
		return err
	}
	c.found.ReferencePointDisks, c.found.ReferencePointIDs = len(disks), len(ids)
	found := fmt.Sprintf("after %d ms, with %d disks and %d tracking ids for %d frozen disks", c.found.ConvertMillis, len(disks), len(ids), len(q.disks))
	if len(disks) != len(ids) || len(point.Disks) != len(q.disks) {
		c.report.add(SectionCycle, "reference point", Concern, found, "Disks without an id are read in full each time.")
		return nil
	}
	c.report.pass(SectionCycle, "reference point", "%s", found)
	return nil
}

// awaitMerge waits until nothing of a checkpoint is left.
func (c *cycle) awaitMerge(ctx context.Context, q *pass) error {
	began := c.Seams.Clock.Now()
	for {
		state, err := c.host.Released(ctx, q.checkpoint, q.disks)
		if err != nil {
			return err
		}
		if state.Done {
			c.found.MergeMillis = max(c.found.MergeMillis, c.since(began))
			return nil
		}
		if c.Seams.Clock.Now().Sub(began) > mergeLimit {
			return fmt.Errorf("not merged after %s: %s", mergeLimit, state.Message)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-c.Seams.Clock.After(mergePoll):
		}
	}
}

// cleanUp removes all that the cycle made and looks that it is gone.
func (c *cycle) cleanUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, cleanupLimit)
	defer cancel()
	var errs []error
	for _, q := range c.passes {
		errs = append(errs, c.release(ctx, q))
	}
	if c.point != nil {
		errs = append(errs, c.host.DropReferencePoint(ctx, c.vm.ID, c.point.ID))
	}
	points, err := c.host.ReferencePoints(ctx, c.vm.ID)
	for _, point := range points {
		if !slices.Contains(c.before, point.ID) {
			errs = append(errs, fmt.Errorf("reference point %s appeared during the cycle and is there still", point.ID))
		}
	}
	return errors.Join(append(errs, err)...)
}

// release takes one checkpoint back. One whose conversion was interrupted may have become a reference point, before or while it was to be
// released: then that one is ours, too.
func (c *cycle) release(ctx context.Context, q *pass) error {
	cp, err := c.host.FindCheckpoint(ctx, c.vm.ID, q.tag, q.intent)
	if err == nil {
		q.checkpoint = cp
		err = c.host.Release(ctx, cp)
	}
	if errors.Is(err, hyperv.ErrCheckpointNotFound) {
		err = nil
	}
	if err == nil && q.converting && c.point == nil {
		err = c.adoptPoint(ctx, q)
	}
	if err != nil || q.checkpoint.ID == "" {
		return err
	}
	return c.awaitMerge(ctx, q)
}

// adoptPoint finds the reference point that a checkpoint has become. One that tracking began with cannot be told by its ids, and is dropped at once. When there
// is none, the checkpoint was released.
func (c *cycle) adoptPoint(ctx context.Context, q *pass) error {
	point, err := c.host.Convert(ctx, q.checkpoint, q.disks)
	if errors.Is(err, hyperv.ErrReferencePointNotFound) {
		return c.host.DropConverted(ctx, c.vm.ID, q.intent) // whatever else appeared is told
	}
	if err == nil {
		c.point = &point
	}
	return err
}
