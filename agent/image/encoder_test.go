package image_test

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/kopia/kopia/repo/compression"

	"github.com/hyperkeep/hyperkeep/agent/image"
)

// failing takes so many bytes and no more.
type failing struct{ left int }

var errTaken = errors.New("full")

func (f *failing) Write(p []byte) (int, error) {
	if f.left -= len(p); f.left < 0 {
		return 0, errTaken
	}
	return len(p), nil
}

// What our encoder makes under kopia's number, any decoder of zstd reads and kopia's own does, also when it failed before and when several work at once.
func TestTheEncoderWritesWhatKopiaReads(t *testing.T) {
	compressor := compression.ByHeaderID[compression.HeaderZstdFastest]
	if got := fmt.Sprintf("%T", compressor); got != "*image.zstdFastest" || compression.ByName["zstd-fastest"] != compressor {
		t.Fatalf("kopia compresses with %s", got)
	}
	decoder, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer decoder.Close()
	check := func(leaf []byte) error {
		if err := compressor.Compress(&failing{left: 10}, bytes.NewReader(leaf)); len(leaf) > 0 && !errors.Is(err, errTaken) {
			return fmt.Errorf("writing to what is full: %w", err)
		}
		var packed, plain bytes.Buffer
		if err := compressor.Compress(&packed, bytes.NewReader(leaf)); err != nil {
			return err
		}
		decoded, err := decoder.DecodeAll(packed.Bytes()[4:], nil)
		if err != nil || !bytes.Equal(decoded, leaf) {
			return fmt.Errorf("zstd reads %d bytes that differ: %w", len(decoded), err)
		}
		if err := compression.DecompressByHeader(&plain, &packed); err != nil || !bytes.Equal(plain.Bytes(), leaf) {
			return fmt.Errorf("kopia reads %d bytes that differ: %w", plain.Len(), err)
		}
		return nil
	}
	var group sync.WaitGroup
	for _, size := range []int{0, 1, 4096, image.GrainSize, 128<<10 + 1, image.LeafSize} {
		for _, leaf := range [][]byte{random(uint64(size), size), bytes.Repeat([]byte("leaf"), size/4)} {
			group.Go(func() {
				if err := check(leaf); err != nil {
					t.Errorf("%d bytes: %v", len(leaf), err)
				}
			})
		}
	}
	group.Wait()
}
