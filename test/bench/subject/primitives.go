package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"os"
	"runtime"
	"sync"

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
	target, err := newPack(args[1])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, target.close()) }()
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
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error { return process(chain, target, leaves) })
	}
	return group.Wait()
}

// chunk is a leaf in a pack.
type chunk struct {
	Offset     int64 // in the disk
	At, Size   int64 // in the pack
	Nonce      []byte
	Compressed bool
}

// pack is a file of chunks, with another file that lists them.
type pack struct {
	file   *os.File
	mu     sync.Mutex
	end    int64
	chunks []chunk
}

func newPack(path string) (*pack, error) {
	file, err := os.Create(path)
	return &pack{file: file}, err
}

func indexOf(path string) string { return path + ".json" }

func (p *pack) put(c chunk, sealed []byte) error {
	c.Size = int64(len(sealed))
	p.mu.Lock()
	c.At, p.end = p.end, p.end+c.Size
	p.chunks = append(p.chunks, c)
	p.mu.Unlock()
	_, err := p.file.WriteAt(sealed, c.At)
	return err
}

func (p *pack) close() error {
	listed, err := json.Marshal(p.chunks)
	if err == nil {
		err = os.WriteFile(indexOf(p.file.Name()), listed, 0o600)
	}
	return errors.Join(err, p.file.Close())
}

// newSealer is a cipher with a key that protects nothing.
func newSealer() (cipher.AEAD, error) {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

func process(source *disk.Chain, target *pack, leaves <-chan extent.Extent) error {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return err
	}
	sealer, err := newSealer()
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
	for e := range leaves {
		data := leaf[:e.Length]
		if _, err := source.ReadAt(data, e.Offset); err != nil {
			return err
		}
		hasher.Reset()
		hasher.Write(data)
		stored := chunk{Offset: e.Offset, Nonce: hasher.Sum(nil)[:sealer.NonceSize()], Compressed: compressible(data)}
		if stored.Compressed {
			packed = encoder.EncodeAll(data, packed[:0])
			data = packed
		}
		sealed = sealer.Seal(sealed[:0], stored.Nonce, data, nil)
		if err := target.put(stored, sealed); err != nil {
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
