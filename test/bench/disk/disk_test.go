package disk_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/hyperkeep/hyperkeep/test/bench/disk"
)

// The raw file that peers get and the VHDX files that Hyperkeep gets hold the same bytes, before and after a change.
func TestFormsOfADiskAgree(t *testing.T) {
	corpus := bytes.Repeat([]byte("it was the best of times, it was the worst of times; "), 1000)
	d := disk.New(8*disk.Block, corpus)
	dir := t.TempDir()
	raw, base, layer := filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.vhdx"), filepath.Join(dir, "disk.avhdx")
	must(t, d.WriteRaw(raw), d.WriteVHDX(base, disk.Block))
	agree(t, raw, base)
	before, err := os.ReadFile(raw)
	must(t, err)

	back := d.Snapshot()
	changed := d.Change(disk.Clustered, 0.02, 1)
	must(t, d.UpdateRaw(raw, changed), d.WriteLayer(layer, changed, base))
	agree(t, raw, layer, base)

	back()
	must(t, d.UpdateRaw(raw, changed))
	after, err := os.ReadFile(raw)
	must(t, err)
	if !bytes.Equal(before, after) {
		t.Error("going back to the snapshot brings other bytes")
	}
}

func agree(t *testing.T, raw string, chain ...string) {
	t.Helper()
	opened, err := disk.Open(chain...)
	must(t, err)
	defer opened.Close()
	want, err := os.ReadFile(raw)
	must(t, err)
	got, err := io.ReadAll(io.NewSectionReader(opened, 0, opened.Size()))
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("%v differs from %s", chain, raw)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}
