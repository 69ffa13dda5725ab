package image_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/kopia/kopia/repo/blob"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/test/store"
)

const day = 24 * time.Hour

// locked is a repository in a bucket with object lock, whose images are immutable for four days.
func locked(t *testing.T, mode image.LockMode) (*store.S3, image.Location) {
	t.Helper()
	server := store.StartS3(t)
	server.Bucket("images", true)
	where := at(server, server.Root)
	r := create(t, image.Location{S3: &where}, image.Options{})
	if err := r.Protect(t.Context(), image.Immutability{Mode: mode, Period: 4 * day}); err != nil {
		t.Fatal(err)
	}
	return server, image.Location{S3: &where}
}

// objects are the current versions of what is in the bucket.
func objects(t *testing.T, server *store.S3, prefix string) []string {
	t.Helper()
	var names []string
	for o := range server.Client(server.Root).ListObjects(t.Context(), "images", minio.ListObjectsOptions{Prefix: "tenant-a/" + prefix, Recursive: true}) {
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		names = append(names, o.Key)
	}
	return names
}

// largest is the pack with the data: the others have what describes an image.
func largest(t *testing.T, server *store.S3) string {
	t.Helper()
	var found minio.ObjectInfo
	for o := range server.Client(server.Root).ListObjects(t.Context(), "images", minio.ListObjectsOptions{Prefix: "tenant-a/p", Recursive: true}) {
		if o.Size > found.Size {
			found = o
		}
	}
	return found.Key
}

