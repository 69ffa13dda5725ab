package image_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/image"
)

const (
	kib   = int64(1 << 10)
	grain = image.GrainSize
)

// A leaf of which a part changed costs its size once. Afterwards only what changed in it is read and stored, until a full read merges it.
func TestLeavesSplitWhereTheyChange(t *testing.T) {
	const size = 130*mib + 100*kib + 512
	src := &memory{bytes: make([]byte, size), data: extent.List{{Length: 70 * mib}, {Offset: 129 * mib, Length: size - 129*mib}}}
	for _, e := range src.data {
		copy(src.bytes[e.Offset:e.End()], random(uint64(e.Offset), int(e.Length)))
	}
	r := create(t, directory(t), image.Options{})
	backup(t, r, "0", disk("d0"), src)
	steps := []struct {
		name                          string
		change                        extent.List
		zero                          bool
		newLeaves, newBytes, read     int64
		zeroLeaves, zeroBytes, leaves int64
	}{
		{
			name: "a sector in a whole leaf splits it", change: extent.List{{Offset: 3*mib + 5*grain, Length: 512}},
			newLeaves: 16, newBytes: mib, read: mib, leaves: 131 + 15,
		},
		{
			name: "a sector in a split leaf costs a grain", change: extent.List{{Offset: 3*mib + 9*grain + 512, Length: 512}},
			newLeaves: 1, newBytes: grain, read: grain, leaves: 131 + 15,
		},
		{
			name: "a write across two grains costs both", change: extent.List{{Offset: 3*mib + 10*grain - 512, Length: 1024}},
			newLeaves: 2, newBytes: 2 * grain, read: 2 * grain, leaves: 131 + 15,
		},
		{
			name: "a leaf without data is split without being read", change: extent.List{{Offset: 100*mib + grain, Length: grain}},
			newLeaves: 1, newBytes: grain, read: grain, leaves: 131 + 30,
		},
		{
			name: "zeros in a split leaf are not stored", change: extent.List{{Offset: 3*mib + 2*grain, Length: grain}}, zero: true,
			read: grain, zeroLeaves: 1, zeroBytes: grain, leaves: 131 + 30,
		},
		{
			name: "a leaf that changed throughout is whole again", change: extent.List{{Offset: 3 * mib, Length: mib}},
			newLeaves: 1, newBytes: mib, read: mib, leaves: 131 + 15,
		},
		{
			name: "a last leaf splits into grains and a rest", change: extent.List{{Offset: size - 1, Length: 1}},
			newLeaves: 2, newBytes: 100*kib + 512, read: 100*kib + 512, leaves: 131 + 15 + 1,
		},
		{
			name: "the rest of a last leaf", change: extent.List{{Offset: size - 1, Length: 1}},
			newLeaves: 1, newBytes: 36*kib + 512, read: 36*kib + 512, leaves: 131 + 15 + 1,
		},
	}
	for n, step := range steps {
		t.Run(step.name, func(t *testing.T) {
			src.data = extent.Normalize(append(src.data, step.change...))
			for _, e := range step.change {
				clear(src.bytes[e.Offset:e.End()])
				if !step.zero {
					copy(src.bytes[e.Offset:e.End()], random(uint64(n)<<8|1, int(e.Length)))
				}
			}
			id := fmt.Sprint(n + 1)
			d := backup(t, r, id, increment("d0", fmt.Sprint(n), step.change...), src).Disks[0]
			want := image.DiskRecord{
				ChangedBytes: step.change.Bytes(), ReadBytes: step.read, New: image.Share{Leaves: step.newLeaves, Bytes: step.newBytes},
				Zero: image.Share{Leaves: step.zeroLeaves, Bytes: step.zeroBytes},
			}
			want.Linked = image.Share{Leaves: step.leaves - step.newLeaves - step.zeroLeaves, Bytes: size - step.newBytes - step.zeroBytes}
			got := image.DiskRecord{ChangedBytes: d.ChangedBytes, ReadBytes: d.ReadBytes, New: d.New, Zero: d.Zero, Linked: d.Linked}
			if got != want { // AC-07: new, linked and zero are the disk
				t.Errorf("got %+v\nwant %+v", got, want)
			}
			mustRestore(t, r, id, "d0", src.bytes)
			if v, err := r.Verify(t.Context(), id, nil); err != nil || !v.Sound() {
				t.Errorf("verify: %+v, %v", v, err)
			}
		})
	}
	full := backup(t, r, "rescan", disk("d0"), src).Disks[0] // AC-15
	if leaves := full.New.Leaves + full.Zero.Leaves; leaves != 131 || full.Linked != (image.Share{}) {
		t.Errorf("a full read leaves %d leaves: %+v", leaves, full)
	}
	mustRestore(t, r, "rescan", "d0", src.bytes)
}

// writes makes the changes that a guest made: count pieces of size each, at random places on a disk, in runs.
func writes(rng *rand.Rand, disk int64, count int, size, align int64, run func() int) extent.List {
	var out []extent.Extent
	for len(out) < count {
		at := rng.Int64N((disk-size)/align) * align
		for range min(run(), count-len(out)) {
			if at+size > disk {
				break
			}
			out = append(out, extent.Extent{Offset: at, Length: size})
			at += size
		}
	}
	return extent.Normalize(out)
}

// BenchmarkAmplification prints how many bytes the storage takes for each byte that changed, by increment: index and lists included.
func BenchmarkAmplification(b *testing.B) {
	one := func() int { return 1 }
	const size = 512 * mib
	cases := []struct {
		name        string
		count       int
		size, align int64
		run         func(*rand.Rand) func() int
	}{
		{"clustered", 164, 64 * kib, 64 * kib, func(r *rand.Rand) func() int { return func() int { return 8 + r.IntN(57) } }},
		{"uniform64K", 1640, 64 * kib, 64 * kib, func(*rand.Rand) func() int { return one }},
		{"uniform64Kunaligned", 1640, 64 * kib, 4 * kib, func(*rand.Rand) func() int { return one }},
		{"uniform4K", 1640, 4 * kib, 4 * kib, func(*rand.Rand) func() int { return one }},
	}
	for _, c := range cases {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				rng := rand.New(rand.NewPCG(1, 2))
				src := allocated(random(1, int(size)))
				r := create(b, directory(b), image.Options{})
				backup(b, r, "0", disk("d0"), src)
				for n := range 4 {
					change := writes(rng, size, c.count, c.size, c.align, c.run(rng))
					for i, e := range change {
						copy(src.bytes[e.Offset:e.End()], random(uint64(n+1)<<16|uint64(i), int(e.Length)))
					}
					before := storedBytes(b, r)
					backup(b, r, fmt.Sprint(n+1), increment("d0", fmt.Sprint(n), change...), src)
					b.ReportMetric(float64(storedBytes(b, r)-before)/float64(change.Bytes()), fmt.Sprintf("stored/changed#%d", n+1))
				}
			}
		})
	}
}

func storedBytes(b *testing.B, r *image.Repository) int64 {
	s, err := r.Stats(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return s.StoredBytes
}
