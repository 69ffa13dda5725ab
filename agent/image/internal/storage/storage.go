package storage

import (
	"context"
	"sync/atomic"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sync/semaphore"
)

// inner is a provider. The name keeps the embedded field from shadowing the package's own type.
type inner = blob.Storage

// Storage is an open place for blobs. It is safe for concurrent use.
type Storage struct {
	inner
	uploads *semaphore.Weighted
	written atomic.Int64
	read    atomic.Int64
}

// Written is how many bytes were stored through this handle.
func (s *Storage) Written() int64 { return s.written.Load() }

// Read is how many bytes were fetched through this handle.
func (s *Storage) Read() int64 { return s.read.Load() }

// Admit waits while as many uploads are under way as are allowed. Whoever fills buffers asks before filling more, which bounds memory
// when the storage is slower than the reader.
func (s *Storage) Admit(ctx context.Context) error {
	if err := s.uploads.Acquire(ctx, 1); err != nil {
		return err
	}
	s.uploads.Release(1)
	return nil
}

// PutBlob stores one blob. It is durable when PutBlob returns.
func (s *Storage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	if err := s.uploads.Acquire(ctx, 1); err != nil {
		return err
	}
	defer s.uploads.Release(1)
	if err := s.inner.PutBlob(ctx, id, data, opts); err != nil {
		return translate("store blob "+string(id), err)
	}
	s.written.Add(int64(data.Length()))
	return nil
}

// GetBlob fetches a blob, or a part of it.
func (s *Storage) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	if err := s.inner.GetBlob(ctx, id, offset, length, out); err != nil {
		return translate("fetch blob "+string(id), err)
	}
	s.read.Add(int64(out.Length()))
	return nil
}

// GetMetadata tells the length and the time of a blob.
func (s *Storage) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	m, err := s.inner.GetMetadata(ctx, id)
	return m, translate("look up blob "+string(id), err)
}

// ListBlobs calls back for every blob whose id starts with the prefix. An error of the callback is returned unchanged.
func (s *Storage) ListBlobs(ctx context.Context, prefix blob.ID, callback func(blob.Metadata) error) error {
	var stopped error
	err := s.inner.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
		stopped = callback(m)
		return stopped
	})
	if stopped != nil {
		return stopped
	}
	return translate("list blobs", err)
}

// DeleteBlob removes a blob. A missing one is success.
func (s *Storage) DeleteBlob(ctx context.Context, id blob.ID) error {
	return translate("delete blob "+string(id), s.inner.DeleteBlob(ctx, id))
}

// ExtendBlobRetention prolongs the lock on a blob.
func (s *Storage) ExtendBlobRetention(ctx context.Context, id blob.ID, opts blob.ExtendOptions) error {
	return translate("extend retention of blob "+string(id), s.inner.ExtendBlobRetention(ctx, id, opts))
}

// GetCapacity tells the size and the free space of a volume, blob.ErrNotAVolume for object stores.
func (s *Storage) GetCapacity(ctx context.Context) (blob.Capacity, error) {
	c, err := s.inner.GetCapacity(ctx)
	return c, translate("measure free space", err)
}
