package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/test/bench/disk"
)

// share of the disk that changes before the incremental backup.
const changedShare = 0.02

// round is what one tool took in one round.
type round struct {
	full, incremental, restore usage
	stored, added              int64
}

// comparison runs all tools on the same disk, in turns.
type comparison struct {
	space  *workspace
	tools  []tool
	rounds int
	log    io.Writer

	source  *disk.Disk
	raw     string
	changed extent.List
	forms   layered
	results map[string][]round
}

// prepare makes the disk, of size bytes, in the forms that the tools read, with one generation of changes.
func (c *comparison) prepare(size int64) error {
	fmt.Fprintf(c.log, "making a disk of %s\n", bytes(size))
	c.source = disk.New(size, c.space.corpus)
	folder := c.space.disk("raw")
	if err := os.Mkdir(folder, 0o700); err != nil {
		return err
	}
	c.raw = folder + "/disk.raw"
	if err := c.source.WriteRaw(c.raw); err != nil {
		return err
	}
	base := c.space.disk("disk.vhdx")
	if err := c.source.WriteVHDX(base, disk.Block); err != nil {
		return err
	}
	c.forms = layered{chain: []string{base}}
	back := c.source.Snapshot()
	c.changed = c.source.Change(disk.Clustered, changedShare, 1)
	if err := c.forms.layer(c.space, c.source, "disk", c.changed); err != nil {
		return err
	}
	back()
	return nil
}

// run measures every tool in every round. Who comes first changes from round to round.
func (c *comparison) run(ctx context.Context) error {
	c.results = map[string][]round{}
	for n := range c.rounds {
		for i := range c.tools {
			t := c.tools[(i+n)%len(c.tools)]
			measured, err := c.turn(ctx, t)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			c.results[t.name] = append(c.results[t.name], measured)
			fmt.Fprintf(c.log, "round %d of %d, %s: full %s, incremental %s, restore %s\n",
				n+1, c.rounds, t.name, measured.full, measured.incremental, measured.restore)
		}
	}
	return nil
}

// turn is one tool's backup, incremental backup and restore. What it leaves is removed.
func (c *comparison) turn(ctx context.Context, t tool) (round, error) {
	var out round
	err := t.create(ctx)
	if err != nil {
		return out, err
	}
	if out.full, err = t.backup(ctx, 0); err != nil {
		return out, err
	}
	if out.stored, err = c.stored(t); err != nil {
		return out, err
	}
	back := c.source.Snapshot()
	c.source.Change(disk.Clustered, changedShare, 1)
	if err := c.source.UpdateRaw(c.raw, c.changed); err != nil {
		return out, err
	}
	if out.incremental, err = t.backup(ctx, 1); err != nil {
		return out, err
	}
	after, err := c.stored(t)
	if err != nil {
		return out, err
	}
	out.added = after - out.stored
	if t.restore != nil {
		var restored string
		if out.restore, restored, err = t.restore(ctx); err != nil {
			return out, err
		}
		if _, _, err := measure(ctx, nil, c.space.fast, "cmp", restored, c.raw); err != nil {
			return out, fmt.Errorf("the restored disk differs: %w", err)
		}
	}
	back()
	if err := c.source.UpdateRaw(c.raw, c.changed); err != nil {
		return out, err
	}
	return out, c.space.clear()
}

func (c *comparison) stored(t tool) (int64, error) {
	if t.repository == "" {
		return 0, nil
	}
	return sizeOf(t.repository)
}
