package image_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/kopia/kopia/repo/blob"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

var errFull = &os.PathError{Op: "write", Path: "blob", Err: syscall.ENOSPC}

// errUnsynced is a write that the storage confirms and loses, as in a power cut of a server that does not sync.
var errUnsynced = errors.New("confirmed and lost")

// faulty is a storage that fails on demand.
type faulty struct {
	blob.Storage
	fail func(op string, id blob.ID) error
}

func (f *faulty) wrap(inner blob.Storage) blob.Storage { return &faulty{Storage: inner, fail: f.fail} }

func (f *faulty) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	err := f.fail("put", id)
	if errors.Is(err, errUnsynced) {
		return nil
	}
	if err != nil {
		return err
	}
	return f.Storage.PutBlob(ctx, id, data, opts)
}

func (f *faulty) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	if err := f.fail("get", id); err != nil {
		return err
	}
	return f.Storage.GetBlob(ctx, id, offset, length, out)
}

func TestAGateThatRefusesKeepsAnImageInvisible(t *testing.T) { // I6
	ctx := context.Background()
	where := directory(t)
	r := create(t, where, image.Options{})
	w, err := r.Begin(ctx, spec("fenced"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	if _, err := w.AddDisk(ctx, disk("d0"), allocated(random(1, mib)), nil); err != nil {
		t.Fatal(err)
	}
	lost := errors.New("claim lost")
	_, err = w.Publish(ctx, func(context.Context) error {
		if found, err := r.Images(ctx, image.ImageFilter{}); err != nil || len(found) > 0 { // a crash here leaves nothing visible
			t.Errorf("before the gate there is %v, %v", found, err)
		}
		return lost
	})
	if !errors.Is(err, lost) {
		t.Error(err)
	}
	for name, reader := range map[string]*image.Repository{"the same": r, "another": create(t, where, image.Options{})} {
		if found, err := reader.Images(ctx, image.ImageFilter{}); err != nil || len(found) > 0 {
			t.Errorf("%s handle sees %v, %v", name, found, err)
		}
	}
}

func TestATaskThatRunsTwiceHasOneImage(t *testing.T) { // I5
	ctx := context.Background()
	r := create(t, directory(t), image.Options{})
	first := backup(t, r, "once", disk("d0"), allocated(random(1, mib)))
	w, err := r.Begin(ctx, spec("once"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	if _, err := w.AddDisk(ctx, disk("d0"), allocated(random(2, mib)), nil); err != nil {
		t.Fatal(err)
	}
	second, err := w.Publish(ctx, func(context.Context) error { return errors.New("not to be asked") })
	if err != nil || second.Digest != first.Digest {
		t.Errorf("%v, %s in place of %s", err, second.Digest, first.Digest)
	}
	if found, err := r.Images(ctx, image.ImageFilter{}); err != nil || len(found) != 1 {
		t.Errorf("%v, %v", found, err)
	}
	mustRestore(t, r, "once", "d0", random(1, mib))
}

func TestRunsOfATaskThatRaceHaveOneImage(t *testing.T) { // I5: both pass the gate before either is visible
	ctx := context.Background()
	where := directory(t)
	r := create(t, where, image.Options{})
	var passed, done sync.WaitGroup
	passed.Add(2)
	digests := make([]string, 2)
	for i := range digests {
		done.Go(func() {
			w, err := r.Begin(ctx, spec("raced"))
			if err != nil {
				t.Error(err)
				passed.Done()
				return
			}
			defer w.Close(ctx)
			if _, err := w.AddDisk(ctx, disk("d0"), allocated(random(uint64(i), mib)), nil); err != nil {
				t.Error(err)
			}
			m, err := w.Publish(ctx, func(context.Context) error { passed.Done(); passed.Wait(); return nil })
			if err != nil {
				t.Error(err)
			}
			digests[i] = m.Digest
		})
	}
	done.Wait()
	found, err := r.Images(ctx, image.ImageFilter{})
	if err != nil || len(found) != 1 {
		t.Fatalf("%v, %v", found, err)
	}
	if found[0].Digest != digests[0] && found[0].Digest != digests[1] {
		t.Errorf("neither %v is %s", digests, found[0].Digest)
	}
	if err := r.Delete(ctx, "raced"); err != nil {
		t.Fatal(err)
	}
	if found, err := r.Images(ctx, image.ImageFilter{}); err != nil || len(found) != 0 {
		t.Errorf("after deleting there is %v, %v", found, err)
	}
}

func TestAnImageWhoseDataIsLostIsNotPublished(t *testing.T) { // I1: the storage says yes and keeps nothing
	where := directory(t)
	create(t, where, image.Options{})
	r := create(t, where, image.WithDecorator(image.Options{}, func(inner blob.Storage) blob.Storage {
		return &forgetful{Storage: inner}
	}))
	_, err := tryBackup(r, "lost", disk("d0"), allocated(random(1, mib)))
	if !errors.Is(err, image.ErrDamaged) {
		t.Error(err)
	}
	if found, err := r.Images(context.Background(), image.ImageFilter{}); err != nil || len(found) != 0 {
		t.Errorf("%v, %v", found, err)
	}
}

// forgetful loses packs of data.
type forgetful struct{ blob.Storage }

func (f *forgetful) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	if id[0] == 'p' {
		return nil
	}
	return f.Storage.PutBlob(ctx, id, data, opts)
}

func TestAFailingStorageIsNotTakenForDamage(t *testing.T) {
	where := directory(t)
	r := create(t, where, image.Options{})
	content := random(1, mib)
	backup(t, r, "one", disk("d0"), allocated(content))
	var broken atomic.Bool
	down := &faulty{fail: func(op string, _ blob.ID) error {
		if broken.Load() {
			return &os.PathError{Op: "read", Path: "blob", Err: syscall.ETIMEDOUT}
		}
		return nil
	}}
	other := create(t, where, image.WithDecorator(image.Options{}, down.wrap))
	if _, err := other.Image(context.Background(), "one"); err != nil {
		t.Fatal(err)
	}
	broken.Store(true)
	_, err := restore(other, "one", "d0")
	if !errors.Is(err, image.ErrUnreachable) || errors.Is(err, image.ErrDamaged) {
		t.Error(err)
	}
	_, err = tryBackup(other, "two", increment("d0", "one", extent.Extent{Length: 512}), allocated(content))
	if !errors.Is(err, image.ErrUnreachable) || errors.Is(err, image.ErrBaseUnusable) {
		t.Error(err) // a full read would not help
	}
	broken.Store(false)
	if got, err := restore(other, "one", "d0"); err != nil || !bytes.Equal(got, content) {
		t.Error(err)
	}
}
