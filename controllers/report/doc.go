// Package report says what a controller found and did: it edits conditions, writes the status of an object once, sends events only after that
// write succeeded, and ends a reconcile with a reason to look again.
package report
