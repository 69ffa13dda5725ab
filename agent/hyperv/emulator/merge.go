package emulator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// mergeStep is how much is merged while the guest waits.
const mergeStep = 1 << 20

// mergeRun is a merge under way. The package comment of vhdx has the rules that it follows.
type mergeRun struct {
	record mergeRecord
	child  *member
	parent *member
	// merged is how far the child is copied. What the guest writes into the child before that point is copied again at once.
	merged  int64
	aborted bool
	failed  error
}

// follow copies what the guest just wrote. The caller holds disk.mu.
func (m *mergeRun) follow(window extent.Extent) {
	window = window.Clip(extent.Extent{Length: m.merged})
	if window.Length == 0 || m.failed != nil {
		return
	}
	m.failed = vhdx.MergeRange(m.child.vhdx, m.parent.writer, window)
}

// abortMerge lets a merge of the leaf start over, because the leaf is about to be frozen. The caller holds d.mu.
func (d *disk) abortMerge() {
	if d.merge != nil {
		d.merge.aborted = true
		d.merge = nil
	}
}

// continueMerges runs the pending merges in the background, one after the other. The caller holds op.
func (v *vm) continueMerges() {
	if v.merging || len(v.record.Merges) == 0 || v.gone || v.has(troubleMergeBlocked) {
		return
	}
	v.merging = v.host.run(func() { v.mergeAll(v.host.ctx) })
}

const mergeRetry = time.Second

func (v *vm) mergeAll(ctx context.Context) {
	for ctx.Err() == nil {
		record, ok := v.nextMerge()
		if !ok {
			return
		}
		err := v.mergeOne(ctx, record)
		if err != nil && ctx.Err() == nil && !errors.Is(err, errAborted) && !errors.Is(err, errResumed) {
			v.host.log.Warn("a merge failed and is tried again", "vm", v.folder, "file", record.Child, "error", err)
			wait(ctx, mergeRetry)
		}
	}
}

// nextMerge returns the first merge that may run. One whose files a backup checkpoint shows waits until that is gone; the loop ends when
// there is no other.
func (v *vm) nextMerge() (mergeRecord, bool) {
	v.op.Lock()
	defer v.op.Unlock()
	if !v.gone && !v.isLeaving() && !v.has(troubleMergeBlocked) {
		for _, m := range v.record.Merges {
			if !v.record.backsUp(m.Child) {
				return m, true
			}
		}
	}
	v.merging = false
	return mergeRecord{}, false
}

func (r *vmRecord) backsUp(path string) bool {
	for _, s := range r.Snapshots {
		for _, d := range s.Disks {
			if s.Type == typeRecoverySnapshot && strings.EqualFold(d.Frozen, path) {
				return true
			}
		}
	}
	return false
}

func (v *vm) mergeOne(ctx context.Context, record mergeRecord) error {
	d, run, err := v.beginMerge(ctx, record)
	if err != nil {
		return err
	}
	err = d.copyAll(ctx, run)
	v.op.Lock()
	defer v.op.Unlock()
	if err == nil {
		err = v.finishMerge(ctx, d, run)
	}
	d.mu.Lock()
	if d.merge == run {
		d.merge = nil
	}
	d.mu.Unlock()
	return errors.Join(err, d.release())
}

// beginMerge opens the parent for writing and lets the child accept it before and after its DataWriteGuid changes.
func (v *vm) beginMerge(ctx context.Context, record mergeRecord) (*disk, *mergeRun, error) {
	v.op.Lock()
	defer v.op.Unlock()
	var d *disk
	for _, candidate := range v.disks {
		if candidate.path == record.Disk {
			d = candidate
		}
	}
	if d == nil {
		return nil, nil, fmt.Errorf("vm.yaml lacks the disk %s", record.Disk)
	}
	if err := d.acquire(ctx); err != nil {
		return nil, nil, err
	}
	if d.chain.index(record.Child) < 0 && d.chain.index(record.Parent) > 0 {
		// A kill between the last two steps: the file above names the parent already, only the record does not know it.
		err := v.commit(func(r *vmRecord) { r.replace(record) })
		return nil, nil, errors.Join(err, v.removeGarbage(), d.release(), errResumed)
	}
	d.mu.Lock()
	run, err := d.prepareMerge(ctx, record)
	d.mu.Unlock()
	if err != nil {
		return nil, nil, errors.Join(err, d.release())
	}
	return d, run, nil
}

func (d *disk) prepareMerge(ctx context.Context, record mergeRecord) (*mergeRun, error) {
	at := d.chain.index(record.Child)
	if at < 0 || at+1 == len(d.chain) || !strings.EqualFold(d.chain[at+1].path, record.Parent) {
		return nil, fmt.Errorf("%s and %s are not neighbours in the chain of %s", record.Child, record.Parent, d.path)
	}
	child, parent := d.chain[at], d.chain[at+1]
	files := d.vm.host.files
	if err := parent.makeWritable(ctx, files, d.chain[at+2:]); err != nil {
		return nil, err
	}
	if err := child.makeWritable(ctx, files, d.chain[at+1:]); err != nil {
		return nil, err
	}
	ref := parentRef(child.path, parent)
	ref.MergedID = child.vhdx.DataWriteID()
	if err := child.writer.SetParent(ref); err != nil {
		return nil, err
	}
	if err := d.reconnect(); err != nil {
		return nil, err
	}
	run := &mergeRun{record: record, child: child, parent: parent}
	if at == 0 {
		d.merge = run
	}
	return run, nil
}

