package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"sort"

	"github.com/kopia/kopia/repo/object"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// Image is a published image, open for reading.
type Image struct {
	repo     *Repository
	manifest Manifest
	zeros    map[object.ID]bool
}

func newImage(r *Repository, m Manifest) (*Image, error) {
	img := &Image{repo: r, manifest: m, zeros: map[object.ID]bool{}}
	for _, z := range m.Zeros {
		id, err := object.ParseID(z.Object)
		if err != nil {
			return nil, damaged(err, "open image %s", m.ID)
		}
		img.zeros[id] = true
	}
	return img, nil
}

// Manifest describes the image. It was checked against the image's digest.
func (i *Image) Manifest() Manifest { return i.manifest }

// File opens a configuration file. ErrFileNotFound when the image has none of that name, ErrDamaged from it or from reading.
func (i *Image) File(ctx context.Context, name string) (io.ReadCloser, error) {
	for _, f := range i.manifest.Files {
		if f.Name != name {
			continue
		}
		id, err := object.ParseID(f.Object)
		if err != nil {
			return nil, damaged(err, "open file %q", name)
		}
		in, err := i.repo.session.OpenObject(ctx, id)
		if err != nil {
			return nil, damaged(err, "open file %q", name)
		}
		return &fileReader{ReadCloser: in, name: name}, nil
	}
	return nil, fmt.Errorf("open file %q: %w", name, ErrFileNotFound)
}

type fileReader struct {
	io.ReadCloser
	name string
}

// Read reports damage as ErrDamaged.
func (f *fileReader) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if err == nil || errors.Is(err, io.EOF) {
		return n, err
	}
	return n, damaged(err, "read file %q", f.name)
}

// DiskReader reads one disk of an image anywhere. It is safe for concurrent use and is itself a Source. Every byte it returns has passed
// the check of kopia's authenticated encryption under the name of the chunk that the lists give.
type DiskReader struct {
	ctx    context.Context //nolint:containedctx // io.ReaderAt has no place for it
	img    *Image
	record DiskRecord
	root   *rootList
	lists  *recent[int64, []entry]
	data   *recent[object.ID, []byte]
}

const (
	recentLists  = 256 // some 4 KiB each
	recentLeaves = 16  // for readers of small pieces; whole leaves pass it by
)

// Disk opens a disk by its key. ctx ends every read of it. ErrDiskNotFound when the image has none of that key, ErrDamaged when its root
// cannot be read.
func (i *Image) Disk(ctx context.Context, key string) (*DiskReader, error) {
	record, ok := i.manifest.disk(key)
	if !ok {
		return nil, fmt.Errorf("open disk %q: %w", key, ErrDiskNotFound)
	}
	id, err := object.ParseID(record.Root)
	if err != nil {
		return nil, damaged(err, "open disk %q", record.Name)
	}
	root, err := openRootList(ctx, i.repo.session, id, record.Size)
	if err != nil {
		return nil, damaged(err, "open disk %q", record.Name)
	}
	return &DiskReader{
		ctx: ctx, img: i, record: record, root: root,
		lists: newRecent[int64, []entry](recentLists), data: newRecent[object.ID, []byte](recentLeaves),
	}, nil
}

// Record tells what the disk is and how it was read.
func (d *DiskReader) Record() DiskRecord { return d.record }

// Size is the size of the disk in bytes.
func (d *DiskReader) Size() int64 { return d.record.Size }

// Data streams the extents within window that may hold something else than zeros. It reads lists, no data.
func (d *DiskReader) Data(window extent.Extent) extent.Seq {
	return func(yield func(extent.Extent, error) bool) {
		window := window.Clip(extent.Extent{Length: d.record.Size})
		var next extent.Extent
		for e, err := range d.entries(window) {
			if err != nil {
				yield(extent.Extent{}, err)
				return
			}
			if d.img.zeros[e.Object] {
				continue
			}
			found := extent.Extent{Offset: e.Start, Length: e.Length}.Clip(window)
			if found.Offset == next.End() && next.Length > 0 {
				next.Length += found.Length
				continue
			}
			if next.Length > 0 && !yield(next, nil) {
				return
			}
			next = found
		}
		if next.Length > 0 {
			yield(next, nil)
		}
	}
}

