package vhdx

import (
	"fmt"
	"io"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// Disk is what the guest sees of a chain of files. It is safe for concurrent use.
type Disk struct {
	members []*File // topmost first
}

// NewDisk joins the members of a chain, topmost first; the last one is the file without a parent. It checks the tables of all members (File.Check)
// and returns an error that wraps ErrParentMismatch when they do not belong together. Block sizes and virtual sizes may differ.
func NewDisk(members ...*File) (*Disk, error) {
	if len(members) == 0 {
		return nil, mismatchf("no files were given")
	}
	for i, m := range members {
		if err := m.Check(); err != nil {
			return nil, fmt.Errorf("member %d of the chain: %w", i, err)
		}
		last := i == len(members)-1
		switch {
		case last && m.Kind() == Differencing:
			return nil, mismatchf("member %d (%v) needs a parent with DataWriteGuid %s, which was not given", i, m, m.ParentLinkage())
		case last:
		case m.Kind() != Differencing:
			return nil, mismatchf("member %d (%v) has no parent, but files below it were given", i, m)
		case !m.IsChildOf(members[i+1]):
			return nil, mismatchf("member %d (%v) was made for a parent with DataWriteGuid %s, but the one below it has %s; "+
				"the parent was replaced or written after the child was made", i, m, m.ParentLinkage(), members[i+1].DataWriteID())
		case m.LogicalSectorSize() != members[i+1].LogicalSectorSize():
			return nil, mismatchf("member %d has logical sectors of %d bytes, its parent of %d", i, m.LogicalSectorSize(), members[i+1].LogicalSectorSize())
		}
	}
	return &Disk{members: append([]*File(nil), members...)}, nil
}

// Size is the size in bytes of the disk that the guest sees: the virtual size of the topmost member.
func (d *Disk) Size() int64 { return d.members[0].VirtualSize() }

// Members returns the files of the chain, topmost first.
func (d *Disk) Members() []*File { return append([]*File(nil), d.members...) }

// walk emits, for member level and those below it, where the bytes of window come from: zeros or data, never absent.
func (d *Disk) walk(level int, window extent.Extent, emit func(*File, segment) error) error {
	m := d.members[level]
	inside := window.Clip(m.meta.whole())
	err := m.walk(inside, func(s segment) error {
		if s.kind == absent {
			return d.walk(level+1, s.Extent, emit)
		}
		return emit(m, s)
	})
	if err != nil {
		return err
	}
	if inside.Length < window.Length { // the child was made larger after its parent
		behind := extent.Extent{Offset: max(window.Offset, m.VirtualSize()), Length: window.Length - inside.Length}
		return emit(m, segment{Extent: behind, kind: zeros})
	}
	return nil
}

// ReadAt reads the guest's bytes. Neighbouring sectors of one member are read at once.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("%w: offset %d", ErrOutOfRange, off)
	}
	window := extent.Extent{Offset: off, Length: int64(len(p))}.Clip(d.members[0].meta.whole())
	done := 0
	err := d.walk(0, window, func(m *File, s segment) error {
		into := p[s.Offset-off : s.End()-off]
		if s.kind == zeros {
			clear(into)
		} else if err := readFull(m.r, into, s.at); err != nil {
			return err
		}
		done += len(into)
		return nil
	})
	switch {
	case err != nil:
		return done, fmt.Errorf("read %d bytes at byte %d of a virtual disk: %w", len(p), off, err)
	case done < len(p):
		return done, io.EOF
	}
	return done, nil
}

// Data streams the parts of window that may hold something other than zeros. It reads the tables of the members, no payload: the cost
// follows the sizes of the BATs and the number of partially present blocks; memory is bounded.
func (d *Disk) Data(window extent.Extent) extent.Seq {
	return stream(func(emit func(extent.Extent) error) error {
		return d.walk(0, window.Clip(d.members[0].meta.whole()), func(_ *File, s segment) error {
			if s.kind == zeros {
				return nil
			}
			return emit(s.Extent)
		})
	})
}
