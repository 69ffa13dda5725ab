package emulator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// Snapshot implements vss.Requester.
func (r *requester) Snapshot(ctx context.Context) (vss.Snapshot, error) {
	if err := r.Prepare(ctx); err != nil {
		return vss.Snapshot{}, err
	}
	return r.Do(ctx)
}

// Prepare is PrepareForBackup.
func (r *requester) Prepare(ctx context.Context) error {
	if r.set == nil || r.failed || r.ready {
		return errOrder
	}
	r.failed = true
	err := errors.Join(ctx.Err(), r.service.host.faults.hresult(vssPrepare))
	if err == nil && r.vm != nil {
		err = r.service.host.faults.writer(writerPrepare, vss.FailedAtPrepareBackup)
	}
	if err != nil {
		r.service.made(r.set)
		return err
	}
	r.failed = false
	return nil
}

// Do is DoSnapshotSet. The set is no longer being made when it returns.
func (r *requester) Do(ctx context.Context) (vss.Snapshot, error) {
	if r.set == nil || r.failed || r.ready {
		return vss.Snapshot{}, errOrder
	}
	r.failed = true
	defer r.service.made(r.set)
	err := errors.Join(ctx.Err(), r.service.host.faults.hresult(vssDo))
	if err == nil && r.vm == nil {
		err = r.uninvolved(ctx)
	} else if err == nil {
		err = r.writer(ctx)
	}
	if err != nil {
		return vss.Snapshot{}, err
	}
	snapshot := vss.Snapshot{Devices: map[string]string{}, Taken: r.taken}
	for volume, device := range r.set.devices {
		snapshot.Devices[volume] = hostfs.ShadowDevice + strconv.Itoa(device)
	}
	r.failed, r.ready = false, true
	return snapshot, nil
}

// uninvolved copies what lies on the volumes, of all VMs: nobody is asked.
func (r *requester) uninvolved(ctx context.Context) error {
	var errs []error
	for _, v := range r.service.host.allVMs() {
		errs = append(errs, r.copyRunning(ctx, v))
	}
	return errors.Join(errs...)
}

// writer is the snapshot with the writer's part in it, which it refuses when the set lacks a volume that files of the machine lie on.
func (r *requester) writer(ctx context.Context) error {
	h, v := r.service.host, r.vm
	for _, path := range h.filesOf(v) {
		if _, held := r.set.devices[h.files.Mapping().VolumeOf(path)]; !held {
			return &vss.WriterError{State: vss.FailedAtPrepareSnapshot, Code: vss.WriterInconsistent}
		}
	}
	h.mu.Lock()
	online, state := v.quiescible(), v.config.State
	h.mu.Unlock()
	switch {
	case online:
		return r.take(ctx, r.online)
	case state == statePaused, state == stateRunning && (!h.modern() || h.config.OfflineBackupSaves):
		return r.take(ctx, r.saved)
	}
	return r.take(ctx, func(ctx context.Context) error { return r.copyRunning(ctx, v) })
}

// take runs one way of making the shadow copies while no other operation works on the VM.
func (r *requester) take(ctx context.Context, how func(context.Context) error) error {
	h, v := r.service.host, r.vm
	h.mu.Lock()
	code := v.claim(opCreatingSnapshot)
	h.mu.Unlock()
	if code != codeDone {
		return &vss.WriterError{State: vss.FailedAtPrepareBackup, Code: vss.WriterRetryable}
	}
	defer v.unclaim()
	return how(ctx)
}