// reconnect rebuilds what the writers of the chain see below them.
func (d *disk) reconnect() error {
	for i, m := range d.chain[:len(d.chain)-1] {
		if m.writer == nil {
			continue
		}
		below, err := d.chain[i+1:].disk()
		if err != nil {
			return err
		}
		if err := m.writer.SetParents(below); err != nil {
			return err
		}
	}
	return nil
}

// copyAll merges the whole child step by step, as fast as host.yaml allows.
func (d *disk) copyAll(ctx context.Context, run *mergeRun) error {
	h := d.vm.host
	for {
		if err := h.faults.mergeGate(ctx); err != nil {
			return err
		}
		if d.vm.isLeaving() {
			return errAborted
		}
		n, done, err := d.copyStep(run)
		if err != nil || done {
			return err
		}
		if rate := h.config.MergeBytesPerSecond; rate > 0 {
			wait(ctx, time.Duration(n)*time.Second/time.Duration(rate))
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
}

var (
	errAborted = errors.New("the merge starts over because of a new checkpoint")
	errResumed = errors.New("the merge was done already")
)

// isLeaving tells that another node of the cluster gets the VM, where its merges start over.
func (v *vm) isLeaving() bool {
	v.host.mu.Lock()
	defer v.host.mu.Unlock()
	return v.leaving
}

func (d *disk) copyStep(run *mergeRun) (n int64, done bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case run.aborted:
		return 0, false, errAborted
	case run.failed != nil:
		return 0, false, run.failed
	}
	size := run.child.vhdx.VirtualSize()
	for e, err := range run.child.vhdx.Present(extent.Extent{Offset: run.merged, Length: size - run.merged}) {
		if err != nil {
			return 0, false, err
		}
		e.Length = min(e.Length, mergeStep)
		if err := vhdx.MergeRange(run.child.vhdx, run.parent.writer, e); err != nil {
			return 0, false, err
		}
		run.merged = e.End()
		return e.Length, false, nil
	}
	run.merged = size
	return 0, true, nil
}

// finishMerge makes the parent take the child's place. The caller holds op.
func (v *vm) finishMerge(ctx context.Context, d *disk, run *mergeRun) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case run.aborted:
		return errAborted
	case run.failed != nil:
		return run.failed
	}
	if err := run.parent.writer.FinishMerge(run.child.vhdx); err != nil {
		return err
	}
	at := d.chain.index(run.child.path)
	if at > 0 {
		if err := d.reparent(ctx, d.chain[at-1], run.parent); err != nil {
			return err
		}
	}
	v.host.faults.reach(ctx, "merge.copied")
	info := run.parent.vhdx.Info()
	err := v.commit(func(r *vmRecord) {
		r.replace(run.record)
		if at == 0 {
			r.disk(d.path).Seen = seal{DataWriteID: info.DataWriteID, FileWriteID: info.FileWriteID}
		}
	})
	if err != nil {
		return err
	}
	return v.unlink(d, at)
}

// reparent lets the file above a merged one name the parent.
func (d *disk) reparent(ctx context.Context, above, parent *member) error {
	if err := above.makeWritable(ctx, d.vm.host.files, d.chain[d.chain.index(above.path)+1:]); err != nil {
		return err
	}
	return above.writer.SetParent(parentRef(above.path, parent))
}

// unlink takes the merged member out of the open chain and deletes its file.
func (v *vm) unlink(d *disk, at int) error {
	child, parent := d.chain[at], d.chain[at+1]
	d.chain = append(d.chain[:at:at], d.chain[at+1:]...)
	d.merge = nil
	errs := []error{child.close()}
	if at == 0 {
		errs = append(errs, parent.mark())
	} else {
		errs = append(errs, parent.freeze())
	}
	errs = append(errs, d.reconnect())
	return errors.Join(append(errs, v.removeGarbage(), v.writeTree())...)
}

// replace puts the parent of a merge into the place of its child everywhere.
func (r *vmRecord) replace(m mergeRecord) {
	swap := func(path *string) {
		if strings.EqualFold(*path, m.Child) {
			*path = m.Parent
		}
	}
	var rest []mergeRecord
	for _, other := range r.Merges {
		if other == m {
			continue
		}
		swap(&other.Parent)
		rest = append(rest, other)
	}
	r.Merges = rest
	for _, d := range r.Disks {
		swap(&d.Leaf)
	}
	for _, s := range r.Snapshots {
		for i := range s.Disks {
			swap(&s.Disks[i].Frozen)
		}
	}
	r.Garbage = append(r.Garbage, m.Child)
}

// wait sleeps for a while, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
