package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/object"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// zeros is a leaf of zeros. Nobody writes to it.
var zeros = make([]byte, LeafSize)

// writeLeaf stores a leaf unless it is zeros.
func (d *diskWriter) writeLeaf(ctx context.Context, leaf []byte) (object.ID, error) {
	length := int64(len(leaf))
	if empty, ok := d.empty[length]; ok && bytes.Equal(leaf, zeros[:length]) {
		d.zeroLeaves.Add(1)
		d.zeroBytes.Add(length)
		return empty, nil
	}
	if err := d.repo.session.store.Admit(ctx); err != nil {
		return object.EmptyID, err
	}
	id, err := d.sound(ctx, false, func() (object.ID, error) { return d.writeLeafObject(ctx, leaf, d.repo.opts.Compression) })
	if err != nil {
		return object.EmptyID, err
	}
	d.newLeaves.Add(1)
	d.newBytes.Add(length)
	d.progress.Written.Add(length)
	return id, nil
}

// readFrom fills a buffer from the source and says how many bytes it read for that. What the source knows to be zeros is not read.
func (d *diskWriter) readFrom(window extent.Extent, leaf []byte) (int64, error) {
	var read int64
	filled := window.Offset
	for e, err := range d.src.Data(window) {
		if err != nil {
			return read, err
		}
		e = e.Clip(window)
		if e.Length == 0 {
			continue
		}
		if e.Offset < filled {
			return read, fmt.Errorf("extent %s is out of order", e)
		}
		clear(leaf[filled-window.Offset : e.Offset-window.Offset])
		part := leaf[e.Offset-window.Offset : e.End()-window.Offset]
		if n, err := d.src.ReadAt(part, e.Offset); n < len(part) {
			return read, errors.Join(err, io.ErrUnexpectedEOF)
		}
		read += e.Length
		filled = e.End()
	}
	clear(leaf[filled-window.Offset:])
	return read, nil
}

// writeLeafObject stores a leaf as one content. It is what kopia's object writer does with so few bytes, less a copy of them.
func (w *Writer) writeLeafObject(ctx context.Context, leaf []byte, how Compression) (object.ID, error) {
	contents := w.kopia.ContentManager()
	data := argument(contents.WriteContent)
	data.Slices = [][]byte{leaf}
	id, err := contents.WriteContent(ctx, data, "", how.compressor(leaf))
	return object.DirectObjectID(id), err
}

// argument makes what kopia takes the bytes of a content as: a type that callers can fill but not name.
func argument[B any](func(context.Context, B, content.IDPrefix, compression.HeaderID) (content.ID, error)) (empty B) {
	return empty
}

// zeroObject stores an object of zeros, at most a leaf long.
func (w *Writer) zeroObject(ctx context.Context, length int64) (object.ID, error) {
	id, err := w.writeLeafObject(ctx, zeros[:length], CompressionBalanced)
	if err == nil {
		w.remember(id, length)
	}
	return id, err
}

func (w *Writer) remember(zero object.ID, length int64) {
	w.reserving.needs(zero)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.zeros[zero] = length
}
