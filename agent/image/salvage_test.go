package image

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/content/index"
	"github.com/kopia/kopia/repo/manifest"
	"github.com/kopia/kopia/snapshot"

	"github.com/hyperkeep/hyperkeep/agent/image/internal/storage"
)

// flipIn flips a byte in each of some contents, in the place where the index says that it lies.
func flipIn(t *testing.T, r *Repository, which index.IDRange) {
	t.Helper()
	err := r.session.ContentReader().IterateContents(t.Context(), content.IterateOptions{Range: which}, func(info content.Info) error {
		return flipAt(t.Context(), r, info.PackBlobID, int64(info.PackOffset)+int64(info.PackedLength)/2)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func flipAt(ctx context.Context, r *Repository, id blob.ID, at int64) error {
	raw, err := storage.Open(ctx, r.loc, storage.Existing, Options{}.withDefaults().storage(r.loc))
	if err != nil {
		return err
	}
	defer raw.Close(ctx)
	bytes, err := raw.Whole(ctx, id)
	if err != nil {
		return err
	}
	bytes[at] ^= 0x40
	return raw.PutBlob(ctx, id, storage.Bytes(bytes), blob.PutOptions{})
}

func calendarRepository(t *testing.T) (*calendar, *Repository) {
	t.Helper()
	c := newCalendar()
	r, err := OpenOrCreate(t.Context(), Location{Filesystem: &FilesystemLocation{Path: filepath.Join(t.TempDir(), "repository")}}, "correct horse", c.options(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(context.Background()) })
	return c, r
}

// Found by the random model: kopia reads all manifests or none, so a byte of one of them stopped every deletion and all maintenance for good.
func TestADamagedManifestStopsNothing(t *testing.T) { // I9
	c, r := calendarRepository(t)
	disk := newPausing(1, 1)
	for _, id := range []string{"gone", "kept"} {
		if err := backupOf(t.Context(), r, id, nil, disk); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.AppendBaseRecord(t.Context(), BaseRecord{ImageID: "kept", VMID: "vm", ReferencePointID: "point"}); err != nil {
		t.Fatal(err)
	}
	flipIn(t, r, index.PrefixRange(manifest.ContentPrefix))

	keeper, err := Open(t.Context(), r.loc, "correct horse", c.options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close(context.Background())
	if _, err := keeper.BaseRecords(t.Context(), "vm"); !errors.Is(err, ErrDamaged) {
		t.Errorf("the manifests can still be read: %v", err)
	}
	checkDisk(t, keeper, "kept", disk.bytes)
	if err := backupOf(t.Context(), keeper, "new", nil, disk); err != nil {
		t.Errorf("a backup next to damaged manifests: %v", err)
	}
	if done, err := keeper.Maintain(t.Context(), MaintainOptions{}); err != nil {
		t.Fatalf("%+v, %v", done, err)
	}
	if err := keeper.Delete(t.Context(), "gone"); err != nil {
		t.Error(err)
	}
	if records, err := keeper.BaseRecords(t.Context(), "vm"); err != nil || len(records) > 0 {
		t.Errorf("base records: %v, %v", records, err)
	}
	shown, err := snapshot.ListSnapshotManifests(t.Context(), keeper.session, nil, nil)
	if err != nil || len(shown) != 2 {
		t.Errorf("stock kopia is shown %v, %v", shown, err)
	}
	checkDisk(t, keeper, "kept", disk.bytes)
}

// The snapshot of an image whose marker cannot be read is all that keeps its data: it is not given up.
func TestManifestsAreNotGivenUpWhileAMarkerIsDamaged(t *testing.T) {
	c, r := calendarRepository(t)
	disk := newPausing(1, 1)
	if err := backupOf(t.Context(), r, "one", nil, disk); err != nil {
		t.Fatal(err)
	}
	marker := r.session.markers.name("vm", "one")
	if err := flipAt(t.Context(), r, marker, 20); err != nil {
		t.Fatal(err)
	}
	flipIn(t, r, index.PrefixRange(manifest.ContentPrefix))
	keeper, err := Open(t.Context(), r.loc, "correct horse", c.options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close(context.Background())
	if _, err := keeper.Maintain(t.Context(), MaintainOptions{Full: true}); !errors.Is(err, ErrDamaged) {
		t.Errorf("maintained although neither the marker nor the snapshots can be read: %v", err)
	}
	if err := keeper.Delete(t.Context(), "one"); !errors.Is(err, ErrDamaged) {
		t.Errorf("what is shown to stock kopia was to remain: %v", err)
	}
	if _, err := keeper.Maintain(t.Context(), MaintainOptions{}); err != nil {
		t.Errorf("the damaged image is deleted, and yet: %v", err)
	}
}

// Found by the random model: kopia moves contents out of thin packs before anything else, and stops when it cannot read one. Damage is said to be that,
// and what deleted images had is freed all the same.
func TestDamageInAThinPackDoesNotKeepGarbage(t *testing.T) { // AC-13, I9
	c, r := calendarRepository(t)
	thin, garbage := newPausing(1, 1), newPausing(2, 2)
	if err := backupOf(t.Context(), r, "thin", nil, thin); err != nil {
		t.Fatal(err)
	}
	flipIn(t, r, index.AllNonPrefixedIDs)
	if err := backupOf(t.Context(), r, "garbage", nil, garbage); err != nil {
		t.Fatal(err)
	}
	if err := r.Delete(t.Context(), "garbage"); err != nil {
		t.Fatal(err)
	}
	var freed int64
	said := 0
	for range 8 {
		c.advance(25 * time.Hour)
		done, err := r.Maintain(t.Context(), MaintainOptions{Full: true})
		if errors.Is(err, ErrDamaged) {
			said++
		} else if err != nil {
			t.Fatalf("%+v, %v", done, err)
		}
		freed += done.FreedBytes
	}
	if said == 0 {
		t.Error("nobody said that data is damaged")
	}
	if freed < 20*LeafSize {
		t.Errorf("%d bytes were freed of the %d that only a deleted image had", freed, 25*LeafSize)
	}
}
