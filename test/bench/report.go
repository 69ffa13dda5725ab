package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/hyperkeep/hyperkeep/test/bench/disk"
)

func bytes(n int64) string { return humanize.IBytes(uint64(max(0, n))) }

// String shows a usage in a line of progress.
func (u usage) String() string {
	return fmt.Sprintf("%.1f s wall, %.1f s CPU, %s", u.Wall.Seconds(), u.CPU.Seconds(), bytes(u.Peak))
}

// spread is the least, the middle and the largest of some values.
type spread struct{ least, middle, most float64 }

func spreadOf(values []float64) spread {
	if len(values) == 0 {
		return spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	return spread{sorted[0], sorted[len(sorted)/2], sorted[len(sorted)-1]}
}

func (s spread) String() string {
	if s.least == s.most {
		return fmt.Sprintf("%.2f", s.middle)
	}
	return fmt.Sprintf("%.2f (%.2f to %.2f)", s.middle, s.least, s.most)
}

// ratios divides what two tools took in the same round.
func ratios[T any](ours, theirs []T, of func(T) float64) spread {
	var out []float64
	for i := range min(len(ours), len(theirs)) {
		if base := of(theirs[i]); base > 0 {
			out = append(out, of(ours[i])/base)
		}
	}
	return spreadOf(out)
}

func collect[T any](values []T, of func(T) float64) []float64 {
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = of(v)
	}
	return out
}

func cpu(u usage) float64  { return u.CPU.Seconds() }
func wall(u usage) float64 { return u.Wall.Seconds() }

// figure is a line of the summary.
type figure struct {
	what, measured, goal string
}

// report is everything that was measured.
type report struct {
	size    int64
	rounds  int
	command string
	tools   []tool
	results map[string][]round

	backups, primitives, verifies []usage
	verified                      int64
	scaled                        []scaled
	amplified                     []amplified
}

// figures holds the measured values against the goals.
func (r *report) figures() []figure {
	ours := r.results["hyperkeep"]
	full := func(m round) float64 { return cpu(m.full) }
	incremental := func(m round) float64 { return cpu(m.incremental) }
	out := []figure{
		{"full, CPU against restic", ratios(ours, r.results["restic"], full).String() + " ×", "≤ 0.33 ×"},
		{"full, CPU against kopia, FIXED-1M", ratios(ours, r.results["kopia"], full).String() + " ×", "≤ 0.45 ×"},
		{"full, share of what the primitives alone allow", ratios(r.primitives, r.backups, cpu).String(), "≥ 0.90"},
	}
	best, name := spread{}, ""
	for _, t := range r.tools {
		if against := ratios(r.results[t.name], ours, incremental); t.restore != nil && t.name != "hyperkeep" && (name == "" || against.middle < best.middle) {
			best, name = against, t.name
		}
	}
	out = append(out, figure{
		fmt.Sprintf("incremental, %.0f %% changed, CPU of the best peer (%s) over ours", changedShare*100, name), best.String() + " ×", "≥ 25 ×",
	})
	if len(r.scaled) > 1 {
		small := r.scaled[0]
		for _, large := range r.scaled[1:] {
			ratio := ratios(large.incremental, small.incremental, wall)
			perTiB := (spreadOf(collect(large.incremental, cpu)).middle - spreadOf(collect(small.incremental, cpu)).middle) /
				(float64(large.size-small.size) / (1 << 40)) * 1000
			out = append(out,
				figure{fmt.Sprintf("incremental, same changes, wall on %s against %s", bytes(large.size), bytes(small.size)), ratio.String() + " ×", "≤ 1.2 × at 1 TiB"},
				figure{fmt.Sprintf("incremental, CPU for each TiB more, up to %s", bytes(large.size)), fmt.Sprintf("%.1f ms", perTiB), "≤ 10 ms"},
			)
		}
		largest := r.scaled[len(r.scaled)-1]
		peak := largest.full.Peak
		for _, u := range largest.incremental {
			peak = max(peak, u.Peak)
		}
		out = append(out, figure{fmt.Sprintf("memory at the most, disk of %s, full and incremental", bytes(largest.size)), bytes(peak), "≤ 300 MiB"})
	}
	for _, a := range r.amplified {
		text := make([]string, len(a.ratios))
		for i, ratio := range a.ratios {
			text[i] = fmt.Sprintf("%.2f", ratio)
		}
		out = append(out, figure{"stored for each changed byte, " + string(a.pattern) + ", one increment after the other", strings.Join(text, ", "), goalOf(a)})
	}
	restore := func(m round) float64 { return wall(m.restore) }
	perSecond := func(u usage) float64 { return float64(r.verified) / (1 << 20) / u.CPU.Seconds() }
	return append(out,
		figure{"restore, wall against `cp --sparse=always` of the disk", ratios(ours, r.results["cp --sparse=always"], func(m round) float64 {
			if m.restore.Wall == 0 {
				return wall(m.full)
			}
			return restore(m)
		}).String() + " ×", "≤ 1.2 ×"},
		figure{"verify everything, MiB for each CPU second", spreadOf(collect(r.verifies, perSecond)).String(), "≥ 600"},
	)
}

