package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"os"
	"runtime"
	"sync/atomic"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"
	"golang.org/x/sync/errgroup"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/test/bench/disk"
)

// primitives reads, hashes, compresses where a sample says so, encrypts and writes the data of a disk, and does nothing else that a backup
// has to: nothing is found again, deduplicated, indexed or synced. No store of these primitives can take less.
func primitives(ctx context.Context, args []string) (err error) {
	if len(args) != 2 {
		return errors.New("primitives: want a disk and a target")
	}
	chain, err := disk.Open(args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chain.Close()) }()
	target, err := os.Create(args[1])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	group, ctx := errgroup.WithContext(ctx)
	leaves := make(chan extent.Extent)
	group.Go(func() error {
		defer close(leaves)
		for e, err := range chain.Data(extent.Extent{Length: chain.Size()}) {
			if err != nil {
				return err
			}
			for at := e.Offset; at < e.End(); at += image.LeafSize {
				select {
				case leaves <- extent.Extent{Offset: at, Length: min(image.LeafSize, e.End()-at)}:
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		return nil
	})
	var end atomic.Int64
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error { return process(chain, target, leaves, &end) })
	}
	return group.Wait()
}

func process(source *disk.Chain, target *os.File, leaves <-chan extent.Extent, end *atomic.Int64) error {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return err
	}
	sealer, err := cipher.NewGCM(block)
	if err != nil {
		return err
	}
	hasher, err := blake3.NewKeyed(make([]byte, 32))
	if err != nil {
		return err
	}
	leaf := make([]byte, image.LeafSize)
	packed := make([]byte, 0, image.LeafSize+4096)
	sealed := make([]byte, 0, image.LeafSize+4096)
	nonce := make([]byte, sealer.NonceSize())
	for e := range leaves {
		data := leaf[:e.Length]
		if _, err := source.ReadAt(data, e.Offset); err != nil {
			return err
		}
		hasher.Reset()
		hasher.Write(data)
		copy(nonce, hasher.Sum(nil))
		if compressible(data) {
			packed = encoder.EncodeAll(data, packed[:0])
			data = packed
		}
		sealed = sealer.Seal(sealed[:0], nonce, data, nil)
		if _, err := target.WriteAt(sealed, end.Add(int64(len(sealed)))-int64(len(sealed))); err != nil {
			return err
		}
	}
	return nil
}

// compressible samples a leaf as agent/image does.
func compressible(leaf []byte) bool {
	const size, count = 16 << 10, 3
	var buffer [2 * size]byte
	packed := 0
	for i := range count {
		at := i * (len(leaf) - size) / (count - 1)
		packed += len(s2.Encode(buffer[:], leaf[at:at+size]))
	}
	return packed < count*size*95/100
}
