package image_test

import (
	"bytes"
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/blob"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

func TestABaseThatCannotBeUsedDemotesOnlyItsDisk(t *testing.T) { // AC-12, AC-14
	ctx := context.Background()
	r := create(t, directory(t), image.Options{})
	content := random(1, 2*mib)
	backup(t, r, "one", disk("d0"), allocated(content))
	change := extent.Extent{Length: 512}
	replaced := increment("d0", "one", change)
	replaced.VirtualDiskID = "another"
	for name, test := range map[string]struct {
		disk image.DiskSpec
		src  image.Source
	}{
		"the image does not exist":    {increment("d0", "none", change), allocated(content)},
		"no image is named":           {increment("d0", "", change), allocated(content)},
		"the image lacks the disk":    {increment("d1", "one", change), allocated(content)},
		"the disk grew":               {increment("d0", "one", change), allocated(append(bytes.Clone(content), 1))},
		"the disk shrank":             {increment("d0", "one", change), allocated(content[:mib])},
		"another disk took its place": {replaced, allocated(content)},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := r.Begin(ctx, spec("two"))
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close(ctx)
			if _, err := w.AddDisk(ctx, test.disk, test.src, nil); !errors.Is(err, image.ErrBaseUnusable) {
				t.Fatalf("got %v", err)
			}
			test.disk.Increment = nil
			if d, err := w.AddDisk(ctx, test.disk, test.src, nil); err != nil || d.Type != image.Full {
				t.Errorf("%+v, %v", d, err)
			}
			if d, err := w.AddDisk(ctx, increment("d0", "one", change), allocated(content), nil); test.disk.Key != "d0" && (err != nil || d.Type != image.Incremental) {
				t.Errorf("the other disk: %+v, %v", d, err)
			}
		})
	}
}

func TestChangesOutOfOrderAreRefused(t *testing.T) { // I3: never guess
	r := create(t, directory(t), image.Options{})
	content := random(1, 2*mib)
	backup(t, r, "one", disk("d0"), allocated(content))
	d := disk("d0")
	d.Increment = &image.Increment{BaseImageID: "one", Changed: extent.Of(extent.Extent{Offset: mib, Length: 512}, extent.Extent{Length: 512})}
	if _, err := tryBackup(r, "two", d, allocated(content)); err == nil || errors.Is(err, image.ErrBaseUnusable) {
		t.Error(err)
	}
}

func TestBaseRecordsAreListedNewestFirst(t *testing.T) {
	ctx := context.Background()
	var c clock
	r := create(t, directory(t), image.Options{Now: c.now})
	add := func(img, vm, point string) {
		t.Helper()
		c.ahead.Add(int64(time.Second))
		err := r.AppendBaseRecord(ctx, image.BaseRecord{
			ImageID: img, VMID: vm, ReferencePointID: point, Disks: []image.BaseDisk{{Key: "d0", TrackingID: "rct:1", VirtualDiskID: "v", Size: mib}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	expect := func(vm string, want ...string) {
		t.Helper()
		records, err := r.BaseRecords(ctx, vm)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, record := range records {
			got = append(got, record.ImageID+" "+record.ReferencePointID+" "+record.Disks[0].TrackingID)
		}
		if len(got) != len(want) {
			t.Fatalf("%s has %q in place of %q", vm, got, want)
		}
		for i := range want {
			if got[i] != want[i]+" rct:1" {
				t.Errorf("%s has %q in place of %q", vm, got, want)
			}
		}
	}
	expect("vm1")
	add("one", "vm1", "p1")
	add("two", "vm1", "p2")
	add("one", "vm1", "p1") // a repeated step
	add("three", "vm2", "p3")
	expect("vm1", "two p2", "one p1")
	expect("vm2", "three p3")
	if err := r.Delete(ctx, "two"); err != nil {
		t.Fatal(err)
	}
	expect("vm1", "one p1")
	if err := r.AppendBaseRecord(ctx, image.BaseRecord{ImageID: "one"}); err == nil {
		t.Error("a record of nothing was accepted")
	}
}

// Of the segments that nobody wrote to nothing is read, in an increment as in a full image.
func TestAnIncrementKnowsTheZerosOfItsBase(t *testing.T) {
	var gets, got, put atomic.Int64
	r := create(t, directory(t), image.WithDecorator(image.Options{}, func(inner blob.Storage) blob.Storage {
		return counted{inner, &gets, &got, &put}
	}))
	src := &sparse{size: 64 << 30, fill: func(int64) byte { return 1 }, data: extent.List{{Offset: 5 << 30, Length: mib}, {Offset: 60 << 30, Length: mib}}}
	backup(t, r, "one", disk("d0"), src)
	src.fill = func(int64) byte { return 2 }
	backup(t, r, "two", increment("d0", "one", src.data[1]), src)
	backup(t, r, "three", increment("d0", "two", src.data[1]), src)
	for _, id := range []string{"one", "two", "three"} {
		gets.Store(0)
		img, err := r.Image(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.Disk(t.Context(), "d0")
		if err != nil {
			t.Fatal(err)
		}
		found, err := extent.Collect(d.Data(extent.Extent{Length: d.Size()}))
		if err != nil || found.Bytes() != 2*mib {
			t.Errorf("image %s has data at %v, %v", id, found, err)
		}
		if n := gets.Load(); n > 20 {
			t.Errorf("%d requests to find two pieces of data in image %s", n, id)
		}
	}
}
