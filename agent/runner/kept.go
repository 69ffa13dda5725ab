package runner

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/agent/image"
)

// keptFor is how long a repository stays open after its last task.
const keptFor = 15 * time.Minute

// Kept has the repositories of a keeper open from task to task. Opening one derives its key from the password, which is made to take long, and reads
// everything about it: many repositories that are probed often would keep a processor busy with nothing else.
type Kept struct {
	clock clock.PassiveClock

	mu   sync.Mutex
	open map[string]*keptRepository // by the name of the BackupRepository
}

type keptRepository struct {
	repository *image.Repository
	// access is what it was opened with: with something else it has to be opened anew.
	access string
	users  int
	// retired is set when it is to be closed with its last user.
	retired bool
	last    time.Time
}

// NewKept has none open yet.
func NewKept(clk clock.PassiveClock) *Kept {
	return &Kept{clock: clk, open: map[string]*keptRepository{}}
}

// Use calls do with the repository of a name. It is opened unless it is open already, with the same access, and still the one at its place.
func (k *Kept) Use(ctx context.Context, name, access string, open func() (*image.Repository, error), do func(*image.Repository) error) (err error) {
	entry := k.take(name, access)
	if entry != nil && !entry.repository.Unchanged(ctx) {
		if err := k.give(ctx, entry, true); err != nil {
			return err
		}
		entry = nil
	}
	if entry == nil {
		opened, err := open()
		if err != nil {
			return err
		}
		if entry, err = k.add(ctx, name, &keptRepository{repository: opened, access: access, users: 1}); err != nil {
			return errors.Join(err, k.give(ctx, entry, false))
		}
	}
	defer func() { err = errors.Join(err, k.give(ctx, entry, false)) }()
	return do(entry.repository)
}

// take is nil when the repository is not open, or open with another access.
func (k *Kept) take(name, access string) *keptRepository {
	k.mu.Lock()
	defer k.mu.Unlock()
	entry := k.open[name]
	if entry == nil || entry.access != access || entry.retired {
		return nil
	}
	entry.users++
	return entry
}

// add takes a repository in, in place of one that was open under its name, and closes those that nobody used for long.
func (k *Kept) add(ctx context.Context, name string, entry *keptRepository) (*keptRepository, error) {
	now := k.clock.Now()
	k.mu.Lock()
	before := k.open[name]
	k.open[name] = entry
	var idle []*keptRepository
	for other, e := range k.open {
		if e.users == 0 && now.Sub(e.last) > keptFor {
			idle = append(idle, e)
			delete(k.open, other)
		}
	}
	if before != nil {
		before.retired = true
		if before.users == 0 {
			idle = append(idle, before)
		}
	}
	k.mu.Unlock()
	return entry, closeAll(ctx, idle)
}

// give ends a use. The last one of a retired repository closes it.
func (k *Kept) give(ctx context.Context, entry *keptRepository, retire bool) error {
	k.mu.Lock()
	entry.users--
	entry.last = k.clock.Now()
	entry.retired = entry.retired || retire
	done := entry.retired && entry.users == 0
	for name, e := range k.open {
		if done && e == entry {
			delete(k.open, name)
		}
	}
	k.mu.Unlock()
	if !done {
		return nil
	}
	return closeAll(ctx, []*keptRepository{entry})
}

// Close closes all that nobody uses any more, and has those closed that are in use when that ends.
func (k *Kept) Close(ctx context.Context) error {
	k.mu.Lock()
	var idle []*keptRepository
	for name, e := range k.open {
		e.retired = true
		if e.users == 0 {
			idle = append(idle, e)
			delete(k.open, name)
		}
	}
	k.mu.Unlock()
	return closeAll(ctx, idle)
}

func closeAll(ctx context.Context, entries []*keptRepository) error {
	var errs []error
	for _, e := range entries {
		errs = append(errs, e.repository.Close(context.WithoutCancel(ctx)))
	}
	return errors.Join(errs...)
}
