package runner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/ptr"
)

// ErrLeaseLost means that another process works on the repository now, which this one must leave alone.
var ErrLeaseLost = errors.New("another process has taken over the lease of the repository")

// giveBackTimeout is how long giving a lease back may take. Without that, the next holder waits until it has expired.
const giveBackTimeout = 5 * time.Second

// Exclusive lets one process, and one of its tasks, at a time do to a repository what must not happen twice at once (R2): delete, maintain, change the
// password. Writers and readers do not ask for it.
type Exclusive struct {
	claim *Claim // of the namespace: leases of repositories are beside it

	mu    sync.Mutex
	turns map[string]chan struct{} // by repository; one element while nobody has it
}

// NewExclusive makes the leases of repositories, held under the name of whoever holds the claim.
func NewExclusive(claim *Claim) *Exclusive {
	return &Exclusive{claim: claim, turns: map[string]chan struct{}{}}
}

func (e *Exclusive) turn(repository string) chan struct{} {
	e.mu.Lock()
	defer e.mu.Unlock()
	turn, known := e.turns[repository]
	if !known {
		turn = make(chan struct{}, 1)
		turn <- struct{}{}
		e.turns[repository] = turn
	}
	return turn
}

// Run waits for the lease of a repository and does something under it. Its context ends with ErrLeaseLost when the lease is lost.
func (e *Exclusive) Run(ctx context.Context, repository string, do func(context.Context) error) error {
	turn := e.turn(repository)
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-turn:
	}
	defer func() { turn <- struct{}{} }()
	lease := *e.claim
	lease.Name = leaseOf(repository)
	if err := lease.Acquire(ctx); err != nil {
		return fmt.Errorf("lease of repository %s: %w", repository, err)
	}
	under, lose := context.WithCancelCause(ctx)
	var keeping sync.WaitGroup
	keeping.Go(func() {
		if err := lease.Keep(under); errors.Is(err, ErrClaimLost) {
			lose(ErrLeaseLost)
		}
	})
	err := causeOf(under, do(under))
	lose(nil)
	keeping.Wait()
	lease.giveBack(context.WithoutCancel(ctx))
	return err
}

// leaseOf is the name of a repository's lease.
func leaseOf(repository string) string { return "repository-" + repository }

// giveBack lets the next holder in at once. What fails ends with the lease's duration.
func (c *Claim) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, giveBackTimeout)
	defer cancel()
	lease, err := c.read(ctx)
	if err == nil && ptr.Deref(lease.Spec.HolderIdentity, "") == c.identity() {
		lease.Spec = coordinationv1.LeaseSpec{LeaseTransitions: lease.Spec.LeaseTransitions}
		_ = c.Client.Update(ctx, lease)
	}
}
