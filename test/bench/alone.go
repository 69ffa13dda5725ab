package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/test/bench/disk"
)

// alone measures what has no peer: Hyperkeep against what the primitives alone take, against itself on larger disks, and what it stores.
type alone struct {
	space  *workspace
	tools  programs
	rounds int
	log    io.Writer
}

// floors are what Hyperkeep took, and what the bare primitives did, on the same disk in turns.
type floors struct {
	backups, packs    []usage
	restores, unpacks []usage
	opens             []usage // of a repository, and nothing more
}

func (a *alone) floors(ctx context.Context, forms *layered) (found floors, err error) {
	for n := range a.rounds {
		steps := []func() error{
			func() error { return a.whole(ctx, forms, &found) },
			func() error { return a.bare(ctx, forms.at(0)[0], &found) },
		}
		for i := range steps {
			if err := errors.Join(steps[(i+n)%2](), a.space.clear()); err != nil {
				return found, err
			}
		}
		fmt.Fprintf(a.log, "round %d of %d: backup %s, its primitives %s, restore %s, its primitives %s, opening %s\n",
			n+1, a.rounds, found.backups[n], found.packs[n], found.restores[n], found.unpacks[n], found.opens[n])
	}
	return found, nil
}

// run measures the subject.
func (a *alone) run(ctx context.Context, into *[]usage, args ...string) error {
	used, _, err := measure(ctx, nil, a.space.fast, append([]string{a.tools.subject}, args...)...)
	*into = append(*into, used)
	return err
}

// whole backs the disk up, restores it, and opens the repository for nothing.
func (a *alone) whole(ctx context.Context, forms *layered, found *floors) error {
	repository := a.space.place("floors")
	if _, _, err := measure(ctx, nil, a.space.fast, a.tools.subject, "create", repository); err != nil {
		return err
	}
	used, _, err := store(ctx, a.tools, repository, forms, 0)
	if err != nil {
		return err
	}
	found.backups = append(found.backups, used)
	if err := a.run(ctx, &found.restores, "restore", repository, image(0), a.space.place("floors.raw")); err != nil {
		return err
	}
	return a.run(ctx, &found.opens, "open", repository)
}

// bare does the same with nothing but the primitives.
func (a *alone) bare(ctx context.Context, disk string, found *floors) error {
	packed := a.space.place("floors.pack")
	if err := a.run(ctx, &found.packs, "primitives", disk, packed); err != nil {
		return err
	}
	return a.run(ctx, &found.unpacks, "unpack", packed, a.space.place("floors.raw"))
}

// verify reads and checks a whole image, after a backup that is not measured. It returns the bytes of data in it.
func (a *alone) verify(ctx context.Context, forms *layered) (runs []usage, data int64, err error) {
	repository := a.space.place("verify")
	if _, _, err := measure(ctx, nil, a.space.fast, a.tools.subject, "create", repository); err != nil {
		return nil, 0, err
	}
	if _, _, err := store(ctx, a.tools, repository, forms, 0); err != nil {
		return nil, 0, err
	}
	if data, err = dataOf(forms.at(0)); err != nil {
		return nil, 0, err
	}
	for range a.rounds {
		used, _, err := measure(ctx, nil, a.space.fast, a.tools.subject, "verify", repository, image(0))
		if err != nil {
			return nil, 0, err
		}
		runs = append(runs, used)
	}
	fmt.Fprintf(a.log, "verify: %s\n", runs)
	return runs, data, a.space.clear()
}

func dataOf(chain []string) (int64, error) {
	opened, err := disk.Open(chain...)
	if err != nil {
		return 0, err
	}
	found, err := extent.Collect(opened.Data(extent.Extent{Length: opened.Size()}))
	return found.Bytes(), errors.Join(err, opened.Close())
}

// scaled is what a disk of one size took.
type scaled struct {
	size        int64
	full        usage
	incremental []usage
}

// Large disks have the same data and the same changes, scattered over more or less room. Their blocks are the smallest that people use,
// so that their tables are the largest.
const (
	scatteredPieces = 400
	scatteredRuns   = 160
	largeBlock      = 2 << 20
)

