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

// primitives runs a full backup and the bare primitives on the same disk, in turns.
func (a *alone) primitives(ctx context.Context, forms *layered) (backups, primitives []usage, err error) {
	repository := a.space.place("primitives")
	base := forms.at(0)[0]
	backup := func() error {
		if _, _, err := measure(ctx, nil, a.space.fast, a.tools.subject, "create", repository); err != nil {
			return err
		}
		used, _, err := store(ctx, a.tools, repository, forms, 0)
		backups = append(backups, used)
		return errors.Join(err, a.space.clear())
	}
	bare := func() error {
		used, _, err := measure(ctx, nil, a.space.fast, a.tools.subject, "primitives", base, a.space.place("primitives.out"))
		primitives = append(primitives, used)
		return errors.Join(err, a.space.clear())
	}
	for n := range a.rounds {
		steps := []func() error{backup, bare}
		for i := range steps {
			if err := steps[(i+n)%2](); err != nil {
				return nil, nil, err
			}
		}
		fmt.Fprintf(a.log, "primitives, round %d of %d: backup %s, primitives %s\n", n+1, a.rounds, backups[n], primitives[n])
	}
	return backups, primitives, nil
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
		for generation := range increments + 1 {
			_, stored, err := store(ctx, a.tools, repository, history, generation)
			if err != nil {
				return nil, err
			}
			if generation > 0 {
				found.ratios = append(found.ratios, float64(stored)/float64(history.changed[generation-1].Bytes()))
			}
		}
		fmt.Fprintf(a.log, "stored for each changed byte, %s: %.2f\n", pattern, found.ratios)
		out = append(out, found)
		if err := a.space.clear(); err != nil {
			return nil, err
		}
	}
	return out, nil
}