// online has the guest quiesce. As from Windows Server 2012 R2 on, an automatic checkpoint makes new files that the guest writes while the frozen ones are
// in the shadow copy; it is gone and merged afterwards.
func (r *requester) online(ctx context.Context) error {
	h, v := r.service.host, r.vm
	err := h.faults.writer(writerFreeze, vss.FailedAtFreeze)
	if err == nil {
		err = v.quiesce(ctx, consistencyApplication, r.kind == vss.Copy)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if failed, isJob := errors.AsType[*jobError](err); isJob {
		h.log.Info("the guest did not quiesce", "vm", v.folder, "reason", failed.message)
		return &vss.WriterError{State: vss.FailedAtFreeze, Code: vss.WriterTimeout}
	}
	if err != nil {
		return err
	}
	v.op.Lock()
	defer v.op.Unlock()
	for _, s := range v.record.Snapshots {
		if s.Type == typeRecoverySnapshot {
			return &vss.WriterError{State: vss.FailedAtPrepareSnapshot, Code: vss.WriterRetryable}
		}
	}
	paths := h.filesOf(v)
	r.taken = h.now().UTC()
	s, err := v.createSnapshot(ctx, typeRecoverySnapshot, v.config.Name, consistencyApplication)
	if err != nil {
		return fmt.Errorf("%s: %w", vssDo, errors.Join(vss.Unexpected, err))
	}
	h.faults.reach(ctx, "vss.frozen")
	return errors.Join(r.copyPaths(paths), v.removeSnapshots([]*snapshotRecord{s}, nil), h.faults.writer(writerThaw, vss.FailedAtThaw))
}

// saved puts the VM into the saved state for the moment of the snapshot, its memory into a file, and back into the state that it had.
func (r *requester) saved(ctx context.Context) error {
	h, v := r.service.host, r.vm
	if err := h.faults.writer(writerFreeze, vss.FailedAtFreeze); err != nil {
		return err
	}
	v.op.Lock()
	defer v.op.Unlock()
	before := v.config.State
	enter := func(state vmState) error {
		return v.edit(h.ctx, func(c *vmConfig) error {
			c.State = state
			return nil
		})
	}
	if err := enter(stateSaved); err != nil {
		return fmt.Errorf("save %s: %w", v.config.Name, errors.Join(vss.Unexpected, err))
	}
	r.taken = h.now().UTC()
	wait(ctx, h.config.jobTime())
	h.faults.reach(ctx, "vss.saved")
	err := r.copyFiles(v)
	if thaw := h.faults.writer(writerThaw, vss.FailedAtThaw); thaw != nil {
		return errors.Join(thaw, err)
	}
	return errors.Join(err, enter(before), ctx.Err())
}

// copyRunning copies the files of a VM that is not asked for anything: all of its disks at one moment. It need not run.
func (r *requester) copyRunning(ctx context.Context, v *vm) error {
	v.op.Lock()
	defer v.op.Unlock()
	r.taken = r.service.host.now().UTC()
	for _, d := range v.disks {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.chain == nil || d.chain[0].writer == nil {
			continue
		}
		if err := d.chain[0].writer.Sync(); err != nil {
			return fmt.Errorf("%s: %w", vssDo, errors.Join(vss.FlushWritesTimeout, err))
		}
	}
	return errors.Join(r.copyFiles(v), ctx.Err())
}

// copyFiles copies what belongs to a VM now. Nothing writes it meanwhile.
func (r *requester) copyFiles(v *vm) error { return r.copyPaths(r.service.host.filesOf(v)) }

// copyPaths fills the shadow copies with those files that lie on their volumes.
func (r *requester) copyPaths(paths []string) error {
	h := r.service.host
	for _, path := range paths {
		volume := h.files.Mapping().VolumeOf(path)
		device, wanted := r.set.devices[volume]
		if !wanted {
			continue
		}
		source, err := h.files.LocalPath(path)
		if err != nil {
			return err
		}
		target := filepath.Join(h.shadowFolder(), strconv.Itoa(device), filepath.FromSlash(strings.ReplaceAll(path[len(volume):], `\`, "/")))
		if err := copySparse(source, target); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w", vssDo, errors.Join(vss.InsufficientStorage, err))
		}
	}
	return nil
}

// copySparse copies a file and leaves out what is zero.
func copySparse(source, target string) error {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // read only
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	out, err := os.Create(target)
	if err != nil {
		return err
	}
	const unit = 64 << 10
	buffer, empty := make([]byte, unit), make([]byte, unit)
	var size int64
	for err == nil {
		var n int
		n, err = io.ReadFull(in, buffer)
		if n > 0 && string(buffer[:n]) != string(empty[:n]) {
			if _, failed := out.WriteAt(buffer[:n], size); failed != nil {
				err = failed
			}
		}
		size += int64(n)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = out.Truncate(size)
	}
	return errors.Join(err, out.Close())
}
