package main

import (
	"context"
	"crypto/cipher"
	"encoding/json"
	"errors"
	"os"
	"runtime"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/hyperkeep/hyperkeep/agent/image"
)

// unpack reads, decrypts, decompresses and writes what primitives stored, and does nothing else that a restore has to: nothing is looked
// up, and nothing is left out where it is zeros.
func unpack(ctx context.Context, args []string) (err error) {
	if len(args) != 2 {
		return errors.New("unpack: want the target of primitives, and a file")
	}
	listed, err := os.ReadFile(indexOf(args[0]))
	if err != nil {
		return err
	}
	var all []chunk
	if err := json.Unmarshal(listed, &all); err != nil {
		return err
	}
	from, err := os.Open(args[0])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	into, err := os.Create(args[1])
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, into.Close()) }()
	group, ctx := errgroup.WithContext(ctx)
	chunks := make(chan chunk)
	group.Go(func() error {
		defer close(chunks)
		for _, c := range all {
			select {
			case chunks <- c:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error { return restoreChunks(from, into, chunks) })
	}
	return group.Wait()
}

func restoreChunks(from, into *os.File, chunks <-chan chunk) error {
	sealer, err := newSealer()
	if err != nil {
		return err
	}
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		return err
	}
	defer decoder.Close()
	sealed := make([]byte, image.LeafSize+4096)
	leaf := make([]byte, 0, image.LeafSize)
	for c := range chunks {
		if _, err := from.ReadAt(sealed[:c.Size], c.At); err != nil {
			return err
		}
		if err := restoreChunk(c, sealer, decoder, sealed[:c.Size], leaf, into); err != nil {
			return err
		}
	}
	return nil
}

func restoreChunk(c chunk, sealer cipher.AEAD, decoder *zstd.Decoder, sealed, leaf []byte, into *os.File) error {
	data, err := sealer.Open(sealed[:0], c.Nonce, sealed, nil)
	if err == nil && c.Compressed {
		data, err = decoder.DecodeAll(data, leaf)
	}
	if err != nil {
		return err
	}
	_, err = into.WriteAt(data, c.Offset)
	return err
}
