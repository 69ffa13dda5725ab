package emulator

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/nbd"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/tracking"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// disk is a disk of a VM while its files are open. Locks are taken in the order vm.op, disk.mu, Host.mu.
type disk struct {
	vm   *vm
	path string // diskRecord.Path

	// mu is held for reading by the guest, and for writing by who changes the chain: the guest then waits, so a checkpoint is one moment.
	mu     sync.RWMutex
	users  int // who needs the files open: the guest, operations, merges
	chain  chain
	bitmap *tracking.Bitmap // nil without change tracking
	merge  *mergeRun        // the merge of the leaf into its parent
}

var _ nbd.Disk = (*disk)(nil)

var errClosed = errors.New("the VM is not running")

// Size implements nbd.Disk.
func (d *disk) Size() int64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.chain == nil {
		return 0
	}
	return d.chain[0].vhdx.VirtualSize()
}

// ReadAt implements nbd.Disk.
func (d *disk) ReadAt(p []byte, offset int64) (int, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.chain == nil {
		return 0, errClosed
	}
	return d.chain[0].writer.ReadAt(p, offset)
}

// WriteAt implements nbd.Disk.
func (d *disk) WriteAt(p []byte, offset int64) (int, error) {
	err := d.change(extent.Extent{Offset: offset, Length: int64(len(p))}, func(w *vhdx.Writer) error {
		_, err := w.WriteAt(p, offset)
		return err
	})
	if err != nil {
		return 0, err
	}
	return len(p), nil
}

// Zero implements nbd.Disk.
func (d *disk) Zero(offset, length int64) error {
	return d.change(extent.Extent{Offset: offset, Length: length}, func(w *vhdx.Writer) error { return w.Zero(offset, length) })
}

// Trim implements nbd.Disk.
func (d *disk) Trim(offset, length int64) error {
	return d.change(extent.Extent{Offset: offset, Length: length}, func(w *vhdx.Writer) error { return w.Trim(offset, length) })
}

// change runs a write of the guest. The change tracking knows of it before the disk does, so a kill in between costs a needless read, never a
// missing change.
func (d *disk) change(window extent.Extent, apply func(*vhdx.Writer) error) error {
	unlock := d.lockForWrite()
	defer unlock()
	if d.chain == nil {
		return errClosed
	}
	if d.bitmap != nil {
		if err := d.bitmap.Mark(window.Offset, window.Length); err != nil {
			return guestError(err)
		}
	}
	if err := apply(d.chain[0].writer); err != nil {
		return guestError(err)
	}
	if d.merge != nil {
		d.merge.follow(window)
	}
	return nil
}

// lockForWrite lets guests write side by side, but one after the other while the leaf is being merged: the merge must see their writes in one
// order.
func (d *disk) lockForWrite() (unlock func()) {
	d.mu.RLock()
	if d.merge == nil {
		return d.mu.RUnlock
	}
	d.mu.RUnlock()
	d.mu.Lock()
	return d.mu.Unlock
}

// Flush implements nbd.Disk. Tracking goes first: what is durable on the disk must be durable there.
func (d *disk) Flush() error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.chain == nil {
		return errClosed
	}
	if d.bitmap != nil {
		if err := d.bitmap.Sync(); err != nil {
			return guestError(err)
		}
	}
	return guestError(d.chain[0].writer.Sync())
}

func guestError(err error) error {
	if errors.Is(err, hostfs.ErrFull) {
		return fmt.Errorf("%w: %w", nbd.ErrNoSpace, err)
	}
	return err
}

// acquire opens the files if nobody has them open. The caller holds vm.op and releases later.
func (d *disk) acquire(ctx context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users == 0 {
		if err := d.open(ctx); err != nil {
			return err
		}
	}
	d.users++
	return nil
}

// release closes the files when the caller was the last one who needed them. The caller holds vm.op.
func (d *disk) release() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.users--; d.users > 0 {
		return nil
	}
	return d.close()
}

func (d *disk) open(ctx context.Context) error {
	h := d.vm.host
	record := d.vm.record.disk(d.path)
	c, err := openChain(ctx, h.files, record.Leaf)
	if err != nil {
		return err
	}
	d.inspect(record, c[0])
	if err := d.startSession(ctx, record, c); err != nil {
		return errors.Join(err, c.close())
	}
	if d.bitmap, err = d.openBitmap(record); err != nil {
		return errors.Join(err, c.close())
	}
	d.chain = c
	return nil
}

// inspect compares the leaf with what was recorded when we last had it open. After a write by someone else nobody knows what changed: tracking
// starts anew, and the ids of before resolve no more.
func (d *disk) inspect(record *diskRecord, leaf *member) {
	info := leaf.vhdx.Info()
	stat, err := leaf.stat()
	known := err == nil && record.Seen.matches(info, stat) && record.Size == info.VirtualSize && record.DiskID == info.VirtualDiskID
	d.vm.host.mu.Lock()
	defer d.vm.host.mu.Unlock()
	if !known && record.Tracking != nil {
		d.vm.host.log.Warn("change tracking is lost: the disk was written by someone else", "vm", d.vm.folder, "disk", record.Leaf)
		record.Tracking = nil
	}
	record.Size, record.DiskID = info.VirtualSize, info.VirtualDiskID
	record.Seen = seal{DataWriteID: info.DataWriteID, FileWriteID: info.FileWriteID}
}

// startSession opens the leaf for writing. Every new GUID in the file is recorded while the file still has the other one, see seal.
func (d *disk) startSession(ctx context.Context, record *diskRecord, c chain) error {
	if err := d.vm.commit(func(*vmRecord) {}); err != nil {
		return err
	}
	if err := c[0].makeWritable(ctx, d.vm.host.files, c[1:]); err != nil {
		return err
	}
	if err := d.vm.commit(func(*vmRecord) { record.Seen.FileWriteID = c[0].vhdx.Info().FileWriteID }); err != nil {
		return err
	}
	return c[0].mark()
}

// mark gives the file its DataWriteGuid of this session now, so that it stays the same while the guest writes.
func (m *member) mark() error {
	_, err := m.writer.WriteAt(nil, 0)
	return err
}

func (d *disk) openBitmap(record *diskRecord) (*tracking.Bitmap, error) {
	if record.Tracking == nil {
		return nil, nil
	}
	b, err := tracking.Open(d.vm.bitmapPath(record.Tracking, record.Tracking.Epoch), record.Size)
	if errors.Is(err, tracking.ErrLost) {
		d.vm.host.log.Warn("change tracking is lost", "vm", d.vm.folder, "disk", record.Leaf, "reason", err)
		return nil, d.vm.commit(func(*vmRecord) { record.Tracking = nil })
	}
	return b, err
}

// close flushes and closes the files, and records what they look like.
func (d *disk) close() error {
	record, leaf := d.vm.record.disk(d.path), d.chain[0]
	errs := []error{leaf.freeze()}
	if d.bitmap != nil {
		errs = append(errs, d.bitmap.Sync(), d.bitmap.Close())
	}
	info := leaf.vhdx.Info()
	stat, err := leaf.stat()
	errs = append(errs, err, d.chain.close())
	d.chain, d.bitmap = nil, nil
	if err := errors.Join(errs...); err != nil || record == nil {
		return err
	}
	return d.vm.commit(func(*vmRecord) {
		record.Seen = seal{DataWriteID: info.DataWriteID, FileWriteID: info.FileWriteID, Bytes: stat.bytes, Modified: stat.modified}
	})
}
