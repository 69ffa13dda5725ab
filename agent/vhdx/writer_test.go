package vhdx_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

const (
	sector   = 512
	modelled = 2<<20 + 3*sector // not a whole number of blocks
)

// owner keeps a chain of files the way a hypervisor does: it records which file is on top of which, and nothing else.
type owner struct {
	journal *journal
	files   map[string]*memory
	chain   []string // topmost first
	made    int
	top     *vhdx.Writer
	guest   []byte // what the guest must read

	marks []mark // after every step that returned
}

// mark is what must be there after a crash.
type mark struct {
	chain  []string
	guest  []byte
	synced bool
	touch  []extent.Extent // what the step that follows may change
}

type tester interface {
	Helper()
	Fatalf(string, ...any)
}

func must(t tester, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("unexpected: %v", err)
	}
}

func newOwner(t tester, block int64) *owner {
	o := &owner{journal: new(journal), files: map[string]*memory{}, guest: make([]byte, modelled)}
	name := o.create(t, vhdx.Options{VirtualSize: modelled, BlockSize: block})
	o.chain = []string{name}
	o.open(t)
	return o
}

func (o *owner) storage(name string) recorder {
	return recorder{memory: o.files[name], name: name, journal: o.journal}
}

func (o *owner) create(t tester, options vhdx.Options) string {
	t.Helper()
	name := fmt.Sprint("disk", o.made)
	o.made++
	o.files[name] = newMemory()
	_, err := vhdx.Create(o.storage(name), options)
	must(t, err)
	return name
}

// done marks the end of a step; synced says that it is durable, and touch what the next step is about to change.
func (o *owner) done(synced bool) {
	o.marks = append(o.marks, mark{chain: append([]string(nil), o.chain...), guest: bytes.Clone(o.guest), synced: synced})
	o.journal.mark = len(o.marks)
}

func openMembers(t tester, files map[string]*memory, names []string) *vhdx.Disk {
	t.Helper()
	if len(names) == 0 {
		return nil
	}
	var members []*vhdx.File
	for _, name := range names {
		f, err := vhdx.Open(files[name], files[name].Size())
		must(t, err)
		members = append(members, f)
	}
	disk, err := vhdx.NewDisk(members...)
	must(t, err)
	return disk
}

// open starts the topmost file for writing, as after a crash of the process.
func (o *owner) open(t tester) {
	t.Helper()
	var err error
	o.top, err = vhdx.OpenWriter(o.storage(o.chain[0]), o.files[o.chain[0]].Size(), openMembers(t, o.files, o.chain[1:]))
	must(t, err)
	o.done(false)
}

