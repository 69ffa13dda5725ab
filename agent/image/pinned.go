package image

import (
	"bytes"
	"context"
	"errors"
	"sync"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"

	"github.com/hyperkeep/hyperkeep/agent/image/internal/storage"
)

// formatBlobs are the blobs that a session reads once: the format with the encrypted key, and for how long blobs are locked. Nil is one that is not there.
type formatBlobs struct{ format, settings []byte }

func readFormat(ctx context.Context, store *storage.Storage) (f formatBlobs, err error) {
	if f.format, err = wholeOrNil(ctx, store, format.KopiaRepositoryBlobID); err != nil {
		return f, err
	}
	f.settings, err = wholeOrNil(ctx, store, format.KopiaBlobCfgBlobID)
	return f, err
}

func wholeOrNil(ctx context.Context, store *storage.Storage, id blob.ID) ([]byte, error) {
	found, err := store.Whole(ctx, id)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return nil, nil
	}
	return found, err
}

func (f formatBlobs) equal(other formatBlobs) bool {
	return bytes.Equal(f.format, other.format) && bytes.Equal(f.settings, other.settings)
}

// pinned is a storage whose format stays what it was when the session was opened, but for what the session writes itself. Kopia reads it anew every 15
// minutes with the key that it has, and fails all that is under way once the password was changed. What depends on the format as it is now compares it:
// fresh and Unchanged.
type pinned struct {
	*storage.Storage
	mu    sync.Mutex
	blobs map[blob.ID][]byte
}

func pin(store *storage.Storage, f formatBlobs) *pinned {
	return &pinned{Storage: store, blobs: map[blob.ID][]byte{format.KopiaRepositoryBlobID: f.format, format.KopiaBlobCfgBlobID: f.settings}}
}

// GetBlob fetches a blob, or a part of it.
func (p *pinned) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	p.mu.Lock()
	known := p.blobs[id]
	p.mu.Unlock()
	if known == nil || offset != 0 || length >= 0 {
		return p.Storage.GetBlob(ctx, id, offset, length, out)
	}
	out.Reset()
	_, err := out.Write(known)
	return err
}

// PutBlob stores a blob.
func (p *pinned) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	if err := p.Storage.PutBlob(ctx, id, data, opts); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, pinned := p.blobs[id]; !pinned {
		return nil
	}
	var written bytes.Buffer
	_, err := data.WriteTo(&written)
	p.blobs[id] = written.Bytes()
	return err
}
