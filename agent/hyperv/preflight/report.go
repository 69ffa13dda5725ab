package preflight

import (
	"fmt"
	"slices"
	"time"
)

// Result is the outcome of one check.
type Result string

// The results, worst first.
const (
	// Failed: backups will not work until this is put right.
	Failed Result = "failed"
	// Concern: backups work, and hold or promise less than one expects.
	Concern Result = "concern"
	// Unchecked: it could not be looked at here.
	Unchecked Result = "unchecked"
	// Passed: as it should be.
	Passed Result = "ok"
)

// Check is one thing that was looked at.
type Check struct {
	Section string `json:"section"`
	Name    string `json:"name"`
	Result  Result `json:"result"`
	// Found is what the host has.
	Found string `json:"found,omitempty"`
	// Remedy is what to do, "" when nothing.
	Remedy string `json:"remedy,omitempty"`

	heading bool // the checks that follow are what it is made of
}

// The sections, in their order.
const (
	SectionHost      = "Host"
	SectionProcess   = "Process"
	SectionServices  = "Services"
	SectionClasses   = "WMI classes"
	SectionCluster   = "Cluster"
	SectionVolumes   = "Volumes"
	SectionMachines  = "Virtual machines"
	SectionLeftovers = "Leftovers"
	SectionCycle     = "Backup cycle"
)

// Report is what a preflight found.
type Report struct {
	// Time is when it began, by this computer's clock.
	Time time.Time `json:"time"`
	// Agent is the version of the program, Host the host's name.
	Agent  string  `json:"agent"`
	Host   string  `json:"host,omitempty"`
	Checks []Check `json:"checks"`
	// Cycle has what a cycle measured, when there was one.
	Cycle *Measurements `json:"cycle,omitempty"`
	// Verdict is the worst result, and Summary says it in a sentence.
	Verdict Result `json:"verdict"`
	Summary string `json:"summary"`
	// Open are the questions that this run could not answer.
	Open []string `json:"open,omitempty"`
}

func (r *Report) add(section, name string, result Result, found, remedy string) {
	r.Checks = append(r.Checks, Check{Section: section, Name: name, Result: result, Found: found, Remedy: remedy})
}

func (r *Report) pass(section, name, format string, args ...any) {
	r.add(section, name, Passed, fmt.Sprintf(format, args...), "")
}

// fail adds a check that could not be made because of an error.
func (r *Report) fail(section, name string, err error, remedy string) {
	r.add(section, name, Failed, err.Error(), remedy)
}

// count is how many checks ended so.
func (r *Report) count(result Result) int {
	n := 0
	for _, c := range r.Checks {
		if c.Result == result && !c.heading {
			n++
		}
	}
	return n
}

// conclude makes the verdict of the checks.
func (r *Report) conclude() {
	failed, concerns := r.count(Failed), r.count(Concern)
	switch {
	case failed > 0:
		r.Verdict = Failed
		r.Summary = fmt.Sprintf("Not ready: %s to put right, %s besides.", plural(failed, "failure"), plural(concerns, "concern"))
	case concerns > 0:
		r.Verdict = Concern
		r.Summary = fmt.Sprintf("Ready, with %s: backups work and hold or promise less than they could.", plural(concerns, "concern"))
	default:
		r.Verdict = Passed
		r.Summary = "Ready: nothing stands in the way of backups."
	}
	r.Open = slices.Clone(openQuestions)
	if r.Cycle == nil {
		r.Open = slices.Concat(cycleQuestions, openQuestions)
	}
}

// Exit codes of the command.
const (
	ExitReady    = 0
	ExitConcerns = 1
	ExitNotReady = 2
)

// ExitCode is the process's: 0 when nothing stands in the way, 1 with concerns, 2 when backups will not work.
func (r *Report) ExitCode() int {
	switch r.Verdict {
	case Passed:
		return ExitReady
	case Concern:
		return ExitConcerns
	}
	return ExitNotReady
}

// cycleQuestions are those that a cycle answers.
var cycleQuestions = []string{
	"Can the frozen disks of a checkpoint be read, and how fast? (--vm NAME --yes)",
	"Does the change tracking of this build tell every change? (--vm NAME --yes)",
	"Is the log of a frozen parent dirty right after a checkpoint? (--vm NAME --yes)",
	"Is the merge after a checkpoint ever finished, and is nothing left? (--vm NAME --yes)",
}

// openQuestions are those that only a person's test on a real host answers.
var openQuestions = []string{
	"Does change tracking notice a resize, a storage migration, a return to a checkpoint, a power loss of the host and a live migration?",
	"Does a configuration that was copied from a checkpoint import and boot, in both generations and with a virtual TPM?",
	"How do the guests fail to quiesce: a stopped service, a Linux guest without its daemon, dynamic disks?",
	"How many virtual machines can be backed up at once before Hyper-V makes them wait?",
}

func plural(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
