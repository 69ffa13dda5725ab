// Package extent has the arithmetic of byte ranges on a disk: what is allocated, what changed, what is left to copy.
package extent

import (
	"fmt"
	"iter"
	"slices"
)

// Extent is the half-open range of bytes [Offset, Offset+Length). Both are at least zero.
type Extent struct {
	Offset int64 `json:"offset"`
	Length int64 `json:"length"`
}

// End is the first byte behind the extent.
func (e Extent) End() int64 { return e.Offset + e.Length }

// String prints the extent as an interval, as error messages quote it.
func (e Extent) String() string { return fmt.Sprintf("[%d,%d)", e.Offset, e.End()) }

// Clip returns the part of e that lies within window. Its length is zero when they do not meet.
func (e Extent) Clip(window Extent) Extent {
	start, end := max(e.Offset, window.Offset), min(e.End(), window.End())
	return Extent{Offset: start, Length: max(0, end-start)}
}

// Align widens e outwards to multiples of size and cuts it at limit.
func (e Extent) Align(size, limit int64) Extent {
	start := e.Offset / size * size
	end := min((e.End()+size-1)/size*size, limit)
	return Extent{Offset: start, Length: max(0, end-start)}
}

// Seq is a stream of extents in ascending order that neither overlap nor touch. A stream ends after the first error. Streams keep
// memory bounded: a fragmented disk of many TiB has more extents than fit in a list.
type Seq = iter.Seq2[Extent, error]

// Of makes a stream of extents that are already in order.
func Of(extents ...Extent) Seq {
	return func(yield func(Extent, error) bool) {
		for _, e := range extents {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// Collect reads a stream to its end.
func Collect(s Seq) (List, error) {
	var out List
	for e, err := range s {
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	return out, nil
}

// Covered adds up the bytes of a stream, each extent widened to whole units and cut at limit. A unit that several extents meet counts once.
func Covered(s Seq, unit, limit int64) (int64, error) {
	var total, behind int64 // behind is the end of what was counted
	for e, err := range s {
		if err != nil {
			return 0, err
		}
		wide := e.Align(unit, limit)
		total += max(0, wide.End()-max(wide.Offset, behind))
		behind = max(behind, wide.End())
	}
	return total, nil
}

// List is a stream in memory: in ascending order, neither overlapping nor touching.
type List []Extent

// Normalize sorts extents, drops empty ones and joins those that overlap or touch. The input is left as it is.
func Normalize(in []Extent) List {
	sorted := slices.Clone(in)
	slices.SortFunc(sorted, func(a, b Extent) int {
		switch {
		case a.Offset < b.Offset:
			return -1
		case a.Offset > b.Offset:
			return 1
		}
		return 0
	})
	var out List
	for _, e := range sorted {
		out = out.Append(e)
	}
	return out
}

// Append adds an extent that starts no earlier than the last one of the list, joining the two where they overlap or touch.
func (l List) Append(e Extent) List {
	if e.Length <= 0 {
		return l
	}
	if n := len(l); n > 0 && e.Offset <= l[n-1].End() {
		l[n-1].Length = max(l[n-1].End(), e.End()) - l[n-1].Offset
		return l
	}
	return append(l, e)
}

// Seq streams the list.
func (l List) Seq() Seq { return Of(l...) }

// Bytes is the sum of the lengths.
func (l List) Bytes() int64 {
	var n int64
	for _, e := range l {
		n += e.Length
	}
	return n
}

// Intersect returns what is in both lists.
func (l List) Intersect(m List) List {
	var out List
	for i, j := 0, 0; i < len(l) && j < len(m); {
		out = out.Append(l[i].Clip(m[j]))
		if l[i].End() < m[j].End() {
			i++
		} else {
			j++
		}
	}
	return out
}

// Subtract returns what is in l and not in m.
func (l List) Subtract(m List) List {
	var out List
	j := 0
	for _, e := range l {
		at := e.Offset
		for j < len(m) && m[j].End() <= at {
			j++
		}
		for k := j; k < len(m) && m[k].Offset < e.End(); k++ {
			out = out.Append(Extent{Offset: at, Length: m[k].Offset - at})
			at = m[k].End()
		}
		out = out.Append(Extent{Offset: at, Length: e.End() - at})
	}
	return out
}
