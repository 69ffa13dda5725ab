package image_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

// A golden repository is one that an earlier version wrote. Each stays in testdata for ever, named after the format and the version of kopia that wrote it. The
// flag writes another: go test ./agent/image -run Golden -write-golden testdata/golden-...
var writeGolden = flag.String("write-golden", "", "folder in which to write a golden repository")

const goldenPassword = "golden"

// goldenDisks are what the images of a golden repository hold, made without randomness: a disk with data, a hole, and a change.
func goldenDisks() (one, two *memory, changed extent.Extent) {
	content := make([]byte, 66*mib+512)
	data := extent.List{{Offset: 0, Length: mib + 1000}, {Offset: 65 * mib, Length: mib + 512}}
	for _, e := range data {
		line := 0
		for at := content[e.Offset:e.End()]; len(at) > 0; line++ {
			at = at[copy(at, fmt.Sprintf("line %d of the extent at %d\n", line, e.Offset)):]
		}
	}
	changed = extent.Extent{Offset: 65*mib + 77, Length: 100}
	after := bytes.Clone(content)
	copy(after[changed.Offset:changed.End()], strings.Repeat("changed ", 20))
	return &memory{bytes: content, data: data}, &memory{bytes: after, data: data}, changed
}

func writeGoldenRepository(t *testing.T) {
	r, err := image.OpenOrCreate(t.Context(), image.Location{Filesystem: &image.FilesystemLocation{Path: *writeGolden}}, goldenPassword, image.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(context.Background())
	one, two, changed := goldenDisks()
	w, err := r.Begin(t.Context(), spec("one"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(context.Background())
	if _, err := w.AddDisk(t.Context(), disk("d0"), one, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.AddFile(t.Context(), "vm.vmcx", strings.NewReader("configuration")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Publish(t.Context(), open); err != nil {
		t.Fatal(err)
	}
	backup(t, r, "two", increment("d0", "one", changed), two)
	if err := r.AppendBaseRecord(t.Context(), image.BaseRecord{ImageID: "two", VMID: spec("two").VM.ID, ReferencePointID: "rp-two"}); err != nil {
		t.Fatal(err)
	}
}

// R8: kopia's library promises no stability. Whatever this version of it is, it opens, restores, verifies, continues and maintains what earlier ones wrote.
func TestGoldenRepositoriesStayUsable(t *testing.T) {
	if *writeGolden != "" {
		writeGoldenRepository(t)
	}
	entries, err := os.ReadDir("testdata")
	if err != nil || len(entries) == 0 {
		t.Fatalf("%v, %v", entries, err)
	}
	for _, entry := range entries {
		t.Run(entry.Name(), func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS("testdata/"+entry.Name())); err != nil {
				t.Fatal(err)
			}
			var c clock
			r, err := image.Open(t.Context(), image.Location{Filesystem: &image.FilesystemLocation{Path: dir}}, goldenPassword,
				image.Options{WorkDir: t.TempDir(), Now: c.now})
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close(context.Background())
			one, two, _ := goldenDisks()
			mustRestore(t, r, "one", "d0", one.bytes)
			mustRestore(t, r, "two", "d0", two.bytes)
			for _, id := range []string{"one", "two"} {
				if found, err := r.Verify(t.Context(), id, nil); err != nil || !found.Sound() {
					t.Errorf("verify %s: %+v, %v", id, found, err)
				}
			}
			if records, err := r.BaseRecords(t.Context(), spec("two").VM.ID); err != nil || len(records) != 1 || records[0].ImageID != "two" {
				t.Errorf("%+v, %v", records, err)
			}
			change := extent.Extent{Offset: 10, Length: 100}
			copy(two.bytes[change.Offset:change.End()], strings.Repeat("later ", 20))
			m := backup(t, r, "three", increment("d0", "two", change), two)
			if m.Disks[0].New.Bytes != mib {
				t.Errorf("%+v", m.Disks[0])
			}
			if err := r.Delete(t.Context(), "two"); err != nil {
				t.Error(err)
			}
			collect(t, r, &c)
			mustRestore(t, r, "one", "d0", one.bytes)
			mustRestore(t, r, "three", "d0", two.bytes)
		})
	}
}
