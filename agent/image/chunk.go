package image

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"sync"

	"github.com/klauspost/compress/zstd"
	"github.com/kopia/kopia/repo/compression"
	"github.com/kopia/kopia/repo/content"

	"github.com/hyperkeep/hyperkeep/agent/image/internal/storage"
)

const (
	// encryption is kopia's name for AES-256-GCM with a key of its own for every content: HMAC-SHA256 over the content's id, under a key that
	// HKDF-SHA256 makes of the repository's master key.
	encryption     = "AES256-GCM-HMAC-SHA256"
	encryptionSalt = "encryption"
	// compressionHeader is what kopia puts in front of compressed bytes: the compressor's number.
	compressionHeader = 4
)

var errChunk = errors.New("not a chunk as this package writes them")

// chunks opens contents without the copies that kopia makes on the way. It knows what this package writes, and nothing else.
type chunks struct {
	session *session
	store   *storage.Storage
	keyed   sync.Pool // of hash.Hash
	hashes  sync.Pool // of hash.Hash
	runs    sync.Pool // of *run
	zstd    *zstd.Decoder
}

// newChunks returns chunks that know nothing when the repository is encrypted in another way.
func newChunks(s *session, parallelism int) (*chunks, error) {
	c := &chunks{session: s, store: s.store, runs: sync.Pool{New: func() any { return &run{} }}}
	format := s.ContentReader().ContentFormat()
	if err := c.setHash(format.GetHashFunction(), format.GetHmacSecret()); err != nil {
		return nil, err
	}
	if format.GetEncryptionAlgorithm() != encryption || format.GetECCAlgorithm() != "" {
		return c, nil
	}
	key, err := hkdf.Key(sha256.New, format.GetMasterKey(), []byte(encryptionSalt), "", sha256.Size)
	if err != nil {
		return nil, err
	}
	c.keyed.New = func() any { return hmac.New(sha256.New, key) }
	c.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(parallelism), zstd.WithDecodeAllCapLimit(true))
	return c, err
}

// locate finds out where a leaf lies. It says no where that is kopia's business: an index that has to be looked at anew, a way of compressing that
// is not ours.
func (c *chunks) locate(ctx context.Context, w *want) bool {
	id, _, ok := w.Object.ContentID()
	if !ok {
		return false
	}
	info, err := c.session.ContentInfo(ctx, id)
	if err != nil || !c.opens(info) || int64(info.OriginalLength) != w.Length {
		return false
	}
	w.info = info
	return true
}

// opens says whether a content is one of those that open knows.
func (c *chunks) opens(info content.Info) bool {
	known := info.CompressionHeaderID == 0 || info.CompressionHeaderID == compression.HeaderZstdFastest
	return c.zstd != nil && known && info.EncryptionKeyID == 0 && info.PackedLength <= 2*LeafSize && info.OriginalLength <= LeafSize
}

// open decrypts a chunk in place, which checks it, and decompresses it to where it belongs.
func (c *chunks) open(info content.Info, packed, into []byte) error {
	id := info.ContentID.Hash()
	id = id[len(id)-aes.BlockSize:]
	keyed := c.keyed.Get().(hash.Hash)
	defer c.keyed.Put(keyed)
	keyed.Reset()
	keyed.Write(id)
	block, err := aes.NewCipher(keyed.Sum(nil))
	if err != nil {
		return err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return err
	}
	if len(packed) < aead.NonceSize()+aead.Overhead() {
		return errChunk
	}
	nonce, sealed := packed[:aead.NonceSize()], packed[aead.NonceSize():]
	if info.CompressionHeaderID == 0 {
		if len(sealed) != len(into)+aead.Overhead() {
			return errChunk
		}
		_, err := aead.Open(into[:0], nonce, sealed, id)
		return err
	}
	plain, err := aead.Open(sealed[:0], nonce, sealed, id)
	if err != nil {
		return err
	}
	if len(plain) < compressionHeader || compression.HeaderID(binary.BigEndian.Uint32(plain)) != info.CompressionHeaderID {
		return errChunk
	}
	out, err := c.zstd.DecodeAll(plain[compressionHeader:], into[:0:len(into)])
	if err == nil && len(out) != len(into) {
		err = errChunk
	}
	return err
}
