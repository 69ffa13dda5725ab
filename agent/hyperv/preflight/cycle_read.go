package preflight

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv"
)

// What is sampled of each disk: pieces of this size, spread over what the disk has data in.
const (
	sampleSize = 64 << 10
	maxSamples = 1024 // 64 MiB
)

// samples are the hashes of pieces of a disk by their offsets.
type samples map[int64][sha256.Size]byte

func (s samples) offsets() []int64 { return slices.Sorted(maps.Keys(s)) }

// read reads the frozen disks of the first checkpoint in each way that there is, and compares.
func (c *cycle) read(ctx context.Context, q *pass) error {
	for _, disk := range q.disks {
		m := DiskMeasurement{Key: disk.Key}
		var err error
		if q.samples[disk.Key], err = c.sample(ctx, disk, &m); err != nil {
			return err
		}
		c.readOtherwise(ctx, disk, q.samples[disk.Key], &m)
		c.found.Disks = append(c.found.Disks, m)
		c.tellRead(m)
	}
	return nil
}

// sample opens a frozen disk through our own reader of its files, and hashes pieces of it.
func (c *cycle) sample(ctx context.Context, disk hyperv.FrozenDisk, m *DiskMeasurement) (_ samples, err error) {
	open, err := c.host.OpenFiles(ctx, disk)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, open.Close()) }()
	members := open.Members()
	m.Chain, m.DirtyLog = len(members), members[0].HasDirtyLog()
	at, err := pieces(open)
	if err != nil {
		return nil, err
	}
	began := c.Seams.Clock.Now()
	out, err := hashes(ctx, open, open.Size(), at)
	m.Sampled = int64(len(at)) * sampleSize
	m.Reads = append(m.Reads, Read{Way: "Files", Millis: c.since(began)})
	return out, err
}

// pieces chooses where to sample: evenly among the places that may have data.
func pieces(disk *hyperv.OpenDisk) ([]int64, error) {
	var all []int64
	for e, err := range disk.Data(extent.Extent{Length: disk.Size()}) {
		if err != nil {
			return nil, err
		}
		for at := e.Offset / sampleSize * sampleSize; at < e.End(); at += sampleSize {
			if len(all) == 0 || all[len(all)-1] < at {
				all = append(all, at)
			}
		}
		all = thin(all, 16*maxSamples) // a large disk must not fill the memory
	}
	return thin(all, maxSamples), nil
}

// thin leaves out every other piece until there are no more than the limit.
func thin(all []int64, limit int) []int64 {
	for len(all) > limit {
		kept := all[:0]
		for i := 0; i < len(all); i += 2 {
			kept = append(kept, all[i])
		}
		all = kept
	}
	return all
}

func hashes(ctx context.Context, r io.ReaderAt, size int64, at []int64) (samples, error) {
	out, buffer := samples{}, make([]byte, sampleSize)
	for _, offset := range at {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		piece := buffer[:min(sampleSize, size-offset)]
		if _, err := r.ReadAt(piece, offset); err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		out[offset] = sha256.Sum256(piece)
	}
	return out, nil
}

func (c *cycle) tellRead(m DiskMeasurement) {
	var ways []string
	worst := Passed
	for _, r := range m.Reads {
		text := fmt.Sprintf("%s %d ms", r.Way, r.Millis)
		if r.Problem != "" {
			worst, text = Concern, r.Way+": "+r.Problem
		}
		ways = append(ways, text)
	}
	log := "clean log"
	if m.DirtyLog {
		log = "dirty log, replayed in memory"
	}
	remedy := ""
	if worst != Passed {
		remedy = "Backups use a way that works. Report this with a recording of the host (--record FILE --redact)."
	}
	c.report.add(SectionCycle, "read "+m.Key, worst,
		fmt.Sprintf("%s sampled of a chain of %d with a %s: %s", humanize.IBytes(uint64(m.Sampled)), m.Chain, log, strings.Join(ways, ", ")), remedy)
}

// compare asks what changed between the two checkpoints, and looks whether each sampled piece that did is among it (I3).
func (c *cycle) compare(ctx context.Context, first, second *pass) error {
	for i := range c.found.Disks {
		m := &c.found.Disks[i]
		disk, base, found := between(c.point, second, m.Key)
		if !found {
			c.report.add(SectionCycle, "changes of "+m.Key, Concern, "the reference point has no tracking id of this disk", "It is read in full each time.")
			continue
		}
		changed, err := c.changes(ctx, disk, base)
		if errors.Is(err, hyperv.ErrTrackingLost) {
			c.report.add(SectionCycle, "changes of "+m.Key, Concern, err.Error(), "It is read in full until tracking works.")
			continue
		}
		if err != nil {
			return err
		}
		if err := c.missed(ctx, disk, changed, first.samples[m.Key], m); err != nil {
			return err
		}
		what := fmt.Sprintf("%s reported, %d of %d sampled pieces changed", humanize.IBytes(uint64(m.Reported)), m.Changed, len(first.samples[m.Key]))
		if m.Missed > 0 {
			c.report.add(SectionCycle, "changes of "+m.Key, Failed, fmt.Sprintf("%s, and %d of them were not reported", what, m.Missed),
				"Change tracking of this host cannot be trusted: use policies with full backups only, and report this with a recording of the host.")
			continue
		}
		c.report.pass(SectionCycle, "changes of "+m.Key, "%s, each of them reported", what)
	}
	return nil
}

// between finds a disk of the second checkpoint, and what the reference point of the first knows of it.
func between(point *hyperv.ReferencePoint, second *pass, key string) (hyperv.FrozenDisk, hyperv.TrackedDisk, bool) {
	for _, base := range point.Disks {
		for _, disk := range second.disks {
			if base.Key == key && disk.Key == key {
				return disk, base.Tracked(), true
			}
		}
	}
	return hyperv.FrozenDisk{}, hyperv.TrackedDisk{}, false
}

func (c *cycle) changes(ctx context.Context, disk hyperv.FrozenDisk, base hyperv.TrackedDisk) (extent.List, error) {
	seq, err := c.host.Changes(ctx, disk, base)
	if err != nil {
		return nil, err
	}
	return extent.Collect(seq)
}

// missed samples the disk of the second checkpoint at the same places, and counts what changed without being reported.
func (c *cycle) missed(ctx context.Context, disk hyperv.FrozenDisk, changed extent.List, before samples, m *DiskMeasurement) (err error) {
	open, err := c.host.OpenFiles(ctx, disk)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, open.Close()) }()
	after, err := hashes(ctx, open, open.Size(), before.offsets())
	if err != nil {
		return err
	}
	for _, e := range changed {
		m.Reported += e.Length
	}
	for offset, hash := range before {
		if after[offset] == hash {
			continue
		}
		m.Changed++
		if !touches(changed, extent.Extent{Offset: offset, Length: sampleSize}) {
			m.Missed++
		}
	}
	return nil
}

func touches(changed extent.List, piece extent.Extent) bool {
	for _, e := range changed {
		if e.Clip(piece).Length > 0 {
			return true
		}
	}
	return false
}
