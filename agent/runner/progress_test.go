package runner

import (
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/meter"
)

func TestProgressShowsTheLimit(t *testing.T) {
	const mib = 1 << 20
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	read := meter.Reading{Total: 1000 * mib, Done: 330 * mib, BytesPerSecond: mib, Left: 670 * time.Second}
	got := progressOf(read, now, 7, 20*mib)
	if want := "33% of 1000 MiB, 1.0 MiB/s, 11m10s to go, limited to 20 MiB/s"; got.Summary != want || got.BytesStored != 7 {
		t.Errorf("got %+v, want %q", got, want)
	}
	if !got.EstimatedCompletionTime.Time.Equal(now.Add(670 * time.Second)) {
		t.Errorf("done at %v", got.EstimatedCompletionTime)
	}
	if got := progressOf(read, now, 0, 0).Summary; got != read.String() {
		t.Errorf("without a limit: %q", got)
	}
}
