package image

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// AC-13: what an image alone had is gone some days after it, by careful maintenance and no other, and what others share with it is not.
func TestTheRepositoryShrinksByWhatTheDeletedImageAloneHad(t *testing.T) {
	c := newCalendar()
	where := Location{Filesystem: &FilesystemLocation{Path: filepath.Join(t.TempDir(), "repository")}}
	keeper, err := OpenOrCreate(t.Context(), where, "correct horse", c.options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close(context.Background())
	stored := func() int64 {
		t.Helper()
		found, err := keeper.Stats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return found.StoredBytes
	}
	disk := newPausing(2, 1)
	if err := backupOf(t.Context(), keeper, "gone", nil, disk); err != nil {
		t.Fatal(err)
	}
	const unique = 24 * LeafSize
	changed := extent.Normalize([]extent.Extent{disk.fill(1, 2, unique)})
	if err := backupOf(t.Context(), keeper, "kept", &Increment{BaseImageID: "gone", Changed: changed.Seq()}, disk); err != nil {
		t.Fatal(err)
	}
	before := stored()
	if err := keeper.Delete(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	var freed int64
	for day := range 6 {
		c.advance(25 * time.Hour)
		done, err := keeper.Maintain(t.Context(), MaintainOptions{Full: true})
		if err != nil {
			t.Fatal(err)
		}
		if freed += done.FreedBytes; day == 0 && freed > LeafSize {
			t.Errorf("%d bytes are freed on the first day, which a running backup may need", freed)
		}
	}
	if after := stored(); before-after < unique || freed < unique {
		t.Errorf("%d bytes before, %d after, %d said to be freed: the deleted image had %d of its own", before, after, freed, unique)
	}
	checkDisk(t, keeper, "kept", disk.bytes)
}
