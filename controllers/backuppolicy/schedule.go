package backuppolicy

import (
	"fmt"
	"strings"
	"time"

	// Images of the manager have no time zones of their own.
	_ "time/tzdata"

	"github.com/robfig/cron/v3"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// editGrace is how old a slot may be that becomes due by an edit. Without it, an edit in the very moment of a slot would lose the run; with more, a
// changed schedule would start runs for times that were not on it then.
const editGrace = time.Minute

// parse reads a schedule in its time zone. In the hour that daylight saving skips nothing is due, and what lies in the hour that it repeats is due once.
func parse(schedule v1alpha1.Schedule) (cron.Schedule, error) {
	if strings.HasPrefix(schedule.Cron, "@every") {
		return nil, fmt.Errorf("schedule %s (%q): an interval has no times of day; use five fields, such as 0 * * * *", schedule.Name, schedule.Cron)
	}
	parsed, err := cron.ParseStandard("CRON_TZ=" + schedule.TimeZone + " " + schedule.Cron)
	if err != nil {
		return nil, fmt.Errorf("schedule %s (%q in %q): %w", schedule.Name, schedule.Cron, schedule.TimeZone, err)
	}
	if parsed.Next(time.Unix(0, 0)).IsZero() {
		return nil, fmt.Errorf("schedule %s (%q): such a day never comes", schedule.Name, schedule.Cron)
	}
	return parsed, nil
}

// due is the newest slot after last and not after now that is not older than patience, and whether older ones were missed. The slot is zero when there
// is none.
func due(schedule cron.Schedule, last, now time.Time, patience time.Duration) (slot time.Time, missed bool) {
	from := last
	if oldest := now.Add(-patience); from.Before(oldest) {
		from = oldest.Add(-time.Second) // Next is after, not at
		missed = !schedule.Next(last).After(from)
	}
	for next := schedule.Next(from); !next.IsZero() && !next.After(now); next = schedule.Next(next) {
		missed = missed || !slot.IsZero()
		slot = next
	}
	return slot, missed
}

// following is the next slot that has not been run, passed over, or missed.
func following(schedule cron.Schedule, last, now time.Time) time.Time {
	if next := schedule.Next(last); next.After(now) {
		return next
	}
	return schedule.Next(now)
}
