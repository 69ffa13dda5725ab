package image

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/maintenance"
)

// ErrClock means that nothing is deleted, because it may be earlier than the clocks say.
var ErrClock = errors.New("the clocks cannot be trusted")

const (
	// clockChecks is where kopia's schedule of maintenance records when the clocks were looked at. Agents cannot write it.
	clockChecks maintenance.TaskType = "hyperkeep-clocks"
	// scheduleBlob is that schedule ([kopia] repo/maintenance/maintenance_schedule.go).
	scheduleBlob blob.ID = "kopia.maintenance"

	// maxClockDrift between here and the storage is what kopia's maintenance allows as well.
	maxClockDrift = 5 * time.Minute
	// maxSilence is how long nobody may have looked at the clocks before a leap is suspected. Maintenance looks every hour.
	maxSilence = 14 * 24 * time.Hour
	// distrust is how long nothing is deleted after a leap: somebody has to have the time to see it, a weekend included.
	distrust = 3 * 24 * time.Hour
)

// trustClocks finds out whether what is due by the clock may be deleted (T4). Our clock and that of the storage have to agree, and time must not
// have leapt since they were looked at last. After a leap they are trusted again when time has gone on evenly for three days, which it also does when the
// keeper was only off for long.
func (r *Repository) trustClocks(ctx context.Context) error {
	return repo.DirectWriteSession(ctx, r.session, repo.WriteSessionOptions{Purpose: "look at the clocks"},
		func(ctx context.Context, w repo.DirectRepositoryWriter) error {
			schedule, err := maintenance.GetSchedule(ctx, w)
			if err != nil {
				return fmt.Errorf("look at the clocks: %w", err)
			}
			check, distrusted := nextCheck(schedule.Runs[clockChecks], w.Time())
			schedule.ReportRun(clockChecks, check)
			if err := maintenance.SetSchedule(ctx, w, schedule); err != nil {
				return fmt.Errorf("look at the clocks: %w", err)
			}
			stored, err := w.BlobReader().GetMetadata(ctx, scheduleBlob)
			if err != nil {
				return fmt.Errorf("look at the clocks: %w", err)
			}
			if drift := w.Time().Sub(stored.Timestamp).Abs(); drift > maxClockDrift {
				return fmt.Errorf("%w: the keeper's differs from that of the storage by %s: correct one of them", ErrClock, drift.Round(time.Second))
			}
			return distrusted
		})
}

// nextCheck is what is to be recorded after the earlier checks, the latest first. Start of a check is since when time goes on evenly, End is the
// check itself. The error is not nil while that is too short.
func nextCheck(earlier []maintenance.RunInfo, now time.Time) (maintenance.RunInfo, error) {
	next := maintenance.RunInfo{Start: now, End: now, Success: true}
	if len(earlier) == 0 {
		return next, nil
	}
	last := earlier[0]
	if gone := now.Sub(last.End); gone < -maxClockDrift || gone > maxSilence {
		next.Success = false
		next.Error = fmt.Sprintf("%s lie between two looks at the clocks", gone.Round(time.Minute))
	} else {
		next.Start, next.Success, next.Error = last.Start, last.Success, last.Error
	}
	if next.Success || now.Sub(next.Start) >= distrust {
		next.Success, next.Error = true, ""
		return next, nil
	}
	return next, fmt.Errorf("%w: %s. Either a clock was changed, or nobody has maintained the repository for long. "+
		"Correct the clocks if need be; nothing is deleted before %s", ErrClock, next.Error, next.Start.Add(distrust).UTC().Format(time.RFC3339))
}
