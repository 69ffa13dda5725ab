package image_test

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/image"
)

// Reads of any size and place give the bytes that were backed up: leaves that compress and that do not, equal ones, zeros, and a short last one.
func TestReadsOfAnySizeAreEqual(t *testing.T) {
	content := random(3, 20*mib+777)
	copy(content[4*mib:], halfCompressible(6*mib))
	copy(content[12*mib:13*mib], content[2*mib:3*mib]) // stored once
	copy(content[13*mib:14*mib], content[2*mib:3*mib])
	clear(content[16*mib : 18*mib])
	for _, compression := range []image.Compression{image.CompressionBalanced, image.CompressionFast, image.CompressionNone} {
		t.Run("compression="+string(compression), func(t *testing.T) {
			r := create(t, directory(t), image.Options{Compression: compression})
			backup(t, r, "one", disk("d0"), allocated(content))
			img, err := r.Image(context.Background(), "one")
			if err != nil {
				t.Fatal(err)
			}
			d, err := img.Disk(context.Background(), "d0")
			if err != nil {
				t.Fatal(err)
			}
			if left := image.LeftToKopia(d); compression != image.CompressionFast && left > 0 {
				t.Errorf("%d leaves are not read the fast way", left)
			}
			random := rand.New(rand.NewPCG(1, 2))
			for range 40 {
				at := random.IntN(len(content))
				p := make([]byte, 1+random.IntN(9*mib))
				n, err := d.ReadAt(p, int64(at))
				if want := min(len(p), len(content)-at); n != want || (err == io.EOF) != (n < len(p)) || err != nil && err != io.EOF {
					t.Fatalf("%d bytes at %d: %d, %v", len(p), at, n, err)
				}
				if !bytes.Equal(p[:n], content[at:at+n]) {
					t.Fatalf("%d bytes at %d differ", len(p), at)
				}
			}
		})
	}
}

// A flipped byte in a pack is met by the reads that fetch many leaves at once too.
func TestAFlippedByteFailsALargeRead(t *testing.T) { // I10
	where := directory(t)
	r := create(t, where, image.Options{})
	content := random(5, 8*mib)
	backup(t, r, "one", disk("d0"), allocated(content))
	packs, err := filepath.Glob(filepath.Join(where.Filesystem.Path, "p*", "*", "*.f"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range packs {
		pack, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(pack) > 3*mib {
			pack[2*mib+12345] ^= 0x10
		}
		if err := os.WriteFile(name, pack, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := restore(r, "one", "d0")
	if err == nil {
		t.Fatalf("%d bytes were read", len(got))
	}
}
