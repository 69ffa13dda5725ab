package image

import (
	"context"
	"fmt"

	"github.com/kopia/kopia/repo"
	"github.com/kopia/kopia/repo/maintenance"
	"github.com/kopia/kopia/snapshot/snapshotmaintenance"
)

// Safety says what else may use the repository while it is maintained.
type Safety int

const (
	// SafetyFull is safe next to running backups and restores. What a deleted image leaves is freed a day or two later.
	SafetyFull Safety = iota
	// SafetyNone frees everything at once. Nothing else may have the repository open, not even to read.
	SafetyNone
)

// MaintainOptions say how thorough maintenance is.
type MaintainOptions struct {
	// Full also frees what no image uses any more, due daily. Without it only the index is kept short, due hourly.
	Full   bool
	Safety Safety
}

// Maintain keeps a repository fast and frees what deleted images leave. Two processes must never maintain one repository at the same time:
// kopia's own lock is a local file, so the caller holds a lease. It refuses to work when the clocks of storage and caller differ by more
// than five minutes.
func (r *Repository) Maintain(ctx context.Context, opts MaintainOptions) error {
	if r.opts.AppendOnly {
		return fmt.Errorf("maintain repository: %w", ErrAppendOnly)
	}
	if err := r.configure(ctx); err != nil {
		return err
	}
	if err := r.mend(ctx); err != nil {
		return err
	}
	mode := maintenance.ModeQuick
	if opts.Full {
		mode = maintenance.ModeFull
	}
	safety := maintenance.SafetyFull
	if opts.Safety == SafetyNone {
		safety = maintenance.SafetyNone
	}
	err := repo.DirectWriteSession(ctx, r.session, repo.WriteSessionOptions{Purpose: "maintain"},
		func(ctx context.Context, w repo.DirectRepositoryWriter) error {
			return snapshotmaintenance.Run(ctx, w, mode, false, safety)
		})
	if err != nil {
		return fmt.Errorf("maintain repository: %w", err)
	}
	return nil
}