// scale backs up disks of several sizes that differ in nothing else, in turns.
func (a *alone) scale(ctx context.Context, sizes ...int64) ([]scaled, error) {
	out := make([]scaled, len(sizes))
	histories := make([]*layered, len(sizes))
	for i, size := range sizes {
		out[i].size = size
		history, err := a.history(size)
		if err != nil {
			return nil, err
		}
		histories[i] = history
		repository := a.space.place(fmt.Sprintf("scale-%d", size))
		if _, _, err := measure(ctx, nil, a.space.fast, a.tools.subject, "create", repository); err != nil {
			return nil, err
		}
		if out[i].full, _, err = store(ctx, a.tools, repository, history, 0); err != nil {
			return nil, err
		}
	}
	for generation := 1; generation <= a.rounds; generation++ {
		for n := range sizes {
			i := (n + generation) % len(sizes)
			used, _, err := store(ctx, a.tools, a.space.place(fmt.Sprintf("scale-%d", sizes[i])), histories[i], generation)
			if err != nil {
				return nil, err
			}
			out[i].incremental = append(out[i].incremental, used)
			fmt.Fprintf(a.log, "disk of %s, increment %d of %d: %s\n", bytes(sizes[i]), generation, a.rounds, used)
		}
	}
	return out, a.space.clear()
}

func (a *alone) history(size int64) (*layered, error) {
	name := fmt.Sprintf("scale-%d", size)
	d := disk.NewSparse(size, scatteredPieces, a.space.corpus)
	base := a.space.disk(name + ".vhdx")
	if err := d.WriteVHDX(base, largeBlock); err != nil {
		return nil, err
	}
	history := &layered{chain: []string{base}}
	for generation := uint32(1); int(generation) <= a.rounds; generation++ {
		if err := history.layer(a.space, d, name, d.Changes(scatteredRuns, generation)); err != nil {
			return nil, err
		}
	}
	return history, nil
}

// amplified is how many bytes each of several increments stored for what changed.
type amplified struct {
	pattern disk.Pattern
	ratios  []float64
	written float64 // share of the disk's data that any of the increments wrote
	grown   float64 // bytes that all of them stored, for each byte of the disk's data
}

// amplify stores increments of one pattern, one after the other, each of 1 % of the disk.
func (a *alone) amplify(ctx context.Context, size int64, increments int, patterns ...disk.Pattern) ([]amplified, error) {
	var out []amplified
	for i, pattern := range patterns {
		d := disk.New(size, a.space.corpus)
		name := fmt.Sprintf("amplify-%d", i)
		base, repository := a.space.disk(name+".vhdx"), a.space.place(name)
		if err := d.WriteVHDX(base, disk.Block); err != nil {
			return nil, err
		}
		history := &layered{chain: []string{base}}
		for generation := range increments {
			if err := history.layer(a.space, d, name, d.Change(pattern, 0.01, uint32(generation+1))); err != nil {
				return nil, err
			}
		}
		if _, _, err := measure(ctx, nil, a.space.fast, a.tools.subject, "create", repository); err != nil {
			return nil, err
		}
		found := amplified{pattern: pattern}
		data, err := dataOf(history.at(0))
		if err != nil {
			return nil, err
		}
		var written extent.List
		for generation := range increments + 1 {
			_, stored, err := store(ctx, a.tools, repository, history, generation)
			if err != nil {
				return nil, err
			}
			if generation > 0 {
				changed := history.changed[generation-1]
				found.ratios = append(found.ratios, float64(stored)/float64(changed.Bytes()))
				found.grown += float64(stored) / float64(data)
				written = append(written, changed...)
			}
		}
		found.written = float64(extent.Normalize(written).Bytes()) / float64(data)
		fmt.Fprintf(a.log, "stored for each changed byte, %s: %.2f\n", pattern, found.ratios)
		out = append(out, found)
		if err := a.space.clear(); err != nil {
			return nil, err
		}
	}
	return out, nil
}
