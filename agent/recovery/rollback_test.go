package recovery

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// changed is a VHDX file with the disk of the image, and then with what a guest wrote, zeroed and trimmed.
func changed(t *testing.T, source *image.DiskReader) *volatile {
	t.Helper()
	file := &volatile{left: 1 << 20}
	target, err := Create(file, VHDX, source.Record(), uuid.New())
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Copy{Source: source, Target: target}).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	disk := target.(*vhdx.Writer)
	for _, at := range []int64{mib + 4096, 63*mib + 512, 100 * mib, 199 * mib} { // in data, over two windows' border, in a hole, near the end
		if _, err := disk.WriteAt(bytes.Repeat([]byte("guest"), 1000), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(disk.Zero(5*mib, 8192), disk.Trim(130*mib, 4*mib), disk.Close()); err != nil {
		t.Fatal(err)
	}
	return file
}

// A rollback gives the bytes of the image back, into a child of the disk, which stays what it was until the child is merged into it. It may lose power at
// any point.
func TestARollbackWritesWhatDiffers(t *testing.T) {
	content := scattered()
	source := openDisk(t, backedUp(t, map[string]*memory{"d0": content}), "d0")
	base := changed(t, source)
	before := bytes.Clone(contentOf(t, base, VHDX))
	child := &volatile{}
	for n := 6; ; n *= 2 {
		child.left = n
		rewritten, err := rollBackInto(t, child, base, source)
		if errors.Is(err, errPower) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if rewritten > 6*mib {
			t.Errorf("%d bytes were written", rewritten)
		}
		break
	}
	if !bytes.Equal(contentOf(t, base, VHDX), before) {
		t.Fatal("the disk beneath changed")
	}
	if !bytes.Equal(throughChain(t, child, base), content.bytes) {
		t.Fatal("the disk is not that of the image")
	}
	again, err := rollBackInto(t, child, base, source)
	if err != nil || again != 0 {
		t.Errorf("a second time %d bytes were written: %v", again, err)
	}
}

// rollBackInto makes the child, or opens it as far as it came.
func rollBackInto(t *testing.T, child, base *volatile, source *image.DiskReader) (int64, error) {
	target, err := OpenChild(child, int64(len(child.now)), chainOf(t, base), "base.vhdx")
	if err != nil {
		return 0, err
	}
	job := Rollback{Source: source, Target: target, Parallelism: 2}
	err = job.Run(context.Background())
	if err == nil {
		err = target.Close()
	}
	return job.Rewritten.Load(), err
}

func chainOf(t *testing.T, files ...*volatile) *vhdx.Disk {
	t.Helper()
	var members []*vhdx.File
	for _, file := range files {
		member, err := vhdx.Open(file, int64(len(file.now)))
		if err != nil {
			t.Fatal(err)
		}
		members = append(members, member)
	}
	disk, err := vhdx.NewDisk(members...)
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

func throughChain(t *testing.T, files ...*volatile) []byte {
	disk := chainOf(t, files...)
	got := make([]byte, disk.Size())
	if _, err := disk.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	return got
}

// Merging brings the rollback into the disk itself. A loss of power at any point leaves a child that reads as the image, until it is merged.
func TestAMergedRollbackIsTheDisk(t *testing.T) {
	content := scattered()
	source := openDisk(t, backedUp(t, map[string]*memory{"d0": content}), "d0")
	base, child := changed(t, source), &volatile{left: 1 << 20}
	if _, err := rollBackInto(t, child, base, source); err != nil {
		t.Fatal(err)
	}
	for n := 2; ; n += 5 {
		base.left, child.left = n, n
		err := Merge(t.Context(), child, int64(len(child.now)), base, int64(len(base.now)), "base.vhdx")
		if !bytes.Equal(throughChain(t, child, base), content.bytes) {
			t.Fatalf("after %d changes, the child does not read as the image", n)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, errPower) {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(contentOf(t, base, VHDX), content.bytes) {
		t.Fatal("the disk is not that of the image")
	}
}

// The image says what differs without being read.
func TestEqualDisksAreNotFetched(t *testing.T) {
	content := scattered()
	source := openDisk(t, backedUp(t, map[string]*memory{"d0": content}), "d0")
	for at := int64(0); at < source.Size(); at += piece {
		end := min(at+piece, source.Size())
		if differing, err := source.Differing(content.bytes[at:end], at); err != nil || len(differing) > 0 {
			t.Fatalf("at %d: %v, %v", at, differing, err)
		}
	}
	other := bytes.Clone(content.bytes[:piece])
	other[3*mib+5] ^= 1
	if differing, err := source.Differing(other, 0); err != nil || len(differing) != 1 || differing[0] != (extent.Extent{Offset: 3 * mib, Length: mib}) {
		t.Errorf("%v, %v", differing, err)
	}
}
