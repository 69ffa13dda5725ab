package image

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
)

// forge does what an agent that was taken over can do with the password and the right to add index blobs: say of contents that they were deleted before
// the last maintenance dropped what was.
func forge(t *testing.T, where Location, c *calendar, at time.Time, victims func(content.Info) bool) (forged []content.Info) {
	t.Helper()
	opts := c.options(t)
	opts.AppendOnly, opts.Now = true, func() time.Time { return at }
	r, err := Open(t.Context(), where, "correct horse", opts)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(context.Background())
	err = repo.DirectWriteSession(t.Context(), r.session, repo.WriteSessionOptions{}, func(ctx context.Context, w repo.DirectRepositoryWriter) error {
		err := w.ContentReader().IterateContents(ctx, content.IterateOptions{}, func(info content.Info) error {
			if victims(info) {
				forged = append(forged, info)
			}
			return nil
		})
		for _, info := range forged {
			err = errors.Join(err, w.ContentManager().DeleteContent(ctx, info.ContentID))
		}
		return err
	})
	if err != nil || len(forged) == 0 {
		t.Fatalf("forged %d, %v", len(forged), err)
	}
	return forged
}

// I2: entries of the index that make contents vanish, as if they had been dropped already, cost no image: maintenance misses what is needed, and finds it in
// the packs. Where the pack is gone too, nothing is freed, and the message names the image.
func TestContentsThatVanishFromTheIndexComeBack(t *testing.T) {
	leaves := func(info content.Info) bool { return !info.ContentID.HasPrefix() }
	lists := func(info content.Info) bool { return info.ContentID.HasPrefix() && info.ContentID.Prefix() != "m" }
	for name, c := range map[string]struct {
		victims func(content.Info) bool
		lost    bool
	}{
		"chunks":                    {victims: leaves},
		"lists and directories":     {victims: lists},
		"both":                      {victims: func(info content.Info) bool { return leaves(info) || lists(info) }},
		"chunks whose pack is gone": {victims: leaves, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			clock := newCalendar()
			where := Location{Filesystem: &FilesystemLocation{Path: filepath.Join(t.TempDir(), "repository")}}
			keeper, err := OpenOrCreate(t.Context(), where, "correct horse", clock.options(t))
			if err != nil {
				t.Fatal(err)
			}
			defer keeper.Close(context.Background())
			disk := newPausing(2, 1)
			for _, id := range []string{"gone", "kept"} {
				if err := backupOf(t.Context(), keeper, id, nil, disk); err != nil {
					t.Fatal(err)
				}
			}
			before := clock.now()
			if err := keeper.Delete(t.Context(), "gone"); err != nil {
				t.Fatal(err)
			}
			maintain := func(safety Safety) (Maintained, error) {
				clock.advance(25 * time.Hour)
				return keeper.Maintain(t.Context(), MaintainOptions{Full: true, Safety: safety})
			}
			for range 3 { // so that deletions of long ago are dropped
				if _, err := maintain(SafetyNone); err != nil {
					t.Fatal(err)
				}
			}
			forged := forge(t, where, clock, before.Add(25*time.Hour+time.Minute), c.victims)
			if err := keeper.refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			if _, err := keeper.session.ContentInfo(t.Context(), forged[0].ContentID); !errors.Is(err, content.ErrContentNotFound) {
				t.Fatalf("the forged entry hides nothing: %v", err)
			}
			if c.lost {
				removePacks(t, where, forged)
			}
			done, err := maintain(SafetyFull)
			if c.lost {
				if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "kept") {
					t.Errorf("%+v, %v", done, err)
				}
				return
			}
			if err != nil || done.RecoveredBytes == 0 {
				t.Fatalf("%+v, %v", done, err)
			}
			for range 3 {
				if _, err := maintain(SafetyFull); err != nil {
					t.Fatal(err)
				}
			}
			checkDisk(t, keeper, "kept", disk.bytes)
		})
	}
}

// removePacks removes the packs of some contents.
func removePacks(t *testing.T, where Location, contents []content.Info) {
	t.Helper()
	packs := map[blob.ID]bool{}
	for _, info := range contents {
		packs[info.PackBlobID] = true
	}
	removed := 0
	err := filepath.WalkDir(where.Filesystem.Path, func(path string, entry os.DirEntry, err error) error {
		rel, _ := filepath.Rel(where.Filesystem.Path, path)
		id := blob.ID(strings.TrimSuffix(strings.ReplaceAll(rel, string(filepath.Separator), ""), ".f"))
		if err != nil || entry.IsDir() || !packs[id] {
			return err
		}
		removed++
		return os.Remove(path)
	})
	if err != nil || removed == 0 {
		t.Fatalf("removed %d, %v", removed, err)
	}
}
