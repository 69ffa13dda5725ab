package runner

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// rateWindow is how far back the rate looks: long enough to be calm, short enough to show a stall.
const rateWindow = 30 * time.Second

// meter turns counts of bytes into a progress with rate and time to go.
type meter struct {
	samples []sample // of the last rateWindow, oldest first
	limit   *image.Bandwidth
}

type sample struct {
	at   time.Time
	done int64
}

// read takes a sample and returns the progress.
func (m *meter) read(now time.Time, total, done, stored int64) *v1alpha1.Progress {
	m.samples = append(m.samples, sample{now, done})
	for len(m.samples) > 2 && now.Sub(m.samples[0].at) > rateWindow {
		m.samples = m.samples[1:]
	}
	p := &v1alpha1.Progress{BytesTotal: total, BytesDone: done, BytesStored: stored}
	first := m.samples[0]
	if elapsed := now.Sub(first.at).Seconds(); elapsed > 0 {
		p.BytesPerSecond = max(0, int64(float64(done-first.done)/elapsed)) // a disk that is read anew goes back
	}
	if left := total - done; left > 0 && p.BytesPerSecond > 0 {
		eta := metav1.NewTime(now.Add(time.Duration(float64(left) / float64(p.BytesPerSecond) * float64(time.Second))))
		p.EstimatedCompletionTime = &eta
	}
	p.Summary = summary(p, now)
	if limit := m.limit.Limited(); limit > 0 {
		p.Summary += fmt.Sprintf(", limited to %s/s", humanize.IBytes(uint64(limit)))
	}
	return p
}

// summary says in a few words what a person wants to know while waiting: how far, how fast, how long to go.
func summary(p *v1alpha1.Progress, now time.Time) string {
	percent := int64(100)
	if p.BytesTotal > 0 {
		percent = min(100, p.BytesDone*100/p.BytesTotal)
	}
	text := fmt.Sprintf("%d%% of %s", percent, humanize.IBytes(uint64(max(0, p.BytesTotal))))
	if p.BytesDone < p.BytesTotal && p.BytesPerSecond > 0 {
		text += fmt.Sprintf(", %s/s", humanize.IBytes(uint64(p.BytesPerSecond)))
	}
	if p.EstimatedCompletionTime != nil {
		text += fmt.Sprintf(", %s to go", p.EstimatedCompletionTime.Sub(now).Round(time.Second))
	}
	return text
}
