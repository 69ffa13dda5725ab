package runner

import (
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

func TestMeterShowsRateAndTimeToGo(t *testing.T) {
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var m meter
	const mib = 1 << 20
	var last *v1alpha1.Progress
	for second := range 61 {
		done := int64(second) * 10 * mib
		if second > 30 {
			done = 30*10*mib + int64(second-30)*mib // the source became slow
		}
		last = m.read(start.Add(time.Duration(second)*time.Second), 1000*mib, done, done/2)
	}
	if last.BytesPerSecond != mib {
		t.Errorf("the rate is %d, want that of the last half minute", last.BytesPerSecond)
	}
	if want := start.Add(60*time.Second + 670*time.Second); !last.EstimatedCompletionTime.Time.Equal(want) {
		t.Errorf("done at %v, want %v", last.EstimatedCompletionTime, want)
	}
	if want := "33% of 1000 MiB, 1.0 MiB/s, 11m10s to go"; last.Summary != want {
		t.Errorf("says %q, want %q", last.Summary, want)
	}
	m.limit = image.NewBandwidth(time.Now)
	m.limit.Limit(func(time.Time) int64 { return 20 * mib })
	if got := m.read(start.Add(time.Minute), 1000*mib, 330*mib, 0).Summary; !strings.HasSuffix(got, "to go, limited to 20 MiB/s") {
		t.Errorf("with a limit: says %q", got)
	}
	if len(m.samples) > 32 {
		t.Errorf("keeps %d samples", len(m.samples))
	}
}

func TestSummaryOfAnEndedTransfer(t *testing.T) {
	now := time.Now()
	var m meter
	m.read(now, 0, 0, 0)
	if got := m.read(now.Add(time.Second), 0, 0, 0).Summary; got != "100% of 0 B" {
		t.Errorf("says %q", got)
	}
}
