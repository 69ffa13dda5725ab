package image_test

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/kopia/kopia/repo/blob"

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
