package storage

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sync/semaphore"
)

// inner is a provider. The name keeps the embedded field from shadowing the package's own type.
type inner = blob.Storage

// Storage is an open place for blobs. It is safe for concurrent use.
type Storage struct {
	inner
	place      place // itself, whatever decorates it
	appendOnly bool
	now        func() time.Time
	bandwidth  *Bandwidth
	uploads    *semaphore.Weighted
	written    atomic.Int64
	read       atomic.Int64
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

// PutBlob stores one blob. It is durable when PutBlob returns. A blob that is not to be replaced and is there already, byte for byte, is
// success: the answer to an earlier attempt may have been lost. One that differs is blob.ErrBlobAlreadyExists.
//
// A lock is set for longer than asked for, see LockFor.
func (s *Storage) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	if err := s.uploads.Acquire(ctx, 1); err != nil {
		return err
	}
	defer s.uploads.Release(1)
	if s.appendOnly {
		if !appendable(id) {
			return newError("store blob "+string(id), ErrAppendOnly, "")
		}
		opts.DoNotRecreate = true
	}
	if err := s.bandwidth.Wait(ctx, int64(data.Length())); err != nil {
		return err
	}
	opts.RetentionPeriod = LockFor(opts.RetentionPeriod)
	err := s.inner.PutBlob(ctx, id, data, opts)
	if s.appendOnly && errors.Is(err, blob.ErrUnsupportedPutBlobOption) { // the probe of the repository warns of it
		opts.DoNotRecreate = false
		err = s.inner.PutBlob(ctx, id, data, opts)
	}
	if errors.Is(err, blob.ErrBlobAlreadyExists) && s.holds(ctx, id, data) {
		err = nil
	}
	if err != nil {
		return translate("store blob "+string(id), err)
	}
	s.written.Add(int64(data.Length()))
	return nil
}

// holds says whether a blob consists of the same bytes.
func (s *Storage) holds(ctx context.Context, id blob.ID, data blob.Bytes) bool {
	var found, wanted buffer
	if err := s.inner.GetBlob(ctx, id, 0, -1, &found); err != nil {
		return false
	}
	_, err := data.WriteTo(&wanted)
	return err == nil && bytes.Equal(found.Bytes(), wanted.Bytes())
}

// appendable are the blobs that consist of additions alone: packs, index blobs that are no compaction of others ([kopia] epoch index), markers
// of sessions and of images. Whoever could write the others could hide what was written before.
func appendable(id blob.ID) bool {
	for _, prefix := range []blob.ID{"p", "q", "xn", sessionPrefix, ImagePrefix} {
		if strings.HasPrefix(string(id), string(prefix)) {
			return true
		}
	}
	return false
}

const (
	sessionPrefix blob.ID = "s"
	// ImagePrefix starts the names of the blobs that make images visible.
	ImagePrefix blob.ID = "hyperkeep-image-"
)

// LockFor gives a lock a quarter on top, at least a day. An image links to what older ones stored, and needs that locked as long as itself.
// Without a margin every increment would have to prolong the locks of all that it links to.
func LockFor(asked time.Duration) time.Duration {
	if asked <= 0 {
		return 0
	}
	return asked + max(asked/4, 24*time.Hour)
}

// Lockable is nil where blobs can be locked, ErrNoLock where they cannot.
func (s *Storage) Lockable(ctx context.Context) error { return s.place.lockable(ctx) }

// GetBlob fetches a blob, or a part of it.
func (s *Storage) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	if err := s.inner.GetBlob(ctx, id, offset, length, out); err != nil {
		return translate("fetch blob "+string(id), err)
	}
	s.read.Add(int64(out.Length()))
	return nil
}

// Whole fetches a blob into memory.
func (s *Storage) Whole(ctx context.Context, id blob.ID) ([]byte, error) {
	var out buffer
	err := s.GetBlob(ctx, id, 0, -1, &out)
	return out.Bytes(), err
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

// DeleteBlob removes a blob. A missing one is success. Who may only add leaves the markers of sessions, which kopia deletes when a session
// ends, to the keeper, and deletes nothing else.
func (s *Storage) DeleteBlob(ctx context.Context, id blob.ID) error {
	switch {
	case !s.appendOnly:
		return translate("delete blob "+string(id), s.inner.DeleteBlob(ctx, id))
	case strings.HasPrefix(string(id), string(sessionPrefix)):
		return nil
	}
	return newError("delete blob "+string(id), ErrAppendOnly, "")
}

// ExtendBlobRetention prolongs the lock on a blob, for longer than asked for, see LockFor. It never shortens one.
func (s *Storage) ExtendBlobRetention(ctx context.Context, id blob.ID, opts blob.ExtendOptions) error {
	opts.RetentionPeriod = LockFor(opts.RetentionPeriod)
	return translate("extend retention of blob "+string(id), s.inner.ExtendBlobRetention(ctx, id, opts))
}

// Hold sees to it that a blob is locked until enough, and extends its lock as ExtendBlobRetention does when it is not. It tells until when the
// blob is locked then.
func (s *Storage) Hold(ctx context.Context, id blob.ID, enough time.Time, opts blob.ExtendOptions) (time.Time, error) {
	until, err := s.place.lockedUntil(ctx, id)
	if err != nil {
		return time.Time{}, translate("look at the lock of blob "+string(id), err)
	}
	if !until.Before(enough) {
		return until, nil
	}
	if err := s.ExtendBlobRetention(ctx, id, opts); err != nil {
		return time.Time{}, err
	}
	return s.now().Add(LockFor(opts.RetentionPeriod)), nil
}

// GetCapacity tells the size and the free space of a volume, blob.ErrNotAVolume for object stores.
func (s *Storage) GetCapacity(ctx context.Context) (blob.Capacity, error) {
	c, err := s.inner.GetCapacity(ctx)
	return c, translate("measure free space", err)
}
