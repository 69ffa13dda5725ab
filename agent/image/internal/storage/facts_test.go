package storage

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sync/semaphore"
)

// flawed is a place with one flaw.
type flawed struct {
	place
	flaw Ability
}

func (f *flawed) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	switch {
	case f.flaw == ConditionalCreate:
		opts.DoNotRecreate = false // ignored in silence
	case f.flaw == ReadAfterWrite && !opts.DoNotRecreate:
		return nil // the old one is shown
	}
	return f.place.PutBlob(ctx, id, data, opts)
}

func (f *flawed) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	m, err := f.place.GetMetadata(ctx, id)
	if f.flaw == Clock {
		m.Timestamp = m.Timestamp.Add(-time.Hour)
	}
	return m, err
}

func (f *flawed) ListBlobs(ctx context.Context, prefix blob.ID, callback func(blob.Metadata) error) error {
	if f.flaw == ListAfterWrite {
		return nil
	}
	return f.place.ListBlobs(ctx, prefix, callback)
}

func (f *flawed) lockable(context.Context) error {
	if f.flaw == ObjectLock {
		return ErrNoLock
	}
	return nil
}

func (f *flawed) durableNames() (bool, error) { return f.flaw != DurableNames, nil }

func TestATestFindsWhatAPlaceLacks(t *testing.T) {
	for _, flaw := range []Ability{"", ReadAfterWrite, ListAfterWrite, ConditionalCreate, DurableNames, Clock, ObjectLock} {
		t.Run("lacks "+string(flaw), func(t *testing.T) {
			root := t.TempDir()
			sound, err := openFilesystem(t.Context(), FilesystemLocation{Path: root}, Creating)
			if err != nil {
				t.Fatal(err)
			}
			at := &flawed{place: sound, flaw: flaw}
			facts, err := (&Storage{inner: at, place: at, now: time.Now, uploads: semaphore.NewWeighted(1)}).Test(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var want []Ability
			if flaw != "" {
				want = []Ability{flaw}
			}
			if !slices.Equal(facts.Lacks, want) || (flaw == Clock) != (facts.ClockDrift < -50*time.Minute) {
				t.Errorf("%+v", facts)
			}
			if left, err := blob.ListAllBlobs(t.Context(), sound, ""); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

func TestAFileIsCreatedOnce(t *testing.T) {
	st, _, _ := create(t)
	once := blob.PutOptions{DoNotRecreate: true}
	if err := st.PutBlob(t.Context(), blobID, data("first"), once); err != nil {
		t.Fatal(err)
	}
	if err := st.PutBlob(t.Context(), blobID, data("second"), once); !errors.Is(err, blob.ErrBlobAlreadyExists) {
		t.Error(err)
	}
	var got target
	if err := st.GetBlob(t.Context(), blobID, 0, -1, &got); err != nil || got.String() != "first" {
		t.Errorf("%q, %v", got.String(), err)
	}
	if all, err := blob.ListAllBlobs(t.Context(), st, ""); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
}
