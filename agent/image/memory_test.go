package image_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/kopia/kopia/repo/blob"
	"golang.org/x/sync/errgroup"

	"github.com/hyperkeep/hyperkeep/agent/image"
)

// ahead is a storage that measures how far reading is ahead of storing.
type ahead struct {
	blob.Storage
	src         *memory
	put, most   *atomic.Int64
	busy, worst *atomic.Int64
}

func (a ahead) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	a.worst.Store(max(a.worst.Load(), a.busy.Add(1)))
	defer a.busy.Add(-1)
	err := a.Storage.PutBlob(ctx, id, data, opts)
	a.most.Store(max(a.most.Load(), a.src.reads.Load()-a.put.Load()))
	a.put.Add(int64(data.Length()))
	return err
}

func TestMemoryStaysWithinItsBudgetWhenTheStorageIsSlow(t *testing.T) {
	const budget = 96 * mib // 2 workers, one pack of 32 MiB that is filled and one that is stored
	src := allocated(random(1, 200*mib))
	var put, most, busy, worst atomic.Int64
	opts := image.Options{Parallelism: 2, MemoryBudget: budget, Compression: image.CompressionNone}
	r := create(t, directory(t), image.WithDecorator(opts, func(inner blob.Storage) blob.Storage {
		return ahead{inner, src, &put, &most, &busy, &worst}
	}))
	put.Store(0)
	backup(t, r, "large", disk("d0"), src)
	if most.Load() > budget || most.Load() < mib {
		t.Errorf("%d bytes were read and not stored yet", most.Load())
	}
	if worst.Load() != 1 {
		t.Errorf("%d blobs were stored at once", worst.Load())
	}
}

// Disks that are added at the same time share the budget.
func TestMemoryIsSharedByTheDisksOfAnImage(t *testing.T) {
	const budget, disks = 96 * mib, 6
	sources := make([]*memory, disks)
	for i := range sources {
		sources[i] = allocated(random(uint64(i), 40*mib))
	}
	var stored, most atomic.Int64
	opts := image.Options{Parallelism: 2, MemoryBudget: budget, Compression: image.CompressionNone}
	r := create(t, directory(t), image.WithDecorator(opts, func(inner blob.Storage) blob.Storage {
		return telling{inner, func(n int64) {
			var read int64
			for _, src := range sources {
				read += src.reads.Load()
			}
			most.Store(max(most.Load(), read-stored.Load()))
			stored.Add(n)
		}}
	}))
	stored.Store(0)
	w, err := r.Begin(t.Context(), spec("several"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(t.Context())
	group, ctx := errgroup.WithContext(t.Context())
	for i, src := range sources {
		group.Go(func() error {
			_, err := w.AddDisk(ctx, disk(fmt.Sprint("d", i)), src, nil)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Publish(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	if most.Load() > budget || most.Load() < mib {
		t.Errorf("%d bytes were read and not stored yet", most.Load())
	}
	for i, src := range sources {
		mustRestore(t, r, "several", fmt.Sprint("d", i), src.bytes)
	}
}

// telling is a storage that tells what it took.
type telling struct {
	blob.Storage
	took func(int64)
}

func (s telling) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	if err := s.Storage.PutBlob(ctx, id, data, opts); err != nil {
		return err
	}
	s.took(int64(data.Length()))
	return nil
}
