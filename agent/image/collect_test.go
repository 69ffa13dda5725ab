package image

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kopia/kopia/fs"
	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/repo/object"
	"github.com/kopia/kopia/snapshot"
)

func emptyRepository(t testing.TB) *Repository {
	t.Helper()
	where := Location{Filesystem: &FilesystemLocation{Path: filepath.Join(t.TempDir(), "repository")}}
	r, err := OpenOrCreate(t.Context(), where, "correct horse", WithFastPassword(Options{WorkDir: t.TempDir()}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return r
}

// forest stores images of the right shape whose leaves are eight bytes, whatever length the lists give them.
type forest struct {
	t     testing.TB
	repo  *Repository
	w     repo.DirectRepositoryWriter
	disks [][]object.ID // by VM: its segments
	next  uint64
}

func (f *forest) leaf() object.ID {
	f.next++
	return f.object(binary.LittleEndian.AppendUint64(nil, f.next), "")
}

func (f *forest) object(data []byte, prefix content.IDPrefix) object.ID {
	f.t.Helper()
	out := f.w.NewObjectWriter(f.t.Context(), object.WriterOptions{Prefix: prefix})
	defer out.Close()
	if _, err := out.Write(data); err != nil {
		f.t.Fatal(err)
	}
	id, err := out.Result()
	if err != nil {
		f.t.Fatal(err)
	}
	return id
}

func (f *forest) list(length int64, objects []object.ID) object.ID {
	f.t.Helper()
	var entries []entry
	for i, id := range objects {
		entries = append(entries, entry{Start: int64(i) * length, Length: length, Object: id})
	}
	id, err := writeList(f.t.Context(), f.w, slices.Values(entries))
	if err != nil {
		f.t.Fatal(err)
	}
	return id
}

func (f *forest) segment() object.ID {
	leaves := make([]object.ID, leavesPerSegment)
	for i := range leaves {
		leaves[i] = f.leaf()
	}
	return f.list(LeafSize, leaves)
}

// image publishes one that shares all segments with the one before but one.
func (f *forest) image(vm, n int) {
	f.t.Helper()
	segments := f.disks[vm]
	segments[n%len(segments)] = f.segment()
	id := fmt.Sprintf("vm-%d-%d", vm, n)
	writer := &Writer{repo: f.repo, kopia: f.w}
	m := Manifest{ID: id, TakenAt: time.Now(), Disks: []DiskRecord{{
		File: "disks/d0.raw", Size: int64(len(segments)) * SegmentSize, Root: f.list(SegmentSize, segments).String(),
	}}}
	root, err := writer.storeDirectories(f.t.Context(), m, f.object([]byte(id), ""), int64(len(id)))
	if err != nil {
		f.t.Fatal(err)
	}
	visible := marker{
		Version: formatVersion, ID: id, TaskUID: id, VM: VM{ID: fmt.Sprint(vm), Name: fmt.Sprint(vm), Host: "hv"}, Root: root,
		TakenAt: m.TakenAt, StoredAt: m.TakenAt, Digest: fmt.Sprintf("%x", sha256.Sum256([]byte(id))),
	}
	if err := f.repo.session.markers.create(f.t.Context(), visible, immutability{}.put()); err != nil {
		f.t.Fatal(err)
	}
	if _, err := snapshot.SaveSnapshot(f.t.Context(), f.w, visible.snapshot()); err != nil {
		f.t.Fatal(err)
	}
}

// grow gives each VM images up to a number.
func (f *forest) grow(from, to int) {
	f.t.Helper()
	for vm := range f.disks {
		for n := from; n < to; n++ {
			f.image(vm, n)
		}
	}
	if err := f.w.Flush(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
}

func newForest(t testing.TB, vms, segments int) *forest {
	r := emptyRepository(t)
	_, w, err := r.session.NewDirectWriter(t.Context(), repo.WriteSessionOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close(context.Background()) })
	f := &forest{t: t, repo: r, w: w, disks: make([][]object.ID, vms)}
	for vm := range f.disks {
		for range segments {
			f.disks[vm] = append(f.disks[vm], f.segment())
		}
	}
	return f
}

// marked walks from all images and tells how many contents it found.
func (f *forest) marked() (n int) {
	f.t.Helper()
	images, err := f.repo.session.markers.list(f.t.Context(), ImageFilter{})
	if err != nil {
		f.t.Fatal(err)
	}
	from, err := roots(f.t.Context(), f.w, images, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	reach := newReach(f.w, f.repo.opts)
	defer reach.close()
	if err := reach.walk(f.t.Context(), from); err != nil || reach.damage != nil {
		f.t.Fatal(err, reach.damage)
	}
	for _, set := range []*nameSet{reach.data, reach.metadata} {
		for first := range set.buckets {
			names, err := set.bucket(byte(first))
			if err != nil {
				f.t.Fatal(err)
			}
			n += len(names)
		}
	}
	return n
}

// R4: every content of an image is found, those of several lists too, and however often images share it, it is looked into once.
func TestMarkFindsWhatImagesNeedOnce(t *testing.T) {
	f := newForest(t, 2, 3)
	f.grow(0, 4)
	n := f.marked()
	// Three segments at first, of which the first image replaces one unpublished, and one more with each image. A root list, three directories and a
	// manifest for each image.
	segments := 2 * (2 + 4)
	if want := segments*(leavesPerSegment+1) + 8*5; n != want {
		t.Errorf("%d contents, want %d", n, want)
	}
}

func TestNameSetIsAsLargeAsItsFile(t *testing.T) {
	dir := t.TempDir()
	s := newNameSet(dir)
	var want [256]map[name]bool
	rng := [32]byte{1}
	for range 3 * 256 * bucketNames {
		rng = sha256.Sum256(rng[:8])
		n := name(rng[:nameBytes])
		if want[n[nameHash]] == nil {
			want[n[nameHash]] = map[name]bool{}
		}
		want[n[nameHash]][n] = true
		for range 2 {
			if err := s.add(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	if s.file == nil {
		t.Error("everything stayed in memory")
	}
	for first := range want {
		names, err := s.bucket(byte(first))
		if err != nil || len(names) != len(want[first]) || !slices.IsSortedFunc(names, name.compare) {
			t.Fatalf("bucket %d has %d names of %d: %v", first, len(names), len(want[first]), err)
		}
		for _, n := range names {
			if !want[first][n] {
				t.Fatalf("%x was never added", n)
			}
		}
	}
	if err := s.close(); err != nil {
		t.Error(err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// maintainNow collects as if nobody else were there.
func maintainNow(t *testing.T, r *Repository) (Maintained, error) {
	t.Helper()
	return r.Maintain(t.Context(), MaintainOptions{Full: true, Safety: SafetyNone})
}

func (f *forest) contentsOf(id object.ID) []content.ID {
	f.t.Helper()
	all, err := f.repo.session.VerifyObject(f.t.Context(), id)
	if err != nil {
		f.t.Fatal(err)
	}
	return all
}

func (f *forest) deleted(id content.ID) bool {
	f.t.Helper()
	if err := f.repo.refresh(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	info, err := f.repo.session.ContentInfo(f.t.Context(), id)
	return err != nil || info.Deleted
}

// What stock kopia can do with the password alone, mark contents as deleted, is taken back from what images need.
func TestMaintenanceRecoversWhatWasMarkedAsDeleted(t *testing.T) {
	f := newForest(t, 1, 1)
	f.grow(0, 1)
	needed := f.contentsOf(f.disks[0][0])
	for _, id := range needed {
		if err := f.w.ContentManager().DeleteContent(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	done, err := maintainNow(t, f.repo)
	if err != nil || done.RecoveredBytes == 0 {
		t.Fatalf("%+v, %v", done, err)
	}
	for _, id := range needed {
		if f.deleted(id) {
			t.Errorf("%s is lost", id)
		}
	}
}

// A person's own snapshots in the same repository are needed too: files and folders of any depth.
func TestMaintenanceHonoursOtherSnapshots(t *testing.T) {
	f := newForest(t, 1, 1)
	f.grow(0, 1)
	file := f.object([]byte("a file of somebody"), "")
	directory := func(name string, e *snapshot.DirEntry) *snapshot.DirEntry {
		listing := fmt.Appendf(nil, `{"stream":"kopia:directory","entries":[{"name":%q,"type":%q,"obj":%q}]}`, e.Name, e.Type, e.ObjectID)
		return &snapshot.DirEntry{Name: name, Type: snapshot.EntryTypeDirectory, ObjectID: f.object(listing, "k")}
	}
	inner := directory("inner", &snapshot.DirEntry{Name: "file", Type: snapshot.EntryTypeFile, ObjectID: file})
	outer := directory("outer", inner)
	now := fs.UTCTimestampFromTime(time.Now())
	foreign := &snapshot.Manifest{Source: snapshot.SourceInfo{UserName: "me", Host: "pc", Path: "/home"}, StartTime: now, EndTime: now, RootEntry: outer}
	if _, err := snapshot.SaveSnapshot(t.Context(), f.w, foreign); err != nil {
		t.Fatal(err)
	}
	junk := f.object([]byte("nobody needs it"), "")
	if err := f.w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := maintainNow(t, f.repo); err != nil {
		t.Fatal(err)
	}
	for _, e := range []object.ID{file, inner.ObjectID, outer.ObjectID} {
		if id, _, _ := e.ContentID(); f.deleted(id) {
			t.Errorf("%s is lost", e)
		}
	}
	if id, _, _ := junk.ContentID(); !f.deleted(id) {
		t.Error("garbage stays")
	}
}

// What lies beneath a list that cannot be read is not known: nothing is deleted then, and the message says so.
func TestMaintenanceDeletesNothingWhileAListIsDamaged(t *testing.T) {
	f := newForest(t, 1, 2)
	f.grow(0, 1)
	junk := f.object([]byte("nobody needs it"), "")
	bad, err := object.ParseID("Ix00000000000000000000000000000000")
	if err != nil {
		t.Fatal(err)
	}
	f.disks[0][1] = bad
	f.grow(2, 3) // replaces the first segment, and publishes the second
	if _, err := maintainNow(t, f.repo); !errors.Is(err, ErrDamaged) {
		t.Fatalf("%v", err)
	}
	if id, _, _ := junk.ContentID(); f.deleted(id) {
		t.Error("something was deleted")
	}
	if err := f.repo.Delete(t.Context(), "vm-0-2"); err != nil {
		t.Fatal(err)
	}
	if _, err := maintainNow(t, f.repo); err != nil {
		t.Fatal(err)
	}
	if id, _, _ := junk.ContentID(); !f.deleted(id) {
		t.Error("garbage stays when the damaged image is gone")
	}
}

func TestClocksAreTrustedWhileTheyGoEvenly(t *testing.T) { // T4
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	var earlier []maintenance.RunInfo
	for _, step := range []struct {
		after   time.Duration
		trusted bool
		why     string
	}{
		{0, true, "the first time"},
		{time.Hour, true, "an hour later"},
		{13 * 24 * time.Hour, true, "after a fortnight's holiday"},
		{400 * 24 * time.Hour, false, "a year ahead"},
		{2 * 24 * time.Hour, false, "two days after the leap"},
		{23 * time.Hour, false, "not quite three"},
		{time.Hour, true, "three days after it"},
		{-400 * 24 * time.Hour, false, "the clock was put back"},
		{time.Hour, false, "soon after"},
		{3 * 24 * time.Hour, true, "three days later"},
		{-4 * time.Minute, true, "a little back"},
	} {
		start = start.Add(step.after)
		check, err := nextCheck(earlier, start)
		if (err == nil) != step.trusted {
			t.Errorf("%s: %v", step.why, err)
		}
		earlier = []maintenance.RunInfo{check}
	}
}
