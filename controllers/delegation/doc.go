// Package delegation hands work to agents: it places tasks on hosts, follows them, and judges the runs that they belong to. BackupJobs and
// RestoreJobs share its rules; what is peculiar to either stays with its controller.
//
// A run is judged by a pure function, Decide, from what was observed. The tasks that exist are the truth about a run: each has a name that
// follows from its owner and attempt, so that a manager that was killed finds what it began instead of beginning it twice.
package delegation
