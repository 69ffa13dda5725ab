package image_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"sync"
	"testing"

	"github.com/kopia/kopia/repo/blob"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

// ledger is a storage that notes what is deleted and what is replaced.
type ledger struct {
	blob.Storage
	mu       *sync.Mutex
	offences *[]string
}

func (l ledger) note(what string, id blob.ID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	*l.offences = append(*l.offences, what+" "+string(id))
}

func (l ledger) DeleteBlob(ctx context.Context, id blob.ID) error {
	l.note("delete", id)
	return l.Storage.DeleteBlob(ctx, id)
}

func (l ledger) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, opts blob.PutOptions) error {
	if !opts.DoNotRecreate {
		l.note("overwrite", id)
	}
	return l.Storage.PutBlob(ctx, id, data, opts)
}

func TestAddingImagesNeedsNoRightToDeleteOrOverwrite(t *testing.T) { // I2, T1
	ctx := context.Background()
	where := directory(t)
	create(t, where, image.Options{})
	var offences []string
	watched := image.WithDecorator(image.Options{AppendOnly: true}, func(inner blob.Storage) blob.Storage {
		return ledger{inner, &sync.Mutex{}, &offences}
	})
	content := random(1, 3*mib)
	base := ""
	r := create(t, where, watched)
	for i := range 20 { // more than kopia keeps snapshots apart
		id := string(rune('a' + i))
		d := disk("d0")
		if base != "" {
			d = increment("d0", base, extent.Extent{Length: 512})
		}
		copy(content, random(uint64(i), 512))
		backup(t, r, id, d, allocated(content))
		err := r.AppendBaseRecord(ctx, image.BaseRecord{ImageID: id, VMID: spec(id).VM.ID, ReferencePointID: "rp-" + id})
		if err != nil {
			t.Fatal(err)
		}
		base = id
	}
	if len(offences) > 0 {
		t.Errorf("needed: %v", offences)
	}
	r = create(t, where, watched)
	mustRestore(t, r, base, "d0", content)
	if refs, err := r.Images(ctx, image.ImageFilter{}); err != nil || len(refs) != 20 {
		t.Errorf("%d images, %v", len(refs), err)
	}
	_, maintained := r.Maintain(ctx, image.MaintainOptions{})
	for what, err := range map[string]error{"delete": r.Delete(ctx, base), "maintain": maintained} {
		if !errors.Is(err, image.ErrAppendOnly) {
			t.Errorf("%s: %v", what, err)
		}
	}
	mustRestore(t, r, base, "d0", content)
	if len(offences) > 0 {
		t.Errorf("tried: %v", offences)
	}
}

func TestMaintenanceRemovesWhatAgentsMustLeave(t *testing.T) {
	where := directory(t)
	keeper := create(t, where, image.Options{})
	before := bytes.Clone(random(1, mib))
	backup(t, create(t, where, image.Options{AppendOnly: true}), "one", disk("d0"), allocated(before))
	if len(blobs(t, where, "s")) == 0 {
		t.Fatal("there is no marker of a session")
	}
	if _, err := keeper.Maintain(context.Background(), image.MaintainOptions{Full: true, Safety: image.SafetyNone}); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(where.Filesystem.Path, "s*", "*", "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("markers of sessions are left: %v, %v", left, err)
	}
	mustRestore(t, keeper, "one", "d0", before)
}
