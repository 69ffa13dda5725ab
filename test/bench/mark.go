package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// marked is what the mark phase of garbage collection took for so many images of each virtual machine.
type marked struct {
	images   string
	segments float64 // that differ
	perList  float64 // µs of CPU for each list that differs: of a segment, of a disk, or a directory
}

const markVMs = 100

// mark runs the benchmark that package image has for it: images of the same chains, each with one segment more that differs.
func mark(ctx context.Context) ([]marked, error) {
	cmd := exec.CommandContext(ctx, "go", "test", "./agent/image", "-run", "^$", "-bench", "Mark/./ours$", "-benchtime", "1x", "-mark.vms", strconv.Itoa(markVMs))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("measure the mark phase: %w: %s", err, out)
	}
	return parseMark(string(out))
}

var markLine = regexp.MustCompile(`(?m)^BenchmarkMark/images=(\d+)/ours\S*\s+(.*)$`)

// parseMark reads the output of a Go benchmark: after the name, values with their units.
func parseMark(text string) (out []marked, err error) {
	for _, line := range markLine.FindAllStringSubmatch(text, -1) {
		m := marked{images: line[1]}
		for pair := range slices.Chunk(strings.Fields(line[2])[1:], 2) {
			value, err := strconv.ParseFloat(pair[0], 64)
			if err != nil || len(pair) < 2 {
				return nil, fmt.Errorf("a line of a benchmark cannot be read: %s", line[0])
			}
			switch pair[1] {
			case "segments":
				m.segments = value
			case "cpu-us/list":
				m.perList = value
			}
		}
		out = append(out, m)
	}
	return out, nil
}

// marks holds what a list takes with many images against what it takes with few.
func (r *report) marks() []figure {
	if len(r.marked) == 0 {
		return nil
	}
	var images, cost, segments []string
	dearest := 0.0
	for _, m := range r.marked {
		images, segments = append(images, m.images), append(segments, fmt.Sprintf("%.0f", m.segments))
		cost = append(cost, fmt.Sprintf("%.0f", m.perList))
		dearest = max(dearest, m.perList)
	}
	return []figure{{
		what: fmt.Sprintf("garbage mark, %d virtual machines with %s images each (%s segments that differ), CPU for each list that differs",
			markVMs, strings.Join(images, ", "), strings.Join(segments, ", ")),
		measured: strings.Join(cost, ", ") + " µs", goal: "the same with all",
		missed: dearest > 1.25*r.marked[0].perList,
		why: "An image adds the lists of the segments that changed, one of its disk and three directories; each is looked into once, however many images have it. " +
			"What grows besides is the set of names, which goes to a file.",
	}}
}
