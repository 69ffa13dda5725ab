package runner

import (
	"context"
	"fmt"
	"sync"
	"time"

	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// turns lets one party at a time work on what carries a restore's mark, which all of its attempts share: one attempt, or the sweeper. The zero value is ready.
type turns struct {
	mu    sync.Mutex
	taken map[string]chan struct{} // by restore; closed at the end
}

// try takes the turn of a restore, when nobody has it. Otherwise end is nil, and busy is closed when the turn ends that is in the way.
func (t *turns) try(id string) (end func(), busy <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if other, taken := t.taken[id]; taken {
		return nil, other
	}
	if t.taken == nil {
		t.taken = map[string]chan struct{}{}
	}
	turn := make(chan struct{})
	t.taken[id] = turn
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.taken, id)
		close(turn)
	}, nil
}

// take waits for the turn of a restore.
func (t *turns) take(ctx context.Context, id string) (end func(), err error) {
	for {
		end, busy := t.try(id)
		if end != nil {
			return end, nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// inherit leaves nothing of the earlier attempts of a restore but what one of them has achieved, which it returns: what they made carries the same mark, so
// it would be taken for this attempt's. The caller has the restore's turn. The warnings are those of undo.
func (r *restore) inherit(ctx context.Context, entry Entry) (Entry, []string, error) {
	entries, err := r.journal.List()
	if err != nil {
		return entry, nil, err
	}
	var warnings []string
	for _, earlier := range entries {
		if earlier.Restore == nil || earlier.Restore.ID != entry.Restore.ID || earlier.Tag == entry.Tag {
			continue
		}
		if earlier.Restore.Result != nil {
			entry.VirtualMachineID, entry.Restore = earlier.VirtualMachineID, earlier.Restore
			if err := r.journal.Put(entry); err != nil {
				return entry, warnings, err
			}
			if err := r.journal.Delete(earlier.Tag); err != nil {
				return entry, warnings, err
			}
			continue
		}
		lasting, done := committed(ctx)
		undoing, cancel := context.WithTimeout(lasting, undoTimeout)
		more, err := r.undo(undoing, earlier)
		cancel()
		done()
		warnings = append(warnings, more...)
		if err != nil {
			return entry, warnings, retry(v1alpha1.ReasonFailed, fmt.Errorf("an earlier attempt is in the way: %w", err))
		}
	}
	return entry, warnings, nil
}

// sweep takes back what a task left that is dead, or clears up after it when it had succeeded. It does nothing while an attempt of the same restore is worked
// on, which does it itself.
func (r *restore) sweep(ctx context.Context, tag, id string, now time.Time) error {
	end, _ := r.turns.try(id)
	if end == nil {
		return nil
	}
	defer end()
	entry, found, err := r.journal.Get(tag)
	if err != nil || !found || entry.Restore == nil {
		return err
	}
	if entry.Restore.Result != nil {
		return r.settle(ctx, entry, now)
	}
	warnings, err := r.undo(ctx, entry)
	for _, warning := range warnings {
		ctrl.LoggerFrom(ctx).Info("The original of a dead restore was put back, not quite as it was", "restore", id, "warning", warning)
	}
	return err
}
