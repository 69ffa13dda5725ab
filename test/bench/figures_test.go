package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/test/bench/disk"
)

// took is a run of so many seconds, alone on its processor.
func took(seconds float64) usage {
	d := time.Duration(seconds * float64(time.Second))
	return usage{Wall: d, CPU: d, Peak: 100 << 20}
}

// reportOf is a run in which our full backup took as long as said, and all else met its goal.
func reportOf(full, scattered float64) *report {
	restore := func(context.Context) (usage, string, error) { return usage{}, "", nil }
	return &report{
		size: 8 << 30, rounds: 1, changed: 100 << 20, verified: 5 << 30,
		tools: []tool{{name: "hyperkeep", restore: restore}, {name: "cp --sparse=always"}, {name: "restic", restore: restore}, {name: "kopia", restore: restore}},
		results: map[string][]round{
			"hyperkeep":          {{full: took(full), incremental: took(0.5), restore: took(2)}},
			"cp --sparse=always": {{full: took(2)}},
			"restic":             {{full: took(60), incremental: took(15), restore: took(9)}},
			"kopia":              {{full: took(40), incremental: took(13), restore: took(9)}},
		},
		floors:   floors{backups: []usage{took(10)}, packs: []usage{took(9.5)}, restores: []usage{took(2)}, unpacks: []usage{took(1.9)}, opens: []usage{took(0.2)}},
		verifies: []usage{took(5)},
		scaled: []scaled{
			{size: 64 << 30, full: took(1), incremental: []usage{took(1)}}, {size: 1 << 40, full: took(1), incremental: []usage{took(1)}},
		},
		amplified: []amplified{
			{pattern: disk.Clustered, ratios: []float64{1.1, 1.1}}, {pattern: disk.Uniform, ratios: []float64{10, scattered}}, {pattern: disk.Hot, ratios: []float64{9, 1}},
		},
	}
}

func TestMissedGoalsAreExplained(t *testing.T) {
	for name, c := range map[string]struct {
		report *report
		missed []string
	}{
		"every goal is met":                     {reportOf(10, 3), nil},
		"a full backup takes more than restic":  {reportOf(30, 3), []string{"full, CPU against restic", "full, CPU against kopia, FIXED-1M"}},
		"scattered writes are stored too large": {reportOf(10, 5), []string{"stored for each changed byte, single 64 KiB anywhere, one increment after the other"}},
	} {
		t.Run(name, func(t *testing.T) {
			var page strings.Builder
			c.report.write(&page)
			_, section, _ := strings.Cut(page.String(), "## Goals that are missed")
			section, _, _ = strings.Cut(section, "## Side by side")
			if got := strings.Count(section, "\n- **"); got != len(c.missed) {
				t.Errorf("%d goals are explained in place of %d: %s", got, len(c.missed), section)
			}
			for _, what := range c.missed {
				if !strings.Contains(section, "- **"+what+":** ") {
					t.Errorf("%q is not explained", what)
				}
			}
			for _, wrong := range []string{"NaN", "Inf", "%!"} {
				if strings.Contains(page.String(), wrong) {
					t.Errorf("the page has %q: %s", wrong, page.String())
				}
			}
		})
	}
}

func TestMarkOfManyImagesIsHeldAgainstThatOfFew(t *testing.T) {
	found, err := parseMark("pkg: x\n" +
		"BenchmarkMark/images=10/ours-2  \t 1\t 57434048 ns/op\t 27150 contents\t 60.98 cpu-us/list\t 119.0 cpu-us/segment\t 420.0 segments\n" +
		"BenchmarkMark/images=90/ours-2  \t 1\t 478885626 ns/op\t 83150 contents\t 80.17 cpu-us/list\t 237.7 cpu-us/segment\t 1220 segments\nPASS\n")
	if err != nil || len(found) != 2 || found[1] != (marked{images: "90", segments: 1220, perList: 80.17}) {
		t.Fatalf("%+v, %v", found, err)
	}
	if all := (&report{marked: found}).marks(); len(all) != 1 || !all[0].missed || !strings.Contains(all[0].measured, "61, 80 µs") {
		t.Errorf("%+v", all)
	}
	if all := (&report{marked: found[:1]}).marks(); all[0].missed {
		t.Errorf("%+v", all)
	}
}
