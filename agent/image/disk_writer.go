package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/kopia/kopia/repo/object"
	"golang.org/x/sync/errgroup"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// DiskSpec says what a disk is and how it is read.
type DiskSpec struct {
	Key                string // identifies the disk within the VM, from image to image
	Name               string // for people; becomes the file's name
	VirtualDiskID      string
	SourcePath         string
	LogicalSectorSize  int
	PhysicalSectorSize int
	Reason             string // why the disk is read in this way
	ReadPath           string // how its content is reached, and why so
	// Increment is nil for a full read.
	Increment *Increment
	// Repair is set when a full read follows damage. Without it, a chunk that the repository has already is not stored again, be it damaged
	// or not. With it, such a chunk is read, and stored again when that fails, which heals older images as well.
	Repair bool
}

// Increment is what an incremental read stands on. It is sound only when Changed came from the change tracking since exactly that image.
type Increment struct {
	BaseImageID string
	// Changed covers every byte that may differ from the base, whatever was written there, zeros and trims included.
	Changed extent.Seq
}

// diskWriter stores one disk.
type diskWriter struct {
	*Writer
	src      Source
	size     int64
	repair   bool
	progress *Progress
	record   DiskRecord

	// root is the root list in the making: the base's, or that of an empty disk, until a change replaces a segment.
	root  *rootList
	spans []span

	// empty are the objects of zeros that the disk can need, by their length.
	empty map[int64]object.ID
	// leaves is how many the tree has.
	leaves                           atomic.Int64
	newLeaves, newBytes              atomic.Int64
	zeroLeaves, zeroBytes, readBytes atomic.Int64
}

// AddDisk stores one disk and returns its record. A full disk costs its data, an incremental one what changed. ErrBaseUnusable says that
// the base is missing, damaged, or of another size or identity; AddDisk may then be called again without Increment. progress may be nil.
func (w *Writer) AddDisk(ctx context.Context, spec DiskSpec, src Source, progress *Progress) (DiskRecord, error) {
	if spec.Key == "" || src.Size() <= 0 {
		return DiskRecord{}, fmt.Errorf("add disk %q: %w", spec.Name, errors.New("a disk needs a key and a size"))
	}
	if progress == nil {
		progress = &Progress{}
	}
	d := &diskWriter{Writer: w, src: src, size: src.Size(), repair: spec.Repair, progress: progress, record: spec.record(src.Size())}
	record, err := d.write(ctx, spec)
	if err != nil {
		return DiskRecord{}, fmt.Errorf("add disk %q: %w", spec.Name, err)
	}
	return record, nil
}

func (s DiskSpec) record(size int64) DiskRecord {
	return DiskRecord{
		Key: s.Key, Name: s.Name, VirtualDiskID: s.VirtualDiskID, SourcePath: s.SourcePath, Reason: s.Reason, ReadPath: s.ReadPath,
		Size: size, LogicalSectorSize: s.LogicalSectorSize, PhysicalSectorSize: s.PhysicalSectorSize,
		LeafSize: LeafSize, SegmentSize: SegmentSize,
		Type: Full,
	}
}

func (d *diskWriter) write(ctx context.Context, spec DiskSpec) (DiskRecord, error) {
	changed := d.src.Data(extent.Extent{Length: d.size})
	if err := d.storeZeros(ctx, spec.Increment != nil); err != nil {
		return DiskRecord{}, err
	}
	start := d.startEmpty
	if spec.Increment != nil {
		start = func(ctx context.Context) error { return d.startFromBase(ctx, spec) }
		changed = spec.Increment.Changed
	}
	if err := start(ctx); err != nil {
		return DiskRecord{}, err
	}
	if err := d.writeSpans(ctx, d.measured(changed)); err != nil {
		return DiskRecord{}, err
	}
	root, err := d.root.store(ctx, d.kopia, func(store func() (object.ID, error)) (object.ID, error) { return d.sound(ctx, true, store) })
	if err != nil {
		return DiskRecord{}, fmt.Errorf("store list of segments: %w", err)
	}
	d.complete(root)
	d.progress.Processed.Store(d.size)
	if err := d.keep(); err != nil {
		return DiskRecord{}, err
	}
	return d.record, nil
}

// storeZeros stores the leaves of zeros that the disk can need, once per repository.
func (d *diskWriter) storeZeros(ctx context.Context, grains bool) error {
	units := []int64{LeafSize}
	if grains {
		units = append(units, GrainSize)
	}
	d.empty = map[int64]object.ID{}
	for _, unit := range units {
		for _, length := range []int64{min(unit, d.size), d.size % unit} {
			if length == 0 {
				continue
			}
			var err error
			if d.empty[length], err = d.zeroObject(ctx, length); err != nil {
				return fmt.Errorf("store empty leaf: %w", err)
			}
		}
	}
	return nil
}

