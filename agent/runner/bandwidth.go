package runner

import (
	"fmt"
	"slices"
	"time"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// allowance turns limits into what is allowed at a time, in bytes per second; zero is no limit. Nil allows anything.
func allowance(limits *v1alpha1.BandwidthLimits) (func(time.Time) int64, error) {
	if limits == nil {
		return nil, nil
	}
	zone, err := time.LoadLocation(limits.TimeZone)
	if err != nil {
		return nil, stall("TimeZoneUnknown", fmt.Errorf("the bandwidth of the host is limited in the time zone %q, which this agent does not know: %w", limits.TimeZone, err))
	}
	windows := make([]window, len(limits.Windows))
	for i, w := range limits.Windows {
		if windows[i], err = newWindow(w); err != nil {
			return nil, stall("BandwidthWindowInvalid", err)
		}
	}
	return func(now time.Time) int64 {
		now = now.In(zone)
		for _, w := range windows {
			if w.open(now) {
				return w.bytesPerSecond
			}
		}
		return orNone(limits.BytesPerSecond)
	}, nil
}

func orNone(limit *int64) int64 {
	if limit == nil {
		return 0
	}
	return *limit
}

// window is a v1alpha1.BandwidthWindow in minutes of a day.
type window struct {
	days           []v1alpha1.Weekday
	start, end     int
	bytesPerSecond int64
}

const day = 24 * 60

func newWindow(w v1alpha1.BandwidthWindow) (window, error) {
	start, err := minutes(w.Start)
	if err != nil {
		return window{}, err
	}
	end, err := minutes(w.End)
	return window{days: w.Days, start: start, end: end, bytesPerSecond: orNone(w.BytesPerSecond)}, err
}

func minutes(text string) (int, error) {
	var hour, minute int
	if _, err := fmt.Sscanf(text, "%2d:%2d", &hour, &minute); err != nil || hour < 0 || minute < 0 || minute > 59 || hour*60+minute > day {
		return 0, fmt.Errorf("a bandwidth window has the time %q: write it as 08:00", text)
	}
	return hour*60 + minute, nil
}

// open says whether a time is in the window. One that goes over midnight belongs to the day on which it starts.
func (w window) open(now time.Time) bool {
	at := now.Hour()*60 + now.Minute()
	if w.start < w.end {
		return w.on(now.Weekday()) && at >= w.start && at < w.end
	}
	return w.on(now.Weekday()) && at >= w.start || w.on(now.Weekday()+6) && at < w.end
}

func (w window) on(day time.Weekday) bool {
	return len(w.days) == 0 || slices.Contains(w.days, v1alpha1.Weekday((day%7).String()))
}
