package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/content"
	"pgregory.net/rapid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

// machine is a VM whose disks change, come and go, and what each image of it has to restore to. A keeper collects next to it, as carefully as in
// earnest, while the calendar goes on.
type machine struct {
	*rapid.T
	t            *testing.T
	where        Location
	calendar     *calendar
	repo, keeper *Repository
	disks        map[string]*pausing
	changed      map[string]extent.List // since the newest image
	newest       string
	images       map[string]map[string][]byte
	count        int

	damages damages
	parts   map[string]map[string][]content.ID // of images: what they consist of, as far as that is known
	found   bool                               // that there is damage, since the last backup
}

func (m *machine) disk() string {
	return rapid.SampledFrom(slices.Sorted(maps.Keys(m.disks))).Draw(m.T, "disk")
}

func (m *machine) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

// tolerate lets pass what says that it met damage, where there is some.
func (m *machine) tolerate(err error) {
	m.Helper()
	if len(m.damages) == 0 || !errors.Is(err, ErrDamaged) {
		m.must(err)
	}
}

// add is a new disk with something on it; resize is one in its place.
func (m *machine) add(key string) {
	size := rapid.SampledFrom([]int64{512, LeafSize, 3*LeafSize + 512, SegmentSize + LeafSize}).Draw(m.T, "size")
	m.disks[key] = &pausing{bytes: make([]byte, size), read: func(int64) {}}
	delete(m.changed, key) // no increment can stand on what was before
	m.write(key)
}

func (m *machine) write(key string) {
	d := m.disks[key]
	at := rapid.Int64Range(0, d.Size()-1).Draw(m.T, "offset")
	e := extent.Extent{Offset: at, Length: rapid.Int64Range(1, min(d.Size()-at, 2*LeafSize)).Draw(m.T, "length")}
	seed := byte(rapid.IntRange(0, 3).Draw(m.T, "seed")) // few: what was collected comes back
	rand.NewChaCha8([32]byte{seed}).Read(d.bytes[e.Offset:e.End()])
	d.data = extent.Normalize(append(slices.Clone(d.data), e))
	if changed, tracked := m.changed[key]; tracked {
		m.changed[key] = extent.Normalize(append(slices.Clone(changed), e))
	}
}

var errCrash = errors.New("crash")

// backup publishes an image, or crashes before it does. Something may happen while it reads.
func (m *machine) backup(gate error, meanwhile func()) {
	m.count++
	id, ctx := fmt.Sprint(m.count), context.Background()
	w, err := m.repo.Begin(ctx, ImageSpec{ID: id, TaskUID: id, VM: VM{ID: "vm", Name: "vm", Host: "hv"}, TakenAt: m.calendar.now()})
	m.must(err)
	defer w.Close(ctx)
	want := map[string][]byte{}
	for _, key := range slices.Sorted(maps.Keys(m.disks)) {
		m.must(m.addDisk(w, key))
		want[key] = bytes.Clone(m.disks[key].bytes)
	}
	meanwhile()
	_, err = w.Publish(ctx, func(context.Context) error { return gate })
	if gate != nil && errors.Is(err, gate) {
		return
	}
	if errors.Is(err, ErrBaseUnusable) {
		return // loud, and not published
	}
	if errors.Is(err, ErrDamaged) && len(m.damages) > 0 {
		m.found = true
		return // as above
	}
	m.must(err)
	m.images[id], m.parts[id], m.newest = want, m.partsOf(id), id
	if m.found {
		m.repaired(id)
	}
	for key := range m.disks {
		m.changed[key] = nil
	}
}

// addDisk reads what changed, or everything once damage was found.
func (m *machine) addDisk(w *Writer, key string) error {
	spec := DiskSpec{Key: key, Name: key, VirtualDiskID: key, Repair: m.found}
	if changed, tracked := m.changed[key]; tracked && m.images[m.newest] != nil && !m.found {
		spec.Increment = &Increment{BaseImageID: m.newest, Changed: changed.Seq()}
	}
	_, err := w.AddDisk(context.Background(), spec, m.disks[key], nil)
	if errors.Is(err, ErrBaseUnusable) && len(m.damages) > 0 {
		spec.Increment, spec.Repair = nil, true
		_, err = w.AddDisk(context.Background(), spec, m.disks[key], nil)
	}
	return err
}

func (m *machine) drop() {
	if len(m.images) == 0 {
		return
	}
	id := rapid.SampledFrom(slices.Sorted(maps.Keys(m.images))).Draw(m.T, "image")
	m.tolerate(m.keeper.Delete(context.Background(), id))
	delete(m.images, id)
	delete(m.parts, id)
}

func (m *machine) collect() {
	m.calendar.advance(time.Duration(rapid.IntRange(1, 40).Draw(m.T, "hours")) * time.Hour)
	_, err := m.keeper.Maintain(context.Background(), MaintainOptions{Full: true})
	m.tolerate(err)
}

// AC-13: whatever is written, resized, added, backed up, deleted, collected and crashed in whatever order, also while a backup runs, every image that was
// published and not deleted restores to the byte.
func TestWhatIsKeptOutlivesWhatIsCollected(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newCalendar()
		where := Location{Filesystem: &FilesystemLocation{Path: filepath.Join(t.TempDir(), "repository")}}
		repo, err := OpenOrCreate(t.Context(), where, "correct horse", c.options(t))
		if err != nil {
			rt.Fatal(err)
		}
		defer repo.Close(context.Background())
		keeper, err := Open(t.Context(), where, "correct horse", c.options(t))
		if err != nil {
			rt.Fatal(err)
		}
		defer keeper.Close(context.Background())
		m := &machine{
			T: rt, t: t, where: where, calendar: c, repo: repo, keeper: keeper, damages: damages{}, parts: map[string]map[string][]content.ID{},
			disks: map[string]*pausing{}, changed: map[string]extent.List{}, images: map[string]map[string][]byte{},
		}
		m.add("d0")
		rt.Repeat(map[string]func(*rapid.T){
			"write":  func(*rapid.T) { m.write(m.disk()) },
			"resize": func(*rapid.T) { m.add(m.disk()) },
			"add":    func(*rapid.T) { m.add("d1") },
			"remove": func(*rapid.T) { delete(m.disks, "d1"); delete(m.changed, "d1") },
			"backup": func(*rapid.T) { m.backup(nil, func() {}) },
			"crash":  func(*rapid.T) { m.backup(errCrash, func() {}) },
			"backup next to a keeper": func(*rapid.T) {
				m.backup(nil, func() { m.drop(); m.collect() })
			},
			"delete":  func(*rapid.T) { m.drop() },
			"collect": func(*rapid.T) { m.collect() },
			"corrupt": func(*rapid.T) { m.corrupt() },
			"verify":  func(*rapid.T) { m.check() },
		})
		m.check()
	})
}
