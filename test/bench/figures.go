package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/hyperkeep/hyperkeep/test/bench/disk"
)

// figure is a line of the summary. why is shown when its goal is missed: what stands in the way, with figures of the same run.
type figure struct {
	what, measured, goal string
	missed               bool
	why                  string
}

// atMost and atLeast hold the middle of some values against a goal.
func atMost(what string, found spread, goal float64, why string) figure {
	return figure{what, found.String() + " ×", fmt.Sprintf("≤ %.2g ×", goal), found.middle > goal, why}
}

func atLeast(what string, found spread, goal float64, unit, why string) figure {
	return figure{what, found.String() + unit, fmt.Sprintf("≥ %.3g%s", goal, unit), found.middle < goal, why}
}

// The goals that have no place in the line that they belong to.
const (
	primitivesGoal = 0.90
	perTiBGoal     = 10.0 // ms of CPU
	memoryGoal     = 300 << 20
)

// figures holds the measured values against the goals.
func (r *report) figures() []figure {
	out := r.fulls()
	out = append(out, r.increments()...)
	out = append(out, r.sizes()...)
	for _, a := range r.amplified {
		out = append(out, amplification(a))
	}
	out = append(out, r.reads()...)
	return append(out, r.marks()...)
}

func middleOf[T any](values []T, of func(T) float64) float64 {
	return spreadOf(collect(values, of)).middle
}

func fullCPU(m round) float64 { return cpu(m.full) }

func (r *report) fulls() []figure {
	ours, bare := r.results["hyperkeep"], middleOf(r.floors.packs, cpu)
	why := func(peer string) string {
		theirs := middleOf(r.results[peer], fullCPU)
		return fmt.Sprintf("Reading, sampling, compressing, hashing, encrypting and writing the data once, and nothing else, takes %.2f CPU s, which is %.2f × of what %s "+
			"takes for everything. With %.0f %% of the primitives' speed, the goal for this disk is ≤ %.2f ×. The rest is the choice of the compressor: zstd at its fastest "+
			"level is most of the primitives, and s2 (`CompressionFast`) halves the whole for some 7 %% more bytes.",
			bare, bare/theirs, peer, 100*primitivesGoal, bare/theirs/primitivesGoal)
	}
	var out []figure
	for _, peer := range []struct {
		name, what string
		goal       float64
	}{{"restic", "restic", 0.33}, {"kopia", "kopia, FIXED-1M", 0.45}} {
		if theirs := r.results[peer.name]; len(theirs) > 0 {
			out = append(out, atMost("full, CPU against "+peer.what, ratios(ours, theirs, fullCPU), peer.goal, why(peer.name)))
		}
	}
	return append(out,
		atLeast("full, share of what the primitives alone allow", ratios(r.floors.packs, r.floors.backups, cpu), primitivesGoal, "", "The rest is what kopia copies, indexes and syncs."))
}

// bestPeer is the tool with an index that takes the least for an increment.
func (r *report) bestPeer(of func(round) float64) (against spread, name string) {
	ours := r.results["hyperkeep"]
	for _, t := range r.tools {
		if t.restore == nil || t.name == "hyperkeep" {
			continue
		}
		if found := ratios(r.results[t.name], ours, of); name == "" || found.middle < against.middle {
			against, name = found, t.name
		}
	}
	return against, name
}

func (r *report) increments() []figure {
	incremental := func(m round) float64 { return cpu(m.incremental) }
	against, peer := r.bestPeer(incremental)
	if peer == "" {
		return []figure{r.perChanged(incremental)}
	}
	theirs, open := middleOf(r.results[peer], incremental), middleOf(r.floors.opens, cpu)
	bare := middleOf(r.floors.packs, cpu) * float64(r.changed) / float64(max(1, r.verified))
	what := fmt.Sprintf("incremental, %.0f %% changed, CPU of the best peer (%s) over ours", changedShare*100, peer)
	return []figure{
		atLeast(what, against, 25, " ×", fmt.Sprintf("%s takes %.2f CPU s to read and hash the whole disk again. The primitives alone take %.2f CPU s for the %s that "+
			"changed, so that no store made of them can be more than %.1f × better. %.2f CPU s more are the start of a process that opens the repository: a key is derived from "+
			"the password, which is meant to take long, once. The ends of runs that cover a leaf in part are stored with the rest of that leaf. The goal for an "+
			"increment is ≤ 0.4 CPU s and 6 ms for each MiB that changed: %.2f CPU s here.",
			peer, theirs, bare, bytes(r.changed), theirs/bare, open, 0.4+0.006*float64(r.changed)/(1<<20))),
		r.perChanged(incremental),
	}
}

// perChanged is an increment's CPU time without what opening the repository takes.
func (r *report) perChanged(incremental func(round) float64) figure {
	open, changed := middleOf(r.floors.opens, cpu), float64(r.changed)/(1<<20)
	found := spreadOf(collect(r.results["hyperkeep"], func(m round) float64 { return (incremental(m) - open) * 1000 / changed }))
	return figure{
		what:     fmt.Sprintf("incremental, CPU for each MiB changed, beside %.2f s for opening the repository", open),
		measured: found.String() + " ms", goal: "≤ 6 ms", missed: found.middle > 6,
	}
}

