// Package runner carries out the tasks that the manager delegates to one agent: it is the only package that knows both Kubernetes and bytes.
//
// One agent works for one namespace at a time (claim.go). It watches the AgentTasks there (tasks.go), hands each to the Handler of its kind, and
// alone writes their status (report.go). What a task does to the host is written into a journal on the host before it happens (journal.go), so
// that an agent that was killed takes its tasks up again, and a task that nobody remembers leaves nothing behind (sweep.go).
//
// A backup is read from top to bottom in backup.go, a restore in restore.go.
package runner
