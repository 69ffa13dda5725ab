package runner

import (
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// TestRecordedState is the table of NV-16.
func TestRecordedState(t *testing.T) {
	cases := map[string]struct {
		before hyperv.State
		saved  bool
		want   hyperv.State
	}{
		"it ran, and the writer offered it online": {hyperv.Running, false, hyperv.Off},
		"it ran, and the writer saved it":          {hyperv.Running, true, hyperv.Saved},
		"it was saved":                             {hyperv.Saved, false, hyperv.Saved},
		"it was paused":                            {hyperv.Paused, false, hyperv.Saved},
		"it was off":                               {hyperv.Off, false, hyperv.Off},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := recordedState(c.before, c.saved); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestRestoredState(t *testing.T) {
	saved := map[string]string{annotationRestoredState: string(hyperv.Saved)}
	cases := map[string]struct {
		asked    v1alpha1.RestoredState
		recorded map[string]string
		want     hyperv.State
	}{
		"as the image records":               {v1alpha1.RestoredAsRecorded, saved, hyperv.Saved},
		"off in place of what it records":    {v1alpha1.RestoredOff, saved, hyperv.Off},
		"saved where it records nothing":     {v1alpha1.RestoredSaved, nil, hyperv.Saved},
		"as it comes, of an image by WMI":    {v1alpha1.RestoredAsRecorded, nil, ""},
		"as an older manager asks: recorded": {"", saved, hyperv.Saved},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := restoredState(c.asked, c.recorded); got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}
