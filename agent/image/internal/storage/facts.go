package storage

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/kopia/kopia/repo/blob"
)

// Ability is something that backups rely on, or that makes them safer.
type Ability string

// What a place may lack.
const (
	ReadAfterWrite    Ability = "ReadAfterWrite"    // what was written, overwritten or deleted is seen so at once
	ListAfterWrite    Ability = "ListAfterWrite"    // what was written is in the next listing
	ConditionalCreate Ability = "ConditionalCreate" // it creates without ever overwriting
	DurableNames      Ability = "DurableNames"      // a new file's name survives a power cut once it was synced
	Clock             Ability = "Clock"             // its clock and ours agree, within MaxClockDrift
	ObjectLock        Ability = "ObjectLock"        // what is written can be locked
)

// MaxClockDrift is how much clocks may differ. Maintenance refuses to work from five minutes on.
const MaxClockDrift = time.Minute

// Facts are what a test of a place showed.
type Facts struct {
	Lacks []Ability
	// ClockDrift is how far the place's clock is ahead of ours.
	ClockDrift time.Duration
}

func (f *Facts) need(has bool, what Ability) {
	if !has {
		f.Lacks = append(f.Lacks, what)
	}
}

// Test finds out what a place can do by doing it, with a blob of its own that it deletes again. An error means that it could not be tested.
func (s *Storage) Test(ctx context.Context) (Facts, error) {
	t := &trial{Storage: s, name: "hyperkeep-test-" + blob.ID(randomSuffix())}
	err := t.run(ctx)
	if clean := s.inner.DeleteBlob(context.WithoutCancel(ctx), t.name); err == nil {
		err = clean
	}
	return t.facts, translate("test the storage", err)
}

// trial is one test.
type trial struct {
	*Storage
	name  blob.ID
	facts Facts
}

func (t *trial) run(ctx context.Context) error {
	for _, step := range []func(context.Context) error{t.create, t.listing, t.overwrite, t.delete, t.names, t.lock} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// create makes the blob, looks at it, and tries to make it again.
func (t *trial) create(ctx context.Context) error {
	before := t.now()
	err := t.inner.PutBlob(ctx, t.name, Bytes("one"), blob.PutOptions{DoNotRecreate: true})
	refuses := err == nil
	if errors.Is(err, blob.ErrUnsupportedPutBlobOption) {
		err = t.inner.PutBlob(ctx, t.name, Bytes("one"), blob.PutOptions{})
	}
	if err != nil {
		return err
	}
	after := t.now()
	found, err := t.inner.GetMetadata(ctx, t.name)
	if err != nil && !errors.Is(err, blob.ErrBlobNotFound) {
		return err
	}
	seen, readErr := t.sees(ctx, "one")
	t.facts.need(err == nil && found.Length == 3 && seen, ReadAfterWrite)
	if err == nil {
		t.facts.ClockDrift = drift(found.Timestamp, before, after)
	}
	t.facts.need(t.facts.ClockDrift.Abs() <= MaxClockDrift, Clock)
	if refuses {
		again := t.inner.PutBlob(ctx, t.name, Bytes("two"), blob.PutOptions{DoNotRecreate: true})
		kept, err := t.sees(ctx, "one")
		if err != nil {
			return err
		}
		refuses = errors.Is(again, blob.ErrBlobAlreadyExists) && kept
	}
	t.facts.need(refuses, ConditionalCreate)
	return readErr
}

// drift is how far a time is outside of those between which it was taken. Stores cut fractions of a second off.
func drift(told, before, after time.Time) time.Duration {
	switch {
	case told.Before(before.Truncate(time.Second)):
		return told.Sub(before)
	case told.After(after):
		return told.Sub(after)
	}
	return 0
}

func (t *trial) listing(ctx context.Context) error {
	listed := 0
	err := t.inner.ListBlobs(ctx, t.name, func(blob.Metadata) error { listed++; return nil })
	t.facts.need(listed == 1, ListAfterWrite)
	return err
}

func (t *trial) overwrite(ctx context.Context) error {
	if err := t.inner.PutBlob(ctx, t.name, Bytes("three"), blob.PutOptions{}); err != nil {
		return err
	}
	seen, err := t.sees(ctx, "three")
	t.stale(seen)
	return err
}

func (t *trial) delete(ctx context.Context) error {
	if err := t.inner.DeleteBlob(ctx, t.name); err != nil {
		return err
	}
	_, err := t.inner.GetMetadata(ctx, t.name)
	t.stale(errors.Is(err, blob.ErrBlobNotFound))
	return nil
}

// stale notes once that the place shows what was.
func (t *trial) stale(fresh bool) {
	for _, known := range t.facts.Lacks {
		fresh = fresh || known == ReadAfterWrite
	}
	t.facts.need(fresh, ReadAfterWrite)
}

func (t *trial) names(context.Context) error {
	durable, err := t.place.durableNames()
	t.facts.need(durable, DurableNames)
	return err
}

func (t *trial) lock(ctx context.Context) error {
	err := t.place.lockable(ctx)
	t.facts.need(err == nil, ObjectLock)
	if errors.Is(err, ErrNoLock) || errors.Is(err, ErrAccessDenied) { // who may not even ask cannot rely on it
		return nil
	}
	return err
}

func (t *trial) sees(ctx context.Context, wanted string) (bool, error) {
	var found buffer
	err := t.inner.GetBlob(ctx, t.name, 0, -1, &found)
	if errors.Is(err, blob.ErrBlobNotFound) {
		return false, nil
	}
	return bytes.Equal(found.Bytes(), []byte(wanted)), err
}
