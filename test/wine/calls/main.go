// Command calls lists the methods and functions of Windows that the agent's code can call, beside how often each was really executed, and how often it
// was seen to fail. It ends with 1 when one was never executed, or never failed though it can.
//
//	calls FOLDER    the folder with what emulated hosts counted (emulator.UsageCounts), a file each
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: calls FOLDER")
		os.Exit(2)
	}
	missing, err := compare(os.Stdout, "agent", "test/wine/shim", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "calls:", err)
		os.Exit(2)
	}
	if missing > 0 {
		fmt.Fprintf(os.Stderr, "%d calls of the code were not executed, or not seen to fail: a test that does is missing\n", missing)
		os.Exit(1)
	}
}

// outcome is how often a call was executed.
type outcome struct{ succeeded, failed int }

// cannotFail are the methods and functions that return nothing which could tell a failure (vsbackup.h, IUnknown).
var cannotFail = []string{"Release", "VssFreeSnapshotPropertiesInternal"}

// compare prints a line for each call in the code, and returns how many lack a success or a failure.
func compare(out io.Writer, code, shims, records string) (missing int, err error) {
	inCode, err := callsInCode(code, shims)
	if err != nil {
		return 0, err
	}
	executed, err := executedCalls(records)
	if err != nil {
		return 0, err
	}
	calls := make([]call, 0, len(inCode))
	for c := range inCode {
		calls = append(calls, c)
	}
	slices.SortFunc(calls, func(a, b call) int { return strings.Compare(a.kind+a.name, b.kind+b.name) })
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "CALL\tKIND\tSUCCEEDED\tFAILED\tFIRST PLACE\t")
	for _, c := range calls {
		o, note := executed[c.name], ""
		if o.succeeded == 0 || (o.failed == 0 && !slices.Contains(cannotFail, c.name)) {
			missing++
			note = "MISSING"
		}
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%s\t%s\n", c.name, c.kind, o.succeeded, o.failed, inCode[c], note)
	}
	return missing, table.Flush()
}

// Return values that are no failure: done, and a job was started, whose own failure is counted by itself.
const (
	done       = 0
	jobStarted = 4096
)

// executedCalls adds up what hosts counted, by the name of the method or function alone.
func executedCalls(folder string) (map[string]outcome, error) {
	files, err := filepath.Glob(filepath.Join(folder, "*.json"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no host left a record in %s", folder)
	}
	sums := map[string]outcome{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		var counts emulator.UsageCounts
		if err := json.Unmarshal(text, &counts); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		for name, codes := range counts.Calls {
			name = name[strings.LastIndex(name, ".")+1:]
			sum := sums[name]
			for code, times := range codes {
				if code == done || code == jobStarted {
					sum.succeeded += times
				} else {
					sum.failed += times
				}
			}
			sums[name] = sum
		}
	}
	return sums, nil
}
