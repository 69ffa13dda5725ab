package meter

import (
	"testing"
	"time"
)

func TestMeterShowsRateAndTimeToGo(t *testing.T) {
	start := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	var m Meter
	const mib = 1 << 20
	var last Reading
	for second := range 61 {
		done := int64(second) * 10 * mib
		if second > 30 {
			done = 30*10*mib + int64(second-30)*mib // the source became slow
		}
		last = m.Read(start.Add(time.Duration(second)*time.Second), 1000*mib, done)
	}
	if last.BytesPerSecond != mib {
		t.Errorf("the rate is %d, want that of the last half minute", last.BytesPerSecond)
	}
	if want := 670 * time.Second; last.Left != want {
		t.Errorf("%v to go, want %v", last.Left, want)
	}
	if want := "33% of 1000 MiB, 1.0 MiB/s, 11m10s to go"; last.String() != want {
		t.Errorf("says %q, want %q", last, want)
	}
	if len(m.samples) > 32 {
		t.Errorf("keeps %d samples", len(m.samples))
	}
}

func TestReadingOfAnEndedTransfer(t *testing.T) {
	now := time.Now()
	var m Meter
	m.Read(now, 0, 0)
	if got := m.Read(now.Add(time.Second), 0, 0).String(); got != "100% of 0 B" {
		t.Errorf("says %q", got)
	}
}
