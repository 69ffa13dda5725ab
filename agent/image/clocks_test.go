package image

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"
)

// T4: when all clocks leap by more than a year, everything looks expired. Nothing is deleted and nothing freed until time has gone on for three days.
func TestNothingIsDeletedAfterALeapOfTheClock(t *testing.T) {
	c := newCalendar()
	where := Location{Filesystem: &FilesystemLocation{Path: filepath.Join(t.TempDir(), "repository")}}
	keeper, err := OpenOrCreate(t.Context(), where, "correct horse", c.options(t))
	if err != nil {
		t.Fatal(err)
	}
	defer keeper.Close(context.Background())
	disk := newPausing(1, 1)
	for _, id := range []string{"one", "two"} {
		if err := backupOf(t.Context(), keeper, id, nil, disk); err != nil {
			t.Fatal(err)
		}
	}
	attempt := func() (deleted, maintained error) {
		_, maintained = keeper.Maintain(t.Context(), MaintainOptions{Full: true})
		return keeper.Delete(t.Context(), "one"), maintained
	}
	if _, err := keeper.Maintain(t.Context(), MaintainOptions{}); err != nil {
		t.Fatal(err)
	}
	c.advance(400 * 24 * time.Hour)
	for range 3 {
		if deleted, maintained := attempt(); !errors.Is(deleted, ErrClock) || !errors.Is(maintained, ErrClock) {
			t.Fatalf("deleted: %v, maintained: %v", deleted, maintained)
		}
		c.advance(23 * time.Hour)
	}
	for _, id := range []string{"one", "two"} {
		checkDisk(t, keeper, id, disk.bytes)
	}
	c.advance(3 * time.Hour)
	if deleted, maintained := attempt(); deleted != nil || maintained != nil {
		t.Errorf("three days later: deleted: %v, maintained: %v", deleted, maintained)
	}
	checkDisk(t, keeper, "two", disk.bytes)
}
