package image

import (
	"context"
	"fmt"
	"slices"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// segmentWriter puts the list of one segment together. Offsets are within the segment.
type segmentWriter struct {
	*diskWriter
	start  int64 // of the segment within the disk
	buffer []byte
	after  []entry
	stored int
}

// writeSegment stores what changed in a segment, and a list that takes the rest over.
func (d *diskWriter) writeSegment(ctx context.Context, c change, buffer []byte) error {
	start, length := segmentAt(c.segment, d.size)
	before, err := d.leavesBefore(ctx, c.segment)
	if err != nil {
		return err
	}
	w := &segmentWriter{diskWriter: d, start: start, buffer: buffer}
	for i := range count(length, LeafSize) {
		window := extent.Extent{Offset: i * LeafSize, Length: min(LeafSize, length-i*LeafSize)}
		taken, err := within(before, window)
		if err != nil {
			return d.baseError(err)
		}
		if err := w.add(ctx, window, taken, c.grains[i]); err != nil {
			return err
		}
	}
	d.leaves.Add(int64(len(w.after) - len(before)))
	list, err := d.storeList(ctx, slices.Values(w.after))
	if err != nil {
		return fmt.Errorf("store segment at %d: %w", start, err)
	}
	if err := d.root.set(ctx, c.segment, list); err != nil {
		return d.baseError(err)
	}
	d.reserving.needs(list)
	if d.flushes.due(w.stored + 1) {
		if err := d.reserve(ctx); err != nil {
			return fmt.Errorf("reserve what the image needs: %w", err)
		}
		return d.kopia.Flush(ctx)
	}
	return nil
}

// leavesBefore is the list that a segment had in the base, or that of an empty disk.
func (d *diskWriter) leavesBefore(ctx context.Context, segment int64) ([]entry, error) {
	if d.record.Type == Full {
		return d.emptyLeaves(segment), nil
	}
	at, err := d.root.segment(ctx, segment)
	if err != nil {
		return nil, d.baseError(err)
	}
	list, err := readList(ctx, d.kopia, at.Object, at.Length)
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

// add deals with one leaf, or what it was split into. A full read and one that changed throughout is stored whole. Otherwise what a changed entry
// covers is stored in grains, and the others are linked.
func (w *segmentWriter) add(ctx context.Context, window extent.Extent, before []entry, changed uint16) error {
	switch {
	case changed == 0:
		w.link(before...)
		return nil
	case w.record.Type == Full || changed == grainsOf(window, window):
		return w.write(ctx, window, window.Length)
	}
	for _, e := range before {
		where := extent.Extent{Offset: e.Start, Length: e.Length}
		var err error
		switch {
		case changed&grainsOf(window, where) == 0:
			w.link(e)
		case w.isEmpty(e):
			err = w.fill(ctx, window, where, changed)
		default:
			err = w.write(ctx, where, GrainSize)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *segmentWriter) isEmpty(e entry) bool {
	empty, known := w.empty[e.Length]
	return known && empty == e.Object
}

// fill splits an entry of zeros: only the grains that changed have to be read.
func (w *segmentWriter) fill(ctx context.Context, window, where extent.Extent, changed uint16) error {
	for at := where.Offset; at < where.End(); at += GrainSize {
		grain := extent.Extent{Offset: at, Length: min(GrainSize, where.End()-at)}
		if changed&grainsOf(window, grain) == 0 {
			w.link(entry{Start: at, Length: grain.Length, Object: w.empty[grain.Length]})
			continue
		}
		if err := w.write(ctx, grain, GrainSize); err != nil {
			return err
		}
	}
	return nil
}

// link takes entries over.
func (w *segmentWriter) link(entries ...entry) {
	w.after = append(w.after, entries...)
	for _, e := range entries {
		w.progress.Processed.Add(e.Length)
	}
}

// write reads an extent from the source and stores it in pieces.
func (w *segmentWriter) write(ctx context.Context, where extent.Extent, piece int64) error {
	from := extent.Extent{Offset: w.start + where.Offset, Length: where.Length}
	data := w.buffer[:where.Length]
	n, err := w.readFrom(from, data)
	if err != nil {
		return fmt.Errorf("read %s from the source: %w", from, err)
	}
	for at := int64(0); at < where.Length; at += piece {
		length := min(piece, where.Length-at)
		id, err := w.writeLeaf(ctx, data[at:at+length])
		if err != nil {
			return fmt.Errorf("store %s: %w", from, err)
		}
		w.after = append(w.after, entry{Start: where.Offset + at, Length: length, Object: id})
		w.stored++
	}
	w.readBytes.Add(n)
	w.progress.Read.Add(n)
	w.progress.Processed.Add(where.Length)
	return nil
}