func (o *owner) checkpoint(t tester, block int64) {
	t.Helper()
	must(t, o.top.Close())
	ref := vhdx.ParentRef{DataWriteID: o.top.File().DataWriteID(), RelativePath: `.\` + o.chain[0]}
	name := o.create(t, vhdx.Options{VirtualSize: modelled, BlockSize: block, Parent: &ref, VirtualDiskID: o.top.File().VirtualDiskID()})
	o.chain = append([]string{name}, o.chain...)
	o.done(true)
	o.open(t)
}

// merge merges member i of the chain into the one below it by the procedure of the package comment.
func (o *owner) merge(t tester, i int) {
	t.Helper()
	must(t, o.top.Close())
	child, parent := o.chain[i], o.chain[i+1]
	c, err := vhdx.OpenWriter(o.storage(child), o.files[child].Size(), openMembers(t, o.files, o.chain[i+1:]))
	must(t, err)
	p, err := vhdx.OpenWriter(o.storage(parent), o.files[parent].Size(), openMembers(t, o.files, o.chain[i+2:]))
	must(t, err)
	must(t, c.SetParent(vhdx.ParentRef{DataWriteID: p.File().DataWriteID(), MergedID: c.File().DataWriteID(), RelativePath: `.\` + parent}))
	const step = 1<<20 + 7*sector
	for at := int64(0); at < modelled; at += step {
		must(t, vhdx.MergeRange(c.File(), p, extent.Extent{Offset: at, Length: step}))
	}
	must(t, p.FinishMerge(c.File()))
	must(t, p.FinishMerge(c.File()))
	must(t, p.Close())
	o.chain = append(append([]string(nil), o.chain[:i]...), o.chain[i+1:]...)
	o.done(true)
	o.open(t)
}

func (o *owner) write(t tester, off int64, p []byte) {
	t.Helper()
	o.touch(off, int64(len(p)))
	_, err := o.top.WriteAt(p, off)
	must(t, err)
	copy(o.guest[off:], p)
	o.done(false)
}

func (o *owner) clear(t tester, off, length int64, trim bool) {
	t.Helper()
	o.touch(off, length)
	if trim {
		must(t, o.top.Trim(off, length))
	} else {
		must(t, o.top.Zero(off, length))
	}
	clear(o.guest[off : off+length])
	o.done(false)
}

func (o *owner) touch(off, length int64) {
	last := &o.marks[len(o.marks)-1]
	last.touch = append(last.touch, extent.Extent{Offset: off, Length: length})
}

func (o *owner) sync(t tester) {
	t.Helper()
	must(t, o.top.Sync())
	o.done(true)
}

// verify compares what the guest reads, and what the walk reports, with the model.
func verify(t tester, disk *vhdx.Disk, want []byte) {
	t.Helper()
	got := make([]byte, len(want))
	_, err := disk.ReadAt(got, 0)
	must(t, err)
	if i := firstDifference(got, want); i >= 0 {
		t.Fatalf("byte %d is %d, want %d", i, got[i], want[i])
	}
	list, err := extent.Collect(disk.Data(extent.Extent{Length: disk.Size()}))
	must(t, err)
	at := int64(0)
	for _, e := range append(list, extent.Extent{Offset: int64(len(want))}) {
		if i := firstDifference(want[at:e.Offset], make([]byte, e.Offset-at)); i >= 0 {
			t.Fatalf("byte %d is %d but the walk does not report it", at+int64(i), want[at+int64(i)])
		}
		at = e.End()
	}
}

func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

// eachDifference returns the first place where a and b differ and bad is true. Whole sectors are compared first, because there are many.
func eachDifference(a, b []byte, bad func(i int) bool) int {
	for at := 0; at < len(a); at += sector {
		end := min(at+sector, len(a))
		if bytes.Equal(a[at:end], b[at:end]) {
			continue
		}
		for i := at; i < end; i++ {
			if a[i] != b[i] && bad(i) {
				return i
			}
		}
	}
	return -1
}

// fill repeats random bytes at a distance that is no multiple of anything in the format.
func fill(p []byte, random *rand.Rand) {
	n := min(len(p), 4099)
	_, _ = rand.NewChaCha8([32]byte{byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())}).Read(p[:n])
	for ; n < len(p); n *= 2 {
		copy(p[n:], p[:n])
	}
}

// step does something that a guest or a hypervisor does.
func (o *owner) step(t tester, random *rand.Rand) {
	off := random.Int64N(modelled)
	length := 1 + random.Int64N(min(modelled-off, []int64{3 * sector, 100 << 10, modelled}[random.IntN(3)]))
	// Mostly whole sectors, as guests write them, and often whole blocks, because those change tables.
	e := extent.Extent{Offset: off, Length: length}.Align([]int64{1, sector, 1 << 20}[random.IntN(3)], modelled)
	off, length = e.Offset, e.Length
	block := int64(1<<20) << random.IntN(3)
	switch n := random.IntN(20); {
	case n < 9:
		p := make([]byte, length)
		fill(p, random)
		o.write(t, off, p)
	case n < 13:
		o.clear(t, off, length, random.IntN(2) == 0)
	case n < 15:
		o.sync(t)
	case n < 16:
		o.open(t)
	case n < 18 && len(o.chain) < 4:
		o.checkpoint(t, block)
	case n < 19 && len(o.chain) > 1:
		o.merge(t, random.IntN(len(o.chain)-1))
	default:
		must(t, o.top.Close())
		o.done(true)
		o.open(t)
	}
}

// TestWriterAgreesWithAModel drives a chain of files with anything that guests and hypervisors do, and compares it with a slice of bytes.
func TestWriterAgreesWithAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		o := newOwner(t, int64(1<<20)<<random.IntN(3))
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			o.step(t, random)
		}
		verify(t, o.top.Disk(), o.guest)
		verify(t, openMembers(t, o.files, o.chain), o.guest)
	})
}

// history is a disk that is full, mostly below a child, so that bytes of the parent or of the past would show, and what happened to it.
func history(t tester, steps int, random *rand.Rand) *owner {
	o := newOwner(t, int64(1<<20)<<random.IntN(2))
	p := make([]byte, modelled)
	fill(p, random)
	o.write(t, 0, p)
	o.sync(t)
	if random.IntN(3) > 0 {
		o.checkpoint(t, int64(1<<20)<<random.IntN(2))
	}
	for range steps {
		o.step(t, random)
	}
	return o
}

// TestKilledProcess cuts the operations of a random history anywhere: everything that was acknowledged is there, and what was under way is
// old or new, byte by byte.
func TestKilledProcess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		o := history(t, rapid.IntRange(1, 10).Draw(t, "steps"), random)
		start := firstOperation(o.journal, 1)
		for range 2 {
			n := o.journal.anyPoint(start, random)
			files := afterKill(o.journal.operations, n, random)
			at := len(o.marks)
			if n < len(o.journal.operations) {
				at = o.journal.operations[n].mark
			}
			before, after := o.marks[at-1], o.marks[min(at, len(o.marks)-1)]
			checkCrash(t, files, before, after, random, func(got, old, next []byte) int {
				return eachDifference(got, old, func(i int) bool { return got[i] != next[i] })
			})
		}
	})
}

func firstOperation(j *journal, mark int) int {
	for i, o := range j.operations {
		if o.mark >= mark {
			return i
		}
	}
	return len(j.operations)
}

// checkCrash opens the chain of the owner's record as it was before the step that the crash hit, and goes on writing a little in every
// block, which must not bring back anything that the crash left behind.
func checkCrash(t tester, files map[string]*memory, before, after mark, random *rand.Rand, differs func(got, old, next []byte) int) {
	t.Helper()
	got := make([]byte, modelled)
	_, err := openMembers(t, files, before.chain).ReadAt(got, 0)
	must(t, err)
	if i := differs(got, before.guest, after.guest); i >= 0 {
		t.Fatalf("byte %d is %d after the crash; it was %d and was to become %d", i, got[i], before.guest[i], after.guest[i])
	}
	top := files[before.chain[0]]
	w, err := vhdx.OpenWriter(top, top.Size(), openMembers(t, files, before.chain[1:]))
	must(t, err)
	for at := int64(0); at < modelled; at += 1 << 20 {
		off := at + random.Int64N(min(1<<20, modelled-at))
		_, err := w.WriteAt([]byte{0xA5}, off)
		must(t, err)
		got[off] = 0xA5
	}
	verify(t, w.Disk(), got)
	verify(t, openMembers(t, files, before.chain), got)
}

// TestLossOfPower keeps any part of what was written since the last Sync of each file: bytes that were not written since then are there.
func TestLossOfPower(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 2))
		o := history(t, rapid.IntRange(1, 10).Draw(t, "steps"), random)
		start := firstOperation(o.journal, 1)
		for range 2 {
			n := o.journal.anyPoint(start, random)
			at := len(o.marks)
			if n < len(o.journal.operations) {
				at = o.journal.operations[n].mark
			}
			loose := make([]bool, modelled/sector) // written since the last sync
			for i := at - 1; i >= 0; i-- {
				for _, e := range o.marks[i].touch {
					for b := e.Offset / sector; b < (e.End()+sector-1)/sector; b++ {
						loose[b] = true
					}
				}
				if o.marks[i].synced {
					break
				}
			}
			files := afterPowerLoss(o.journal.operations[:n], random)
			before := o.marks[at-1]
			checkCrash(t, files, before, before, random, func(got, old, _ []byte) int {
				return eachDifference(got, old, func(i int) bool { return !loose[i/sector] })
			})
		}
	})
}

// TestZerosThatWereSyncedStay: a block that is written again after it was zeroed gets its old space back. No loss of power may bring back what that
// space held before.
func TestZerosThatWereSyncedStay(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	o := newOwner(t, 1<<20)
	o.write(t, 0, bytes.Repeat([]byte{1}, modelled))
	o.clear(t, 0, 1<<20, false)
	o.sync(t)
	o.write(t, 4096, []byte{2})
	for range 30 {
		got := make([]byte, 1<<20)
		_, err := openMembers(t, afterPowerLoss(o.journal.operations, random), o.chain).ReadAt(got, 0)
		must(t, err)
		clear(got[4096 : 4096+sector])
		if i := firstDifference(got, make([]byte, 1<<20)); i >= 0 {
			t.Fatalf("byte %d is %d again, which was synced as zero", i, got[i])
		}
	}
}