// ReadAt reads len(p) bytes at offset, or none. At the end of the disk it returns io.EOF. ErrDamaged names the place of what cannot be trusted. Large
// reads are cheaper: what lies together in the repository is fetched at once.
func (d *DiskReader) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("read disk %q: negative offset", d.record.Name)
	}
	window := extent.Extent{Offset: offset, Length: int64(len(p))}.Clip(extent.Extent{Length: d.record.Size})
	var whole []want
	var done int64
	for e, err := range d.entries(window) {
		if err != nil {
			return 0, err
		}
		part := extent.Extent{Offset: e.Start, Length: e.Length}.Clip(window)
		into := p[part.Offset-offset : part.End()-offset]
		done += part.Length
		if part.Length == e.Length && !d.img.zeros[e.Object] {
			whole = append(whole, want{entry: e, into: into})
			continue
		}
		if err := d.readPart(e, part, into); err != nil {
			return 0, err
		}
	}
	if err := d.fetch(whole); err != nil {
		return 0, err
	}
	if done < int64(len(p)) {
		return int(done), io.EOF
	}
	return int(done), nil
}

// readPart fills a buffer from a part of one leaf, or from zeros.
func (d *DiskReader) readPart(e entry, part extent.Extent, into []byte) error {
	if d.img.zeros[e.Object] {
		clear(into)
		return nil
	}
	leaf, ok := d.data.get(e.Object)
	if !ok {
		leaf = make([]byte, e.Length)
		if err := d.fetch([]want{{entry: e, into: leaf}}); err != nil {
			return err
		}
		d.data.put(e.Object, leaf)
	}
	copy(into, leaf[part.Offset-e.Start:])
	return nil
}

// entries streams the leaves that meet a window, with offsets within the disk. A segment of zeros is one entry.
func (d *DiskReader) entries(window extent.Extent) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		if window.Length == 0 {
			return
		}
		for i := window.Offset / SegmentSize; i*SegmentSize < window.End(); i++ {
			segment, err := d.segment(i)
			if err == nil && d.img.zeros[segment.Object] {
				if !yield(segment, nil) {
					return
				}
				continue
			}
			leaves, err := d.leaves(i)
			if err != nil {
				yield(entry{}, err)
				return
			}
			for j := search(leaves, window.Offset-segment.Start); j < len(leaves); j++ {
				e := leaves[j]
				e.Start += segment.Start
				if e.Start >= window.End() {
					break
				}
				if !yield(e, nil) {
					return
				}
			}
		}
	}
}

// search finds the first entry that ends behind an offset.
func search(entries []entry, offset int64) int {
	return sort.Search(len(entries), func(i int) bool { return entries[i].Start+entries[i].Length > offset })
}

// segment is one segment of the disk.
func (d *DiskReader) segment(index int64) (entry, error) {
	e, err := d.root.segment(d.ctx, index)
	return e, damaged(err, "disk %q at %d", d.record.Name, e.Start)
}

// leaves is the list of one segment, with offsets within the segment.
func (d *DiskReader) leaves(segment int64) ([]entry, error) {
	if list, ok := d.lists.get(segment); ok {
		return list, nil
	}
	e, err := d.segment(segment)
	if err != nil {
		return nil, err
	}
	list, err := readList(d.ctx, d.img.repo.session, e.Object, e.Length)
	if err != nil {
		return nil, damaged(err, "disk %q at %d", d.record.Name, e.Start)
	}
	d.lists.put(segment, list)
	return list, nil
}

// allSpans names every leaf of every segment that is not known to be zeros.
func (d *DiskReader) allSpans() iter.Seq[span] {
	return func(yield func(span) bool) {
		for i := range count(d.record.Size, SegmentSize) {
			e, err := d.segment(i)
			if err == nil && d.img.zeros[e.Object] {
				continue
			}
			if !yield(span{segment: i, leaves: ^uint64(0)}) { // what cannot be read is the caller's to find out
				return
			}
		}
	}
}
