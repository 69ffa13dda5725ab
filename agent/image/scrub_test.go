package image_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

// scrubAll reads everything.
func scrubAll(t *testing.T, r *image.Repository, again ...string) image.Scrubbed {
	t.Helper()
	found, err := r.Scrub(t.Context(), image.ScrubOptions{To: image.Places, Again: again})
	if err != nil || found.Position != image.Places {
		t.Fatalf("%+v, %v", found, err)
	}
	return found
}

// Shares that follow each other read everything, and nothing twice, in whatever pieces it is cut.
func TestSharesAreARound(t *testing.T) {
	r := create(t, directory(t), image.Options{})
	for n := range 6 {
		backup(t, r, string(rune('a'+n)), disk("d0"), allocated(random(uint64(n), 2*mib)))
	}
	whole := scrubAll(t, r)
	if whole.Damaged > 0 || len(whole.Images) > 0 || whole.Bytes < 12*mib {
		t.Fatalf("%+v", whole)
	}
	var contents, read int64
	parts := 0
	for from := 0; from < image.Places; {
		to := min(image.Places, from+image.Places/5)
		var told []int
		found, err := r.Scrub(t.Context(), image.ScrubOptions{From: from, To: to, Done: func(s image.Scrubbed) error {
			told = append(told, s.Position)
			return nil
		}})
		if err != nil || found.Position != to || len(told) == 0 || told[len(told)-1] != to {
			t.Fatalf("%+v, %v, told %v", found, err, told)
		}
		if found.Contents > 0 {
			parts++
		}
		contents, read, from = contents+found.Contents, read+found.Bytes, to
	}
	if contents != whole.Contents || read != whole.Bytes || parts < 2 {
		t.Errorf("%d contents with %d bytes in %d shares, and %d with %d at once", contents, read, parts, whole.Contents, whole.Bytes)
	}
}