func goalOf(a amplified) string {
	if a.pattern == disk.Clustered {
		return "≤ 1.2"
	}
	return "≤ 4 from the second on"
}

// write writes the page.
func (r *report) write(out io.Writer) {
	fmt.Fprintf(out, "# Performance\n\nWritten by `%s` on %s: %s. Every figure is of whole processes; tools took turns on one generated disk of %s "+
		"(40 %% unallocated, 28 %% compressible, 26 %% not, 6 %% duplicates) in %d rounds. Sources lay in the page cache, repositories and restored disks in memory: "+
		"this compares programs, not storage. Figures are medians, with the least and the most in brackets.\n\n",
		r.command, time.Now().UTC().Format("2006-01-02"), machine(), bytes(r.size), r.rounds)
	fmt.Fprint(out, "| figure | measured | goal |\n|---|---|---|\n")
	for _, f := range r.figures() {
		fmt.Fprintf(out, "| %s | %s | %s |\n", f.what, f.measured, f.goal)
	}
	fmt.Fprint(out, "\n## Side by side\n\nHyperkeep read VHDX files and was told what changed, as a host's change tracking does; the others read a raw file of the same "+
		"content whole. Read and written are the bytes of all system calls.\n\n")
	for _, part := range []struct {
		title string
		of    func(round) usage
		grown func(round) int64
	}{
		{"Full", func(m round) usage { return m.full }, func(m round) int64 { return m.stored }},
		{fmt.Sprintf("Incremental, %.0f %% changed", changedShare*100), func(m round) usage { return m.incremental }, func(m round) int64 { return m.added }},
		{"Restore", func(m round) usage { return m.restore }, func(round) int64 { return 0 }},
	} {
		fmt.Fprintf(out, "### %s\n\n| | wall s | CPU s | memory | read | written | stored |\n|---|---|---|---|---|---|---|\n", part.title)
		for _, t := range r.tools {
			r.row(out, t.name, part.of, part.grown)
		}
		fmt.Fprintln(out)
	}
	fmt.Fprint(out, versions(r.tools))
}

func (r *report) row(out io.Writer, name string, of func(round) usage, grown func(round) int64) {
	rounds := r.results[name]
	middle := func(value func(round) float64) float64 { return spreadOf(collect(rounds, value)).middle }
	if middle(func(m round) float64 { return wall(of(m)) }) == 0 {
		return
	}
	stored := "-"
	if n := int64(middle(func(m round) float64 { return float64(grown(m)) })); n > 0 {
		stored = bytes(n)
	}
	fmt.Fprintf(out, "| %s | %s | %s | %s | %s | %s | %s |\n", name,
		spreadOf(collect(rounds, func(m round) float64 { return wall(of(m)) })), spreadOf(collect(rounds, func(m round) float64 { return cpu(of(m)) })),
		bytes(int64(middle(func(m round) float64 { return float64(of(m).Peak) }))),
		bytes(int64(middle(func(m round) float64 { return float64(of(m).Read) }))),
		bytes(int64(middle(func(m round) float64 { return float64(of(m).Written) }))), stored)
}

// machine describes where this runs.
func machine() string {
	text := fmt.Sprintf("%d cores", runtime.NumCPU())
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if found := regexp.MustCompile(`model name\s*: (.*)`).FindSubmatch(info); found != nil {
			text += " of " + string(found[1])
		}
	}
	if info, err := os.ReadFile("/proc/meminfo"); err == nil {
		if found := regexp.MustCompile(`MemTotal:\s*(\d+)`).FindSubmatch(info); found != nil {
			var kib int64
			fmt.Sscan(string(found[1]), &kib)
			text += ", " + bytes(kib<<10) + " of memory"
		}
	}
	return text + ", " + runtime.Version()
}

// versions lists the peers.
func versions(tools []tool) string {
	text := "Versions:"
	for _, t := range tools {
		if t.version == nil {
			continue
		}
		if out, err := exec.Command(t.version[0], t.version[1:]...).Output(); err == nil {
			text += fmt.Sprintf(" %s `%s`;", t.name, strings.TrimSpace(strings.SplitN(string(out), "\n", 2)[0]))
		}
	}
	return strings.TrimSuffix(text, ";") + ".\n"
}
