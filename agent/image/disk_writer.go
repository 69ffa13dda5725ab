package image

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/bits"
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

	// segments is the root list in the making: the base's, or that of an empty disk, until a span replaces its entry.
	segments []object.ID
	spans    []span

	zeroLeaf, zeroTail               object.ID
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
	storedBefore := d.stored.Load()
	changed := d.src.Data(extent.Extent{Length: d.size})
	if err := d.startEmpty(ctx); err != nil {
		return DiskRecord{}, err
	}
	if spec.Increment != nil {
		if err := d.startFromBase(ctx, spec); err != nil {
			return DiskRecord{}, err
		}
		changed = spec.Increment.Changed
	}
	if err := d.writeSpans(ctx, d.measured(changed)); err != nil {
		return DiskRecord{}, err
	}
	root, err := d.storeList(ctx, d.rootEntries())
	if err != nil {
		return DiskRecord{}, fmt.Errorf("store list of segments: %w", err)
	}
	d.complete(root)
	d.progress.Processed.Store(d.size)
	d.progress.Stored.Store(d.stored.Load() - storedBefore)
	if err := d.keep(); err != nil {
		return DiskRecord{}, err
	}
	return d.record, nil
}

// startEmpty makes the tree of a disk that is all zeros. It stores at most four small objects, once per repository.
func (d *diskWriter) startEmpty(ctx context.Context) error {
	var err error
	if d.zeroLeaf, err = d.zeroObject(ctx, min(LeafSize, d.size)); err != nil {
		return fmt.Errorf("store empty leaf: %w", err)
	}
	d.zeroTail = d.zeroLeaf
	if tail := d.size % LeafSize; tail != 0 {
		if d.zeroTail, err = d.zeroObject(ctx, tail); err != nil {
			return fmt.Errorf("store empty leaf: %w", err)
		}
	}
	d.segments = make([]object.ID, count(d.size, SegmentSize))
	var full object.ID
	for i := range d.segments {
		_, length := segmentAt(int64(i), d.size)
		if i == 0 || length != SegmentSize {
			if full, err = d.zeroSegment(ctx, int64(i), length); err != nil {
				return fmt.Errorf("store empty segment: %w", err)
			}
		}
		d.segments[i] = full
	}
	return nil
}

func (d *diskWriter) zeroSegment(ctx context.Context, index, length int64) (object.ID, error) {
	id, err := writeList(ctx, d.kopia, slices.Values(d.emptyLeaves(index)))
	if err == nil {
		d.remember(id, length)
	}
	return id, err
}

func (d *diskWriter) emptyLeaves(index int64) []entry {
	start, length := segmentAt(index, d.size)
	leaves := make([]entry, 0, leavesPerSegment)
	for at := int64(0); at < length; at += LeafSize {
		n := min(LeafSize, length-at)
		leaves = append(leaves, entry{Start: at, Length: n, Object: d.zeroFor(start+at, n)})
	}
	return leaves
}

func (d *diskWriter) zeroFor(offset, length int64) object.ID {
	if offset+length == d.size {
		return d.zeroTail
	}
	return d.zeroLeaf
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
	work := make(chan span)
	group.Go(func() error {
		defer close(work)
		var linked int64
		for s, err := range spans(d.size, changed) {
			if err != nil {
				return fmt.Errorf("list what to read: %w", err)
			}
			d.progress.Processed.Add((s.segment - linked) * SegmentSize)
			linked = s.segment + 1
			d.spans = append(d.spans, s)
			select {
			case work <- s:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range d.repo.opts.Parallelism {
		group.Go(func() error {
			buffer := make([]byte, LeafSize)
			for s := range work {
				if err := d.writeSegment(ctx, s, buffer); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return group.Wait()
}

// writeSegment stores the leaves of a span and a list that takes the others over.
func (d *diskWriter) writeSegment(ctx context.Context, s span, buffer []byte) error {
	start, length := segmentAt(s.segment, d.size)
	before, err := d.leavesBefore(ctx, s)
	if err != nil {
		return err
	}
	var after []entry
	for i := int64(0); i*LeafSize < length; i++ {
		window := extent.Extent{Offset: i * LeafSize, Length: min(LeafSize, length-i*LeafSize)}
		if s.leaves&(1<<i) == 0 {
			taken, err := within(before, window)
			if err != nil {
				return d.baseError(err)
			}
			after = append(after, taken...)
			d.progress.Processed.Add(window.Length)
			continue
		}
		id, err := d.writeLeaf(ctx, extent.Extent{Offset: start + window.Offset, Length: window.Length}, buffer)
		if err != nil {
			return err
		}
		after = append(after, entry{Start: window.Offset, Length: window.Length, Object: id})
	}
	d.segments[s.segment], err = d.storeList(ctx, slices.Values(after))
	if err != nil {
		return fmt.Errorf("store segment at %d: %w", start, err)
	}
	if d.flushes.due(bits.OnesCount64(s.leaves) + 1) {
		return d.kopia.Flush(ctx)
	}
	return nil
}

// leavesBefore is the list that a segment had in the base. It is not fetched when nothing of it will be taken over, or when it is known.
func (d *diskWriter) leavesBefore(ctx context.Context, s span) ([]entry, error) {
	_, length := segmentAt(s.segment, d.size)
	if d.record.Type == Full {
		return d.emptyLeaves(s.segment), nil
	}
	if int64(bits.OnesCount64(s.leaves)) == count(length, LeafSize) {
		return nil, nil
	}
	list, err := readList(ctx, d.kopia, d.segments[s.segment], length)
	return list, d.baseError(err)
}

// within gives the entries that fill a window exactly. They may be smaller than a leaf.
func within(list []entry, window extent.Extent) ([]entry, error) {
	from := slices.IndexFunc(list, func(e entry) bool { return e.Start == window.Offset })
	for to := from; from >= 0 && to < len(list); to++ {
		if end := list[to].Start + list[to].Length; end == window.End() {
			return list[from : to+1], nil
		} else if end > window.End() {
			break
		}
	}
	return nil, fmt.Errorf("the list has no leaf boundary at %s", window)
}

func (d *diskWriter) rootEntries() iter.Seq[entry] {
	return func(yield func(entry) bool) {
		for i, id := range d.segments {
			start, length := segmentAt(int64(i), d.size)
			if !yield(entry{Start: start, Length: length, Object: id}) {
				return
			}
		}
	}
}

// complete fills in the facts that are known when everything is stored.
func (d *diskWriter) complete(root object.ID) {
	d.record.Root = root.String()
	d.record.ReadBytes = d.readBytes.Load()
	d.record.New = Share{Leaves: d.newLeaves.Load(), Bytes: d.newBytes.Load()}
	rest := Share{
		Leaves: count(d.size, LeafSize) - d.record.New.Leaves - d.zeroLeaves.Load(),
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
