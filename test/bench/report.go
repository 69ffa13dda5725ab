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

// report is everything that was measured.
type report struct {
	size    int64
	rounds  int
	command string
	tools   []tool
	results map[string][]round

	changed   int64 // bytes, before the increment
	floors    floors
	verifies  []usage
	verified  int64 // bytes of data on the disk
	scaled    []scaled
	amplified []amplified
	marked    []marked
}

// write writes the page.
func (r *report) write(out io.Writer) {
	fmt.Fprintf(out, "# Performance\n\nWritten by `%s` on %s: %s. Every figure is of whole processes; tools took turns on one generated disk of %s "+
		"(40 %% unallocated, 28 %% compressible, 26 %% not, 6 %% duplicates) in %d rounds. Sources lay in the page cache, repositories and restored disks in memory: "+
		"this compares programs, not storage. Figures are medians, with the least and the most in brackets.\n\n",
		r.command, time.Now().UTC().Format("2006-01-02"), machine(), bytes(r.size), r.rounds)
	fmt.Fprint(out, "| figure | measured | goal |\n|---|---|---|\n")
	figures := r.figures()
	for _, f := range figures {
		fmt.Fprintf(out, "| %s | %s | %s |\n", f.what, f.measured, f.goal)
	}
	explain(out, figures)
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
