package image_test

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/kopia/kopia/repo/blob"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

// writeFault is what becomes of the writes of a backup from the nth on, or of the nth alone.
type writeFault struct {
	err   error
	alone bool
	want  error // what the backup has to say
}

// failingWrites is a storage whose writes can be made to fail.
type failingWrites struct {
	fault  writeFault
	active bool
	left   int
	hit    bool
}

func (f *failingWrites) fail(op string, _ blob.ID) error {
	if !f.active || op != "put" {
		return nil
	}
	f.left--
	if f.left >= 0 || f.fault.alone && f.hit {
		return nil
	}
	f.hit = true
	return f.fault.err
}

// I1, I5: whatever becomes of whichever write of a backup, what it published restores, and otherwise nothing is published. The next run succeeds, and when
// all images are deleted nothing is left of any run.
func TestAnyWriteOfABackupMayFail(t *testing.T) {
	for name, fault := range map[string]writeFault{
		"the storage is full":    {err: errFull, want: image.ErrFull},
		"the connection is lost": {err: &os.PathError{Op: "write", Path: "blob", Err: syscall.ECONNRESET}, want: image.ErrUnreachable},
		"a write was not synced": {err: errUnsynced, want: image.ErrDamaged, alone: true},
	} {
		t.Run(name, func(t *testing.T) {
			fails := &failingWrites{fault: fault}
			store := &faulty{fail: fails.fail}
			var c clock
			r := create(t, directory(t), image.WithDecorator(image.Options{Parallelism: 1, Compression: image.CompressionNone, Now: c.now}, store.wrap))
			clean := stored(t, r)
			for writes := 0; ; writes++ {
				fails.left, fails.hit = writes, false
				if !backsUpTwice(t, r, fails, uint64(writes+1)) {
					if writes < 8 {
						t.Fatalf("a full backup and an increment made %d writes", writes)
					}
					break
				}
			}
			if !errors.Is(fault.err, errUnsynced) { // what was lost does not lie about, and maintenance that is in a hurry stops where it is missed
				leavesNothing(t, r, &c, clean)
			}
		})
	}
}

// backsUpTwice makes a full image and an increment while one of their writes fails, then both again. It says whether there was such a write.
func backsUpTwice(t *testing.T, r *image.Repository, fails *failingWrites, seed uint64) bool {
	t.Helper()
	before := allocated(random(seed, 4*mib+5))
	after := allocated(append(before.bytes[:0:0], before.bytes...))
	change := extent.Extent{Offset: 3*mib + 100, Length: 4096}
	copy(after.bytes[change.Offset:change.End()], random(seed<<8, 4096))
	runs := []func() error{
		func() error { _, err := tryBackup(r, "full", disk("d0"), before); return err },
		func() error { _, err := tryBackup(r, "increment", increment("d0", "full", change), after); return err },
	}
	want := map[string][]byte{}
	for i, run := range runs {
		id, content := []string{"full", "increment"}[i], []*memory{before, after}[i].bytes
		fails.active = true
		err := run()
		fails.active = false
		switch published := len(mustList(t, r)) > len(want); {
		case err == nil && published:
		case err == nil:
			t.Fatalf("%s: it succeeded, and there is no image", id)
		case published:
			t.Fatalf("%s: it failed, and there is an image: %v", id, err)
		case !errors.Is(err, fails.fault.want):
			t.Fatalf("%s: %v", id, err)
		default:
			if err := run(); err != nil {
				t.Fatalf("%s: the next run: %v", id, err)
			}
		}
		want[id] = content
	}
	fresh, err := image.Fresh(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close(context.Background())
	for id, content := range want {
		mustRestore(t, fresh, id, "d0", content)
		err := r.Delete(t.Context(), id)
		if errors.Is(err, image.ErrDamaged) { // the write that was lost had the snapshot for stock kopia in it, which the next maintenance sees to
			if _, err := r.Maintain(t.Context(), image.MaintainOptions{}); err != nil {
				t.Fatal(err)
			}
			err = r.Delete(t.Context(), id)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return fails.hit
}

func mustList(t *testing.T, r *image.Repository) []image.ImageRef {
	t.Helper()
	found, err := r.Images(context.Background(), image.ImageFilter{})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// leavesNothing frees what no image uses, and compares with what there was before the first.
func leavesNothing(t *testing.T, r *image.Repository, c *clock, clean int64) {
	t.Helper()
	collect(t, r, c)
	if left := stored(t, r) - clean; left > mib {
		t.Errorf("%d bytes are left of images that are gone and of backups that failed", left)
	}
}
