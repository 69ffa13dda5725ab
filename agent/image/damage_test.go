package image_test

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

func TestVerifyNamesWhatIsDamaged(t *testing.T) { // I10
	ctx := context.Background()
	where := directory(t)
	r := create(t, where, image.Options{})
	content := random(1, 3*mib)
	backup(t, r, "sound", disk("d0"), allocated(content))
	var progress image.Progress
	v, err := r.Verify(ctx, "sound", &progress)
	if err != nil || !v.Sound() || v.Disks[0].CheckedBytes != 3*mib || progress.Read.Load() != 3*mib || v.Digest == "" {
		t.Fatalf("%+v, %v", v, err)
	}
	pack := slices.MaxFunc(blobs(t, where, "p"), func(a, b string) int { return cmp.Compare(length(t, a), length(t, b)) })
	flip(t, pack, 2*mib+mib/2) // within the third leaf that was stored
	v, err = create(t, where, image.Options{}).Verify(ctx, "sound", nil)
	if err != nil || v.Sound() || len(v.Disks[0].Damaged) != 1 || v.Disks[0].Damaged.Bytes() != mib || v.Disks[0].Reason == "" {
		t.Fatalf("%+v, %v", v, err)
	}
	if _, err := restore(r, "sound", "d0"); !errors.Is(err, image.ErrDamaged) {
		t.Error(err)
	}
	if err := os.Truncate(pack, 100); err != nil {
		t.Fatal(err)
	}
	if v, err = r.Verify(ctx, "sound", nil); err != nil || v.Disks[0].Damaged.Bytes() != 3*mib {
		t.Errorf("truncated: %+v, %v", v, err)
	}
	if _, err := r.Confirm(ctx, "sound", spec("sound").VM.ID); !errors.Is(err, image.ErrDamaged) {
		t.Errorf("truncated: %v", err)
	}
	if err := os.Remove(pack); err != nil {
		t.Fatal(err)
	}
	if v, err = r.Verify(ctx, "sound", nil); err != nil || v.Disks[0].Damaged.Bytes() != 3*mib {
		t.Errorf("removed: %+v, %v", v, err)
	}
	if _, err := r.Confirm(ctx, "sound", spec("sound").VM.ID); !errors.Is(err, image.ErrDamaged) {
		t.Errorf("removed: %v", err)
	}
	if _, err := r.Verify(ctx, "none", nil); !errors.Is(err, image.ErrImageNotFound) {
		t.Error(err)
	}
}

func TestADamagedListMakesABaseUnusable(t *testing.T) { // AC-12
	where := directory(t)
	r := create(t, where, image.Options{})
	content := random(1, 3*mib)
	backup(t, r, "one", disk("d0"), allocated(content))
	for _, pack := range blobs(t, where, "q") {
		scramble(t, pack)
	}
	if _, err := tryBackup(r, "two", increment("d0", "one", extent.Extent{Length: 512}), allocated(content)); !errors.Is(err, image.ErrBaseUnusable) {
		t.Error(err)
	}
}

func TestAFullReadAfterDamageRepairs(t *testing.T) { // AC-12: it would otherwise link to the damaged chunks by their names
	for name, hurt := range map[string]func(t *testing.T, file string){
		"damaged": scramble,
		"removed": func(t *testing.T, file string) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			where := directory(t)
			r := create(t, where, image.Options{})
			content := random(1, 70*mib+5)
			backup(t, r, "one", disk("d0"), allocated(content))
			pack := slices.MaxFunc(blobs(t, where, "p"), func(a, b string) int { return cmp.Compare(length(t, a), length(t, b)) })
			list := slices.MaxFunc(blobs(t, where, "q"), func(a, b string) int { return cmp.Compare(length(t, a), length(t, b)) })
			hurt(t, pack)
			hurt(t, list)
			if _, err := restore(r, "one", "d0"); !errors.Is(err, image.ErrDamaged) {
				t.Fatal(err)
			}
			d := disk("d0")
			d.Repair = true
			backup(t, r, "two", d, allocated(content))
			mustRestore(t, create(t, where, image.Options{}), "two", "d0", content)
			if v, err := r.Verify(context.Background(), "two", nil); err != nil || !v.Sound() {
				t.Errorf("%+v, %v", v, err)
			}
		})
	}
}

// blobs lists the files of the blobs whose names start with prefix.
func blobs(t *testing.T, where image.Location, prefix string) []string {
	t.Helper()
	root := where.Filesystem.Path
	var files []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && filepath.Ext(path) == ".f" && strings.HasPrefix(blobOf(t, where, path), prefix) {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("blobs %s*: %v, %v", prefix, files, err)
	}
	return files
}

// blobOf is the blob that a file is: the folders are parts of its name.
func blobOf(t *testing.T, where image.Location, file string) string {
	t.Helper()
	rel, err := filepath.Rel(where.Filesystem.Path, file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(strings.ReplaceAll(rel, string(filepath.Separator), ""), ".f")
}

func length(t *testing.T, file string) int64 {
	t.Helper()
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

func flip(t *testing.T, file string, at int64) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[at] ^= 0x40
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func scramble(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range b {
		b[i] ^= 0x40
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestADamagedMarkerCostsNoImage: what is left of its image, the snapshot and the contents, is not taken for rubbish.
func TestADamagedMarkerCostsNoImage(t *testing.T) { // I2, I9
	var c clock
	c.ahead.Add(-int64(48 * time.Hour)) // since when a snapshot without an image is rubbish
	where := directory(t)
	r := create(t, where, image.Options{Now: c.now})
	content, other := random(1, 3*mib), random(2, 3*mib)
	backup(t, r, "one", disk("d0"), allocated(content))
	backup(t, r, "two", disk("d0"), allocated(other))
	var damaged string
	for _, marker := range blobs(t, where, "hyperkeep-image-") {
		flip(t, marker, 100)
		if _, err := restore(create(t, where, image.Options{Now: c.now}), "one", "d0"); err != nil {
			damaged = marker
			break
		}
		flip(t, marker, 100) // it is the other's
	}
	c.ahead.Store(0)
	collect(t, create(t, where, image.Options{Now: c.now}), &c)
	flip(t, damaged, 100)
	again := create(t, where, image.Options{Now: c.now})
	mustRestore(t, again, "one", "d0", content)
	mustRestore(t, again, "two", "d0", other)
}