// startEmpty makes the tree of a disk that is all zeros. It stores at most two lists, once per repository.
func (d *diskWriter) startEmpty(ctx context.Context) error {
	segments := count(d.size, SegmentSize)
	first, err := d.zeroSegment(ctx, 0)
	if err != nil {
		return fmt.Errorf("store empty segment: %w", err)
	}
	last, err := d.zeroSegment(ctx, segments-1)
	if err != nil {
		return fmt.Errorf("store empty segment: %w", err)
	}
	d.leaves.Store(count(d.size, LeafSize))
	d.root, err = newRootList(d.size, func(yield func(object.ID) bool) {
		for range segments - 1 {
			if !yield(first) {
				return
			}
		}
		yield(last)
	})
	return err
}

// borrow lends a buffer for a leaf, when there is one. A disk that waits for its host leaves them to the others.
func (w *Writer) borrow(ctx context.Context, use func([]byte) error) error {
	select {
	case buffer := <-w.buffers:
		if buffer == nil {
			buffer = make([]byte, LeafSize)
		}
		defer func() { w.buffers <- buffer }()
		return use(buffer)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (d *diskWriter) zeroSegment(ctx context.Context, index int64) (object.ID, error) {
	_, length := segmentAt(index, d.size)
	id, err := writeList(ctx, d.kopia, slices.Values(d.emptyLeaves(index)))
	if err == nil {
		d.remember(id, length)
	}
	return id, err
}

func (d *diskWriter) emptyLeaves(index int64) []entry {
	_, length := segmentAt(index, d.size)
	leaves := make([]entry, 0, leavesPerSegment)
	for at := int64(0); at < length; at += LeafSize {
		n := min(LeafSize, length-at)
		leaves = append(leaves, entry{Start: at, Length: n, Object: d.empty[n]})
	}
	return leaves
}

// measured counts the bytes that a stream of extents names.
func (d *diskWriter) measured(extents extent.Seq) extent.Seq {
	return func(yield func(extent.Extent, error) bool) {
		for e, err := range extents {
			d.record.ChangedBytes += e.Clip(extent.Extent{Length: d.size}).Length
			if !yield(e, err) {
				return
			}
		}
	}
}

// writeSpans stores every segment that has something to store, several at a time.
func (d *diskWriter) writeSpans(ctx context.Context, changed extent.Seq) error {
	group, ctx := errgroup.WithContext(ctx)
	work := make(chan change)
	group.Go(func() error {
		defer close(work)
		var linked int64
		for c, err := range changes(d.size, changed) {
			if err != nil {
				return fmt.Errorf("list what to read: %w", err)
			}
			d.progress.Processed.Add((c.segment - linked) * SegmentSize)
			linked = c.segment + 1
			d.spans = append(d.spans, c.span())
			select {
			case work <- c:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range d.repo.opts.Parallelism {
		group.Go(func() error {
			for c := range work {
				if err := d.borrow(ctx, func(buffer []byte) error { return d.writeSegment(ctx, c, buffer) }); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// complete fills in the facts that are known when everything is stored.
func (d *diskWriter) complete(root object.ID) {
	d.record.Root = root.String()
	d.record.ReadBytes = d.readBytes.Load()
	d.record.New = Share{Leaves: d.newLeaves.Load(), Bytes: d.newBytes.Load()}
	rest := Share{
		Leaves: d.leaves.Load() - d.record.New.Leaves - d.zeroLeaves.Load(),
		Bytes:  d.size - d.record.New.Bytes - d.zeroBytes.Load(),
	}
	d.record.Zero = Share{Leaves: d.zeroLeaves.Load(), Bytes: d.zeroBytes.Load()}
	if d.record.Type == Full { // nothing is linked: what was not looked at is known to be empty
		d.record.Zero.Leaves += rest.Leaves
		d.record.Zero.Bytes += rest.Bytes
		return
	}
	d.record.Linked = rest
}

// keep gives the disk a file name and adds it to the image.
func (d *diskWriter) keep() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, other := range d.disks {
		if other.record.Key == d.record.Key {
			return errors.New("the image has a disk of that key already")
		}
	}
	name := plainName(d.record.Name)
	file := "disks/" + name + ".raw"
	for n := 2; d.names[file]; n++ {
		file = fmt.Sprintf("disks/%s (%d).raw", name, n)
	}
	d.names[file] = true
	d.record.File = file
	d.disks = append(d.disks, writtenDisk{record: d.record, spans: d.spans})
	return nil
}
