package image

import (
	"bytes"
	"fmt"
	"hash"

	"github.com/zeebo/blake3"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

const (
	// contentHash is kopia's name for BLAKE3, keyed with the repository's secret and cut to 16 bytes. With it the id of a leaf is the hash of its bytes.
	contentHash   = "BLAKE3-256-128"
	contentIDSize = 16
	blake3KeySize = 32
)

// Differing compares the bytes p, which somebody has at offset, with those of the disk in the image, and returns the leaves that differ, cut at p. Nothing
// but lists is read from the repository: the name of a leaf is the keyed hash of its bytes. Leaves that p does not cover as a whole are said to differ.
func (d *DiskReader) Differing(p []byte, offset int64) (extent.List, error) {
	window := extent.Extent{Offset: offset, Length: int64(len(p))}.Clip(extent.Extent{Length: d.record.Size})
	if offset < 0 || window.Length != int64(len(p)) {
		return nil, fmt.Errorf("compare disk %q: %d bytes at %d are not within its %d", d.record.Name, len(p), offset, d.record.Size)
	}
	var out extent.List
	for e, err := range d.entries(window) {
		if err != nil {
			return nil, err
		}
		leaf := extent.Extent{Offset: e.Start, Length: e.Length}
		part := leaf.Clip(window)
		has := p[part.Offset-offset : part.End()-offset]
		if d.img.zeros[e.Object] {
			out = append(out, notZero(has, part.Offset)...)
			continue
		}
		if part != leaf || !d.img.repo.chunks.is(e, has) {
			out = append(out, part)
		}
	}
	return extent.Normalize(out), nil
}

// notZero returns the parts of a buffer, each as long as a leaf at most, that are not all zeros. A segment of zeros has one entry.
func notZero(p []byte, offset int64) extent.List {
	var out extent.List
	for len(p) > 0 {
		n := min(len(p), len(zeros))
		if !bytes.Equal(p[:n], zeros[:n]) {
			out = out.Append(extent.Extent{Offset: offset, Length: int64(n)})
		}
		p, offset = p[n:], offset+int64(n)
	}
	return out
}

// is says whether some bytes are those of a leaf. Where the repository names its contents in another way, nothing is.
func (c *chunks) is(e entry, p []byte) bool {
	id, _, ok := e.Object.ContentID()
	if !ok || c.hashes.New == nil {
		return false
	}
	hashing := c.hashes.Get().(hash.Hash)
	defer c.hashes.Put(hashing)
	hashing.Reset()
	hashing.Write(p)
	return bytes.Equal(hashing.Sum(nil)[:contentIDSize], id.Hash())
}

// setHash prepares comparing, where the repository's hash is the one that this package chooses.
func (c *chunks) setHash(name string, secret []byte) error {
	if name != contentHash || len(secret) < blake3KeySize {
		return nil
	}
	key := secret[:blake3KeySize]
	if _, err := blake3.NewKeyed(key); err != nil {
		return err
	}
	c.hashes.New = func() any {
		hashing, _ := blake3.NewKeyed(key) // its only error is the key's length, which was tried
		return hashing
	}
	return nil
}
