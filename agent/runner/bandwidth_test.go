package runner

import (
	"testing"
	"time"

	"k8s.io/utils/ptr"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

func TestBandwidthIsLimitedByWindows(t *testing.T) {
	const office, night, otherwise = 1 << 20, 9 << 20, 4 << 20
	limits := &v1alpha1.BandwidthLimits{
		TimeZone: "Europe/Berlin", BytesPerSecond: ptr.To[int64](otherwise),
		Windows: []v1alpha1.BandwidthWindow{
			{Days: []v1alpha1.Weekday{"Monday", "Friday"}, Start: "08:00", End: "18:00", BytesPerSecond: ptr.To[int64](office)},
			{Days: []v1alpha1.Weekday{"Saturday"}, Start: "22:00", End: "06:00", BytesPerSecond: ptr.To[int64](night)},
			{Days: []v1alpha1.Weekday{"Sunday"}, Start: "12:00", End: "24:00"},
		},
	}
	allowed, err := allowance(limits)
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct { // 2026-07-06 is a Monday; Berlin is two hours ahead of UTC
		at   string
		want int64
	}{
		"before the window, in its time zone":           {"2026-07-06T05:59:59Z", otherwise},
		"the window opens":                              {"2026-07-06T06:00:00Z", office},
		"its last second":                               {"2026-07-06T15:59:59Z", office},
		"the window is closed":                          {"2026-07-06T16:00:00Z", otherwise},
		"not on this day":                               {"2026-07-07T08:00:00Z", otherwise},
		"one hour later in winter":                      {"2026-01-05T06:30:00Z", otherwise},
		"a window over midnight, before it":             {"2026-07-11T21:00:00Z", night},
		"after midnight it is the next day's":           {"2026-07-12T03:59:00Z", night},
		"closed in the morning":                         {"2026-07-12T04:00:00Z", otherwise},
		"the morning of the day on which it opens":      {"2026-07-11T03:00:00Z", otherwise},
		"a window without a limit, to the end of a day": {"2026-07-12T21:59:59Z", 0},
	}
	for name, c := range cases {
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		if got := allowed(at); got != c.want {
			t.Errorf("%s: %d bytes per second, want %d", name, got, c.want)
		}
	}
}

func TestBandwidthThatCannotBeUnderstoodIsSaid(t *testing.T) {
	for name, limits := range map[string]*v1alpha1.BandwidthLimits{
		"an unknown time zone": {TimeZone: "Mars/Olympus"},
		"no time":              {TimeZone: "UTC", Windows: []v1alpha1.BandwidthWindow{{Start: "8 am", End: "18:00"}}},
		"more than a day":      {TimeZone: "UTC", Windows: []v1alpha1.BandwidthWindow{{Start: "08:00", End: "25:00"}}},
	} {
		if _, err := allowance(limits); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if allowed, err := allowance(nil); allowed != nil || err != nil {
		t.Error("without limits there is one")
	}
}
