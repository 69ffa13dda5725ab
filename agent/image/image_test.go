package image_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

const mib = 1 << 20

func TestAnIncrementReadsOnlyWhatChangedAndIsAFullImage(t *testing.T) { // AC-05, AC-06, AC-09
	r := create(t, directory(t), image.Options{})
	before := random(1, 130*mib+512)
	full := backup(t, r, "one", disk("d0"), allocated(before))
	if d := full.Disks[0]; d.Type != image.Full || d.ReadBytes != d.Size || d.New.Bytes != d.Size || full.StoredBytes < d.Size {
		t.Errorf("full: %+v, stored %d", d, full.StoredBytes)
	}
	mustRestore(t, r, "one", "d0", before)

	after := bytes.Clone(before)
	copy(after[70*mib+100:], random(2, 4096))
	src := allocated(after)
	inc := backup(t, r, "two", increment("d0", "one", extent.Extent{Offset: 70*mib + 100, Length: 4096}), src)
	d := inc.Disks[0]
	if d.Type != image.Incremental || d.ReadBytes != mib || src.reads.Load() != mib || d.ChangedBytes != 4096 {
		t.Errorf("increment: %+v, source read %d", d, src.reads.Load())
	}
	if d.New.Bytes+d.Linked.Bytes+d.Zero.Bytes != d.Size || d.New.Leaves+d.Linked.Leaves+d.Zero.Leaves != 130+16 { // AC-07
		t.Errorf("new, linked and zero do not make up the disk: %+v", d)
	}
	if d.Base == nil || d.Base.ImageID != "one" || d.Base.Digest != full.Digest {
		t.Errorf("base: %+v", d.Base)
	}
	if inc.StoredBytes > 2*mib { // AC-10
		t.Errorf("stored %d bytes for one changed leaf", inc.StoredBytes)
	}
	mustRestore(t, r, "two", "d0", after)
	mustRestore(t, r, "one", "d0", before)
}

func TestConfigurationFilesComeBack(t *testing.T) {
	ctx := context.Background()
	r := create(t, directory(t), image.Options{})
	w, err := r.Begin(ctx, spec("files"))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close(ctx)
	if err := w.AddFile(ctx, "vm.vmcx", strings.NewReader("configuration")); err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string]string{"a path": "../vm.vmcx", "a Windows path": `a\b`, "a second of that name": "vm.vmcx", "nothing": "", "a device": "con:"} {
		if err := w.AddFile(ctx, bad, strings.NewReader("x")); err == nil {
			t.Errorf("%s was taken for a name", name)
		}
	}
	w.Warn("careful")
	if _, err := w.Publish(ctx, open); err != nil {
		t.Fatal(err)
	}
	img, err := r.Find(ctx, "task-files")
	if err != nil {
		t.Fatal(err)
	}
	if m := img.Manifest(); m.VM.Name != "web 01" || !m.TakenAt.Equal(epoch) || len(m.Warnings) != 1 {
		t.Errorf("manifest: %+v", m)
	}
	in, err := img.File(ctx, "vm.vmcx")
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if got, err := io.ReadAll(in); err != nil || string(got) != "configuration" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := img.File(ctx, "other"); !errors.Is(err, image.ErrFileNotFound) {
		t.Error(err)
	}
	if _, err := img.Disk(ctx, "d9"); !errors.Is(err, image.ErrDiskNotFound) {
		t.Error(err)
	}
}