// sizes compares disks of several sizes with the same changes.
func (r *report) sizes() []figure {
	if len(r.scaled) < 2 {
		return nil
	}
	var out []figure
	small, largest := r.scaled[0], r.scaled[len(r.scaled)-1]
	for _, large := range r.scaled[1:] {
		ratio := ratios(large.incremental, small.incremental, wall)
		perTiB := (middleOf(large.incremental, cpu) - middleOf(small.incremental, cpu)) / (float64(large.size-small.size) / (1 << 40)) * 1000
		out = append(out, figure{
			what:     fmt.Sprintf("incremental, same changes, wall on %s against %s", bytes(large.size), bytes(small.size)),
			measured: ratio.String() + " ×", goal: "≤ 1.2 × at 1 TiB", missed: large.size <= 1<<40 && ratio.middle > 1.2,
		}, figure{
			what:     fmt.Sprintf("incremental, CPU for each TiB more, up to %s", bytes(large.size)),
			measured: fmt.Sprintf("%.1f ms", perTiB), goal: fmt.Sprintf("≤ %.0f ms", perTiBGoal), missed: perTiB > perTiBGoal,
			why: fmt.Sprintf("Each member of the chain has a block table of %s, which is read and checked whole, and the changes, spread over the disk, "+
				"touch nearly every piece of its root list.", bytes(large.size/largeBlock*8)),
		})
	}
	peak := largest.full.Peak
	for _, u := range largest.incremental {
		peak = max(peak, u.Peak)
	}
	return append(out, figure{
		what:     fmt.Sprintf("memory at the most, disk of %s, full and incremental", bytes(largest.size)),
		measured: bytes(peak), goal: "≤ " + bytes(memoryGoal), missed: peak > memoryGoal,
	})
}

// amplification holds every increment against the goal, and those of single writes from the second on.
func amplification(a amplified) figure {
	text := make([]string, len(a.ratios))
	for i, ratio := range a.ratios {
		text[i] = fmt.Sprintf("%.2f", ratio)
	}
	out := figure{what: "stored for each changed byte, " + string(a.pattern) + ", one increment after the other", measured: strings.Join(text, ", ")}
	limit, judged := 4.0, a.ratios[min(1, len(a.ratios)):]
	out.goal = "≤ 4 from the second on"
	if a.pattern == disk.Clustered {
		limit, judged = 1.2, a.ratios
		out.goal = "≤ 1.2"
	}
	for _, ratio := range judged {
		out.missed = out.missed || ratio > limit
	}
	if a.pattern == disk.Uniform {
		out.why = fmt.Sprintf("These writes hit leaves that no increment has touched, each time fewer of them. %.0f %% of the bytes of this disk were written to in %d increments, "+
			"and %.2f bytes were stored for each byte of data that it has. The first write to a leaf stores the whole of it, 1 MiB, since an entry of a kopia list names a "+
			"whole object and cannot name a part of one; from then on the leaf is in grains of 64 KiB and a write costs itself, as the line below shows. So all first writes together "+
			"store no more than the data of the disk once, however many increments there are. Leaves of 256 KiB would keep the first write below 4 ×, and cost every image four times the "+
			"index: 132 bytes for each MiB of data in place of 33, in the memory of every agent. The goal holds for the second write to a place.",
			100*a.written, len(a.ratios), a.grown)
	}
	return out
}

// reads are the figures of restoring and verifying.
func (r *report) reads() []figure {
	copied := r.results["cp --sparse=always"]
	restores := collect(r.results["hyperkeep"], func(m round) float64 { return wall(m.restore) })
	copies := collect(copied, func(m round) float64 { return wall(m.full) })
	same := func(v float64) float64 { return v }
	bare, floor := middleOf(r.floors.unpacks, wall), spreadOf(copies).middle
	why := fmt.Sprintf("Reading, decrypting, decompressing and writing the same data on all cores, and nothing else, takes %.2f s, which is %.2f × of cp, which does "+
		"neither of the two in the middle. With %.0f %% of the primitives' speed, the goal for this disk in memory is ≤ %.2f ×; what a real disk takes to write comes to both.",
		bare, bare/floor, 100*primitivesGoal, bare/floor/primitivesGoal)
	perSecond := func(u usage) float64 { return float64(r.verified) / (1 << 20) / u.CPU.Seconds() }
	return []figure{
		atMost("restore, wall against `cp --sparse=always` of the disk", ratios(restores, copies, same), 1.2, why),
		atLeast("restore, share of what the primitives alone allow", ratios(r.floors.unpacks, r.floors.restores, cpu), primitivesGoal, "", "The rest is opening the repository."),
		atLeast("verify everything, MiB for each CPU second", spreadOf(collect(r.verifies, perSecond)), 600, "", ""),
	}
}

// explain writes what stands in the way of the goals that are missed.
func explain(out io.Writer, figures []figure) {
	title := "\n## Goals that are missed\n\n"
	for _, f := range figures {
		if f.missed && f.why != "" {
			fmt.Fprintf(out, "%s- **%s:** %s\n", title, f.what, f.why)
			title = ""
		}
	}
}
