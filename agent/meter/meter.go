// Package meter turns counts of bytes into what a person wants to know while waiting: how far, how fast, how long to go.
package meter

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
)

// window is how far back the rate looks: long enough to be calm, short enough to show a stall.
const window = 30 * time.Second

// Meter takes samples of a transfer. The zero value is ready. It is not safe for concurrent use.
type Meter struct {
	samples []sample // of the last window, oldest first
}

type sample struct {
	at   time.Time
	done int64
}

// Reading is where a transfer is.
type Reading struct {
	Total, Done    int64 // bytes
	BytesPerSecond int64 // of the last half minute
	// Left is the time to go, zero when it is not known or nothing is left.
	Left time.Duration
}

// Read takes a sample.
func (m *Meter) Read(now time.Time, total, done int64) Reading {
	m.samples = append(m.samples, sample{now, done})
	for len(m.samples) > 2 && now.Sub(m.samples[0].at) > window {
		m.samples = m.samples[1:]
	}
	r := Reading{Total: total, Done: done}
	first := m.samples[0]
	if elapsed := now.Sub(first.at).Seconds(); elapsed > 0 {
		r.BytesPerSecond = max(0, int64(float64(done-first.done)/elapsed)) // a disk that is read anew goes back
	}
	if left := total - done; left > 0 && r.BytesPerSecond > 0 {
		r.Left = time.Duration(float64(left) / float64(r.BytesPerSecond) * float64(time.Second))
	}
	return r
}

// String says it in a few words.
func (r Reading) String() string {
	percent := int64(100)
	if r.Total > 0 {
		percent = min(100, r.Done*100/r.Total)
	}
	text := fmt.Sprintf("%d%% of %s", percent, humanize.IBytes(uint64(max(0, r.Total))))
	if r.Done < r.Total && r.BytesPerSecond > 0 {
		text += fmt.Sprintf(", %s/s", humanize.IBytes(uint64(r.BytesPerSecond)))
	}
	if r.Left > 0 {
		text += fmt.Sprintf(", %s to go", r.Left.Round(time.Second))
	}
	return text
}
