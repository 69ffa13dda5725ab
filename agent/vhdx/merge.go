package vhdx

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// mergePiece is how much payload a merge holds in memory.
const mergePiece = mib

// MergeRange copies what a child itself holds of window into its parent: data as data, explicit zeros as Writer.Zero. A range
// may be merged any number of times, in any order with others, also after a crash. The parent keeps its DataWriteGuid: the child hides every byte that
// changes, so it opens and reads as before, at any point. Other children of the parent would see the changes; there must be none.
//
// When the child is written meanwhile (child is Writer.File of a disk in use), ranges that were written after they were merged must be merged again.
// The package comment has the whole procedure. Files that do not belong together wrap ErrParentMismatch, a child that was resized ErrUnsupported.
func MergeRange(child *File, parent *Writer, window extent.Extent) error {
	switch {
	case !child.IsChildOf(parent.file):
		return mismatchf("merge: %v was made for a parent with DataWriteGuid %s, but this one has %s", child, child.ParentLinkage(), parent.file.DataWriteID())
	case child.VirtualSize() != parent.Size():
		return unsupportedf("merge: the child has %d bytes and the parent %d; resize the parent first", child.VirtualSize(), parent.Size())
	}
	buf := make([]byte, mergePiece)
	err := child.walk(window, func(s segment) error {
		switch s.kind {
		case zeros:
			return parent.clear(s.Extent, stateZero)
		case data:
			return copyPayload(child, parent, s, buf)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("merge %v: %w", window, err)
	}
	return nil
}

func copyPayload(child *File, parent *Writer, s segment, buf []byte) error {
	for done := int64(0); done < s.Length; {
		piece := buf[:min(int64(len(buf)), s.Length-done)]
		if err := readFull(child.r, piece, s.at+done); err != nil {
			return err
		}
		if _, err := parent.write(piece, s.Offset+done); err != nil {
			return err
		}
		done += int64(len(piece))
	}
	return nil
}

// FinishMerge ends a merge: the file, which now has the child's content, takes the child's DataWriteGuid. From here on it is the parent of
// whatever was a child of the child. A second call changes nothing. The child must still open on it until its owner has forgotten it, so FinishMerge is refused with
// ErrParentMismatch unless SetParent gave the child its present DataWriteGuid as MergedID; the guest's first write of a session changes that. The next
// WriteAt gives the file a DataWriteGuid of its own; none may be under way.
func (w *Writer) FinishMerge(child *File) error {
	if !child.parent.Load().accepts(child.DataWriteID()) {
		return mismatchf("finish merge: the child would not open on its merged parent; set its parent with MergedID %s first", child.DataWriteID())
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.storage.Sync(); err != nil {
		return fmt.Errorf("finish merge: %w", err)
	}
	h := *w.file.head.Load()
	h.dataWriteID = child.DataWriteID()
	w.marked = false
	return w.setHeader(h)
}

// SetParent replaces the parent locator of a differencing file: the new text goes to unused space of the metadata region, and one store of eight
// bytes switches to it. The guest's data stays as it is, and so does the DataWriteGuid. The chain in use stays, see SetParents.
func (w *Writer) SetParent(ref ParentRef) error {
	if w.file.Kind() != Differencing {
		return unsupportedf("set parent: %v has none", w.file)
	}
	if err := ref.check(); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := ref.locator()
	item := l.encode()
	region, table := w.file.layout.metadata, make([]byte, metadataTableSize)
	if err := readFull(w.storage, table, region.Offset); err != nil {
		return fmt.Errorf("set parent: %w", err)
	}
	place, ok := freeMetadata(table, region.Length, int64(len(item)))
	if !ok {
		return unsupportedf("set parent: the metadata region has no space for a locator of %d bytes", len(item))
	}
	if _, err := w.storage.WriteAt(item, region.Offset+place); err != nil {
		return fmt.Errorf("set parent: %w", err)
	}
	if err := w.storage.Sync(); err != nil {
		return fmt.Errorf("set parent: %w", err)
	}
	pointer := le.AppendUint32(le.AppendUint32(nil, uint32(place)), uint32(len(item)))
	if _, err := w.storage.WriteAt(pointer, region.Offset+w.file.meta.locatorItem.entry+16); err != nil {
		return fmt.Errorf("set parent: %w", err)
	}
	if err := w.storage.Sync(); err != nil {
		return fmt.Errorf("set parent: %w", err)
	}
	w.file.parent.Store(&l)
	return nil
}

// freeMetadata finds space in a metadata region that no item uses, known or not.
func freeMetadata(table []byte, length, need int64) (int64, bool) {
	taken := []extent.Extent{{Length: metadataTableSize}}
	for i := range int(le.Uint16(table[10:])) {
		entry := table[32+32*i:]
		taken = append(taken, extent.Extent{Offset: int64(le.Uint32(entry[16:])), Length: int64(le.Uint32(entry[20:]))})
	}
	free := extent.List{{Length: length}}.Subtract(extent.Normalize(taken))
	for _, e := range free {
		if e.Length >= need {
			return e.Offset, true
		}
	}
	return 0, false
}

// check refuses a reference that no reader could follow.
func (p *ParentRef) check() error {
	const maxPath = 32767 // characters, the longest path that Windows has
	switch {
	case p.DataWriteID == uuid.Nil:
		return unsupportedf("the parent's DataWriteGuid is missing")
	case p.RelativePath == "" && p.AbsolutePath == "":
		return unsupportedf("the parent has no path")
	case len(p.RelativePath) > maxPath || len(p.AbsolutePath) > maxPath:
		return unsupportedf("the path of the parent is longer than %d characters", maxPath)
	}
	return nil
}
