package image

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/kopia/kopia/repo/content"
)

const (
	// maxRun bounds what is fetched from a pack at once, and maxGap what is fetched in vain to spare a request.
	maxRun = 8 << 20
	maxGap = 128 << 10
)

// want is a leaf that has to be read whole, and where to.
type want struct {
	entry
	into []byte
	info content.Info
}

// fetch reads leaves whole. Those that lie near each other in a pack are fetched at once, decrypted in place, and decompressed to where they
// belong. What cannot be read in this way is left to kopia, which knows what to do about it, and what to say.
func (d *DiskReader) fetch(wants []want) error {
	var later []want // by kopia
	fast := wants[:0:0]
	for _, w := range wants {
		if d.img.repo.chunks.locate(d.ctx, &w) {
			fast = append(fast, w)
		} else {
			later = append(later, w)
		}
	}
	slices.SortFunc(fast, inPacks)
	for len(fast) > 0 {
		n := runOf(fast)
		later = append(later, d.img.repo.chunks.read(d.ctx, fast[:n])...)
		fast = fast[n:]
	}
	for _, w := range later {
		if err := d.readObject(w.entry, w.into); err != nil {
			return damaged(err, "disk %q at %d", d.record.Name, w.Start)
		}
	}
	return nil
}

// readObject reads a leaf through kopia.
func (d *DiskReader) readObject(e entry, into []byte) error {
	in, err := d.img.repo.session.OpenObject(d.ctx, e.Object)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only
	if in.Length() != e.Length {
		return fmt.Errorf("leaf has %d bytes in place of %d", in.Length(), e.Length)
	}
	_, err = io.ReadFull(in, into)
	return err
}

// inPacks is the order in which contents lie in the storage.
func inPacks(a, b want) int {
	return cmp.Or(cmp.Compare(a.info.PackBlobID, b.info.PackBlobID), cmp.Compare(a.info.PackOffset, b.info.PackOffset))
}

// runOf says how many of some leaves, in order of their places, are fetched at once.
func runOf(wants []want) int {
	first := wants[0].info
	end := packEnd(first)
	for n, w := range wants[1:] {
		at := int64(w.info.PackOffset)
		if w.info.PackBlobID != first.PackBlobID || at > end+maxGap || packEnd(w.info)-int64(first.PackOffset) > maxRun {
			return n + 1
		}
		end = max(end, packEnd(w.info))
	}
	return len(wants)
}

func packEnd(i content.Info) int64 { return int64(i.PackOffset) + int64(i.PackedLength) }

// run is a part of a pack on its way into memory. It takes what it is given without copying it twice.
type run struct{ bytes []byte }

func (r *run) Length() int { return len(r.bytes) }
func (r *run) Reset()      { r.bytes = r.bytes[:0] }

func (r *run) Write(p []byte) (int, error) {
	r.bytes = append(r.bytes, p...)
	return len(p), nil
}

// ReadFrom reads straight into the buffer.
func (r *run) ReadFrom(in io.Reader) (int64, error) {
	start := len(r.bytes)
	for {
		if len(r.bytes) == cap(r.bytes) {
			r.bytes = slices.Grow(r.bytes, 64<<10)
		}
		n, err := in.Read(r.bytes[len(r.bytes):cap(r.bytes)])
		r.bytes = r.bytes[:len(r.bytes)+n]
		if err == io.EOF {
			return int64(len(r.bytes) - start), nil
		}
		if err != nil {
			return int64(len(r.bytes) - start), err
		}
	}
}

// read fetches one run and opens what is in it. It returns what it could not read.
func (c *chunks) read(ctx context.Context, wants []want) []want {
	start := int64(wants[0].info.PackOffset)
	var end int64
	for _, w := range wants {
		end = max(end, packEnd(w.info))
	}
	fetched := c.runs.Get().(*run)
	defer c.runs.Put(fetched)
	fetched.bytes = slices.Grow(fetched.bytes[:0], int(end-start)+1) // one more, to see the end
	if err := c.store.GetBlob(ctx, wants[0].info.PackBlobID, start, end-start, fetched); err != nil || fetched.Length() != int(end-start) {
		return wants
	}
	var failed []want
	for i, w := range wants {
		packed := fetched.bytes[int64(w.info.PackOffset)-start:][:w.info.PackedLength]
		if i+1 < len(wants) && int64(wants[i+1].info.PackOffset) < packEnd(w.info) {
			packed = slices.Clone(packed) // the next one is the same leaf again, and opening it in place would spoil it
		}
		if err := c.open(w.info, packed, w.into); err != nil {
			failed = append(failed, w)
		}
	}
	return failed
}