// What is damaged is found whatever happened to it, and told by the images and disks that need it; the next full read with Repair stores it anew, which
// heals the older images too (AC-12, I9).
func TestScrubNamesWhoSuffersAndBackupsRepair(t *testing.T) {
	for name, hurt := range map[string]func(t *testing.T, pack string){
		"damaged": scramble,
		"removed": func(t *testing.T, pack string) { must(t, os.Remove(pack)) },
		"cut":     func(t *testing.T, pack string) { must(t, os.Truncate(pack, 1000)) },
	} {
		t.Run(name, func(t *testing.T) {
			where := directory(t)
			r := create(t, where, image.Options{})
			first, second := random(1, 3*mib), random(2, 3*mib)
			backup(t, r, "sound", disk("d0"), allocated(random(3, 2*mib)))
			before := blobs(t, where, "p")
			backup(t, r, "base", disk("d0"), allocated(first))
			pack := slices.MaxFunc(added(before, blobs(t, where, "p")), func(a, b string) int { return cmp.Compare(length(t, a), length(t, b)) })
			twoDisks(t, r, "both", first, second)
			hurt(t, pack)

			found := scrubAll(t, r)
			if found.Damaged < 3 || len(found.Packs) != 1 || !strings.Contains(squeezed(pack), found.Packs[0]) {
				t.Errorf("%+v", found)
			}
			suffering := map[string]image.Verification{}
			for _, v := range found.Images {
				suffering[v.ImageID] = v
			}
			if base := suffering["base"]; len(suffering) != 2 || base.VMID != spec("base").VM.ID || base.Disks[0].Damaged.Bytes() != 3*mib {
				t.Errorf("%+v", suffering)
			}
			if both := suffering["both"].Disks; len(both) != 2 || both[0].Damaged.Bytes() != 3*mib || len(both[1].Damaged) != 0 {
				t.Errorf("%+v", both)
			}
			mustRestore(t, r, "sound", "d0", random(3, 2*mib))

			d := disk("d0")
			d.Repair = true
			backup(t, r, "repaired", d, allocated(first))
			if found := scrubAll(t, r, found.Packs...); found.Damaged > 0 || len(found.Images) > 0 {
				t.Errorf("after the repair: %+v", found)
			}
			again := create(t, where, image.Options{})
			for _, id := range []string{"base", "both", "repaired"} {
				mustRestore(t, again, id, "d0", first)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// added are the files that were not there before.
func added(before, after []string) []string {
	return slices.DeleteFunc(slices.Clone(after), func(file string) bool { return slices.Contains(before, file) })
}

// squeezed is the name of a blob, of whose parts its file's folders are.
func squeezed(file string) string { return strings.ReplaceAll(file, string(filepath.Separator), "") }

func twoDisks(t *testing.T, r *image.Repository, id string, first, second []byte) {
	t.Helper()
	ctx := t.Context()
	w, err := r.Begin(ctx, spec(id))
	must(t, err)
	defer w.Close(ctx)
	for key, content := range map[string][]byte{"d0": first, "d1": second} {
		if _, err := w.AddDisk(ctx, disk(key), allocated(content), nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Publish(ctx, open); err != nil {
		t.Fatal(err)
	}
}

// A list that is damaged takes what lies beneath with it, and an increment's own lists nothing of its base.
func TestScrubFollowsLists(t *testing.T) {
	where := directory(t)
	r := create(t, where, image.Options{})
	content := random(1, 70*mib)
	backup(t, r, "one", disk("d0"), allocated(content))
	lists := blobs(t, where, "q")
	changed := bytes.Clone(content)
	copy(changed[69*mib:], random(2, 1000))
	backup(t, r, "two", increment("d0", "one", extent.Extent{Offset: 69 * mib, Length: 1000}), allocated(changed))
	for _, q := range added(lists, blobs(t, where, "q")) {
		scramble(t, q)
	}
	found, err := r.Scrub(t.Context(), image.ScrubOptions{To: image.Places})
	if err != nil || len(found.Images) != 1 || found.Images[0].ImageID != "two" {
		t.Fatalf("%+v, %v", found, err)
	}
	mustRestore(t, r, "one", "d0", content)
}

// A scrub goes no faster than it may, and ends with its context.
func TestScrubKeepsToItsBandwidth(t *testing.T) {
	r := create(t, directory(t), image.Options{})
	backup(t, r, "one", disk("d0"), allocated(random(1, 4*mib)))
	slow := image.NewBandwidth(time.Now)
	slow.Limit(func(time.Time) int64 { return 64 * kib })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if found, err := r.Scrub(ctx, image.ScrubOptions{To: image.Places, Bandwidth: slow}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%+v, %v", found, err)
	}
}

// A configuration file that every image has is stored once. Where it is damaged, the next image with Repair brings it back.
func TestScrubNamesFilesAndBackupsRepairThem(t *testing.T) {
	where := directory(t)
	r := create(t, where, image.Options{})
	text := strings.Repeat("configuration ", 1000)
	withFile := func(id string, repair bool) {
		t.Helper()
		s := spec(id)
		s.Repair = repair
		w, err := r.Begin(t.Context(), s)
		must(t, err)
		defer w.Close(t.Context())
		must(t, w.AddFile(t.Context(), "vm.vmcx", strings.NewReader(text)))
		_, err = w.Publish(t.Context(), open)
		must(t, err)
	}
	backup(t, r, "other", disk("d0"), allocated(random(1, mib)))
	before := blobs(t, where, "p")
	withFile("one", false)
	hurt := added(before, blobs(t, where, "p"))
	withFile("two", false)
	for _, pack := range hurt {
		scramble(t, pack)
	}
	found := scrubAll(t, r)
	files := map[string][]string{}
	for _, v := range found.Images {
		files[v.ImageID] = v.DamagedFiles
	}
	if len(files) != 2 || !slices.Contains(files["two"], "vm.vmcx") {
		t.Fatalf("%v", files)
	}
	withFile("three", true)
	img, err := create(t, where, image.Options{}).Image(t.Context(), "three")
	must(t, err)
	in, err := img.File(t.Context(), "vm.vmcx")
	must(t, err)
	defer in.Close()
	if got, err := io.ReadAll(in); err != nil || string(got) != text {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}