// lockOf says how an object is locked, and for how many hours from now.
func lockOf(t *testing.T, server *store.S3, object string) (string, float64) {
	t.Helper()
	found, err := server.Client(server.Root).StatObject(t.Context(), "images", object, minio.StatObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mode := found.Metadata.Get("X-Amz-Object-Lock-Mode")
	until, err := time.Parse(time.RFC3339, found.Metadata.Get("X-Amz-Object-Lock-Retain-Until-Date"))
	if err != nil {
		t.Fatalf("%s is locked %q: %v", object, mode, err)
	}
	return mode, time.Until(until).Hours()
}

func TestWhatAnImageNeedsIsLocked(t *testing.T) { // T1, I2
	server, where := locked(t, image.Compliance)
	before := objects(t, server, "q") // how the repository is maintained
	r := create(t, where, image.Options{AppendOnly: true})
	content := random(1, 3*mib)
	backup(t, r, "one", disk("d0"), allocated(content))
	for _, prefix := range []string{"p", "q", "x", "hyperkeep-image-", "kopia.repository", "kopia.blobcfg"} {
		found := objects(t, server, prefix)
		if len(found) == 0 {
			t.Errorf("there is no %s", prefix)
		}
		for _, object := range found {
			if slices.Contains(before, object) {
				continue
			}
			if mode, hours := lockOf(t, server, object); mode != "COMPLIANCE" || hours < 4*24-1 {
				t.Errorf("%s is locked %s for %.1f hours", object, mode, hours)
			}
		}
	}
	refs, err := r.Images(t.Context(), image.ImageFilter{})
	if err != nil || len(refs) != 1 || time.Until(refs[0].LockedUntil).Round(time.Hour) != 4*day {
		t.Errorf("%+v, %v", refs, err)
	}
}

func TestAnImageProlongsTheLocksOfWhatItLinksTo(t *testing.T) {
	server, where := locked(t, image.Governance)
	var c clock
	begin := func() *image.Repository { return create(t, where, image.Options{AppendOnly: true, Now: c.now}) }
	content := random(1, 3*mib)
	backup(t, begin(), "one", disk("d0"), allocated(content))
	data := largest(t, server)
	measured := func() float64 {
		t.Helper()
		_, hours := lockOf(t, server, data)
		return hours
	}
	stored := measured()

	c.ahead.Store(int64(6 * time.Hour)) // the margin lasts
	backup(t, begin(), "two", increment("d0", "one", extent.Extent{Length: 512}), allocated(content))
	if now := measured(); now != stored && stored-now > 0.1 || now > stored {
		t.Errorf("%.2f hours, then %.2f", stored, now)
	}
	c.ahead.Store(int64(3 * day)) // the margin is used up
	backup(t, begin(), "three", increment("d0", "two", extent.Extent{Length: 512}), allocated(content))
	if now := measured(); now < (3+4)*24-1 {
		t.Errorf("what the third image links to is locked for %.2f hours", now)
	}
	prolonged := measured()
	c.ahead.Store(0) // a clock that is behind
	backup(t, begin(), "four", disk("d0"), allocated(content))
	if now := measured(); prolonged-now > 0.1 {
		t.Errorf("a lock was shortened from %.2f hours to %.2f", prolonged, now)
	}
	mustRestore(t, begin(), "three", "d0", content)
}

// The list of a segment that is linked as it is lies with what the base stored, and is as needed as the data.
func TestAnImageProlongsTheLocksOfListsThatItLinksTo(t *testing.T) {
	server, where := locked(t, image.Governance)
	var c clock
	begin := func() *image.Repository { return create(t, where, image.Options{AppendOnly: true, Now: c.now}) }
	twoSegments := func(seed uint64) *memory {
		m := &memory{bytes: make([]byte, image.SegmentSize+2*mib), data: extent.List{{Length: mib}, {Offset: image.SegmentSize, Length: mib}}}
		for _, e := range m.data {
			copy(m.bytes[e.Offset:e.End()], random(seed+uint64(e.Offset), int(e.Length)))
		}
		return m
	}
	backup(t, begin(), "other", disk("d1"), twoSegments(5)) // it has the lists of zeros
	before := objects(t, server, "q")
	content := twoSegments(1)
	backup(t, begin(), "one", disk("d0"), content)
	lists := slices.DeleteFunc(objects(t, server, "q"), func(object string) bool { return slices.Contains(before, object) })

	c.ahead.Store(int64(3 * day))
	backup(t, begin(), "two", increment("d0", "one", extent.Extent{Length: 512}), content)
	held := slices.ContainsFunc(lists, func(object string) bool {
		_, hours := lockOf(t, server, object)
		return hours >= (3+4)*24-1
	})
	if !held {
		t.Error("the list of a segment that the second image links to is locked no longer than for the first")
	}
}

// alike is a storage whose clock is moved on with that of the test.
type alike struct {
	blob.Storage
	clock *clock
}

func (a alike) GetMetadata(ctx context.Context, id blob.ID) (blob.Metadata, error) {
	m, err := a.Storage.GetMetadata(ctx, id)
	m.Timestamp = m.Timestamp.Add(time.Duration(a.clock.ahead.Load()))
	return m, err
}

func TestAnImmutableImageIsNotDeleted(t *testing.T) {
	ctx := context.Background()
	_, where := locked(t, image.Compliance)
	var c clock
	r := create(t, where, image.WithDecorator(image.Options{Now: c.now}, func(inner blob.Storage) blob.Storage { return alike{inner, &c} }))
	content := random(1, mib)
	backup(t, r, "kept", disk("d0"), allocated(content))
	if err := r.Delete(ctx, "kept"); !errors.Is(err, image.ErrLocked) {
		t.Error(err)
	}
	if _, err := r.Maintain(ctx, image.MaintainOptions{Full: true}); err != nil {
		t.Error(err)
	}
	mustRestore(t, r, "kept", "d0", content)
	c.ahead.Store(int64(5 * day))
	if err := r.Delete(ctx, "kept"); err != nil {
		t.Errorf("after the lock: %v", err)
	}
}

func TestImmutabilityIsOnlyTightened(t *testing.T) { // T1: extended, never shortened
	ctx := context.Background()
	server, where := locked(t, image.Compliance)
	r := create(t, where, image.Options{})
	if err := r.Protect(ctx, image.Immutability{Mode: image.Governance, Period: day}); err != nil {
		t.Fatal(err)
	}
	backup(t, create(t, where, image.Options{}), "one", disk("d0"), allocated(random(1, mib)))
	if mode, hours := lockOf(t, server, objects(t, server, "p")[0]); mode != "COMPLIANCE" || hours < 4*24-1 {
		t.Errorf("locked %s for %.1f hours", mode, hours)
	}
	if err := create(t, where, image.Options{AppendOnly: true}).Protect(ctx, image.Immutability{Mode: image.Compliance, Period: 99 * day}); !errors.Is(err, image.ErrAppendOnly) {
		t.Error(err)
	}
}

func TestWhereNothingCanBeLockedIsSaid(t *testing.T) {
	server := store.StartS3(t)
	server.Bucket("images", false)
	plain := at(server, server.Root)
	fake := bucket(t)
	for name, where := range map[string]image.Location{
		"a bucket without object lock": {S3: &plain}, "a store that does not know of it": {S3: &fake}, "a directory": directory(t),
	} {
		err := create(t, where, image.Options{}).Protect(t.Context(), image.Immutability{Mode: image.Compliance, Period: day})
		if !errors.Is(err, image.ErrNoLock) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A lock is worth something only if what was behind it can be had back.
func TestWhatIsLockedOutlivesEveryKey(t *testing.T) { // T1, with the key of root
	server, where := locked(t, image.Compliance)
	content := random(1, 3*mib)
	backup(t, create(t, where, image.Options{}), "one", disk("d0"), allocated(content))
	client := server.Client(server.Root)
	var denied atomic.Int64
	for v := range client.ListObjects(t.Context(), "images", minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		if err := client.RemoveObject(t.Context(), "images", v.Key, minio.RemoveObjectOptions{VersionID: v.VersionID}); err != nil {
			denied.Add(1)
		}
	}
	for _, object := range objects(t, server, "") {
		junk := bytes.NewReader([]byte("junk"))
		if _, err := client.PutObject(t.Context(), "images", object, junk, junk.Size(), minio.PutObjectOptions{SendContentMd5: true}); err != nil {
			t.Error(err)
		}
		if err := client.RemoveObject(t.Context(), "images", object, minio.RemoveObjectOptions{}); err != nil {
			t.Error(err)
		}
	}
	if denied.Load() == 0 {
		t.Error("nothing was locked")
	}
	if _, err := image.Open(t.Context(), where, password, image.Options{WorkDir: t.TempDir()}); !errors.Is(err, image.ErrNoRepository) {
		t.Errorf("the bucket as it is: %v", err)
	}
	for v := range client.ListObjects(t.Context(), "images", minio.ListObjectsOptions{Recursive: true, WithVersions: true}) {
		if v.IsDeleteMarker || v.Size == int64(len("junk")) { // what came later
			if err := client.RemoveObject(t.Context(), "images", v.Key, minio.RemoveObjectOptions{VersionID: v.VersionID}); err != nil {
				t.Error(err)
			}
		}
	}
	mustRestore(t, create(t, where, image.Options{}), "one", "d0", content)
}
