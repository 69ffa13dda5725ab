package tracking

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"pgregory.net/rapid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// TestUnionHasWhatWasMarked compares bitmaps that are closed and opened again with a plain set of units.
func TestUnionHasWhatWasMarked(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.Int64Range(1, 5<<30).Draw(t, "size") // more than two pages
		paths := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
		marked := make(map[int64]bool)
		var open []*Bitmap
		for i, path := range paths {
			b, err := Create(path, size)
			if err != nil {
				t.Fatal(err)
			}
			for range rapid.IntRange(0, 8).Draw(t, "marks") {
				offset := rapid.Int64Range(0, size-1).Draw(t, "offset")
				length := rapid.Int64Range(0, min(size-offset, 1<<20)).Draw(t, "length")
				if err := b.Mark(offset, length); err != nil {
					t.Fatal(err)
				}
				for at := offset / Granularity; length > 0 && at <= (offset+length-1)/Granularity; at++ {
					marked[at] = true
				}
			}
			if i == 0 && rapid.Bool().Draw(t, "reopen") {
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				if b, err = Open(path, size); err != nil {
					t.Fatal(err)
				}
			}
			defer b.Close()
			open = append(open, b)
		}
		var got extent.List
		limit := rapid.IntRange(1, 4).Draw(t, "limit")
		for at := int64(0); at < size; {
			part, processed, err := Union(open, extent.Extent{Offset: at, Length: size - at}, limit)
			if err != nil || processed <= 0 || len(part) > limit {
				t.Fatalf("%d extents, %d processed, %v", len(part), processed, err)
			}
			for _, e := range part {
				got = got.Append(e)
			}
			at += processed
		}
		var want []extent.Extent
		for at := range marked {
			want = append(want, extent.Extent{Offset: at * Granularity, Length: min(Granularity, size-at*Granularity)})
		}
		all := extent.Normalize(want)
		if len(got.Subtract(all)) > 0 || len(all.Subtract(got)) > 0 {
			t.Fatalf("got %v, not %v", got, all)
		}
	})
}

func TestWrongFilesAreLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	if _, err := Open(path, 1<<30); !errors.Is(err, ErrLost) {
		t.Errorf("a missing file: %v", err)
	}
	b, err := Create(path, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, 2<<30); !errors.Is(err, ErrLost) {
		t.Errorf("a file of another disk: %v", err)
	}
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, 1<<30); !errors.Is(err, ErrLost) {
		t.Errorf("a file that was cut: %v", err)
	}
}
