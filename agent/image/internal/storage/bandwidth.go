package storage

import (
	"cmp"
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Bandwidth bounds how many bytes a second all storages that share it may be sent, as an average over some blobs: a blob waits until its bytes are
// due, and is sent at once then. It is safe for concurrent use. Nil bounds nothing.
type Bandwidth struct {
	now     func() time.Time
	limiter *rate.Limiter
	mu      sync.Mutex
	allowed func(time.Time) int64
}

// bandwidthStep is how many bytes are waited for at a time. A limit that changes meanwhile counts from the next step on.
const bandwidthStep = 64 << 10

// NewBandwidth is without a limit. now is the clock that limits go by.
func NewBandwidth(now func() time.Time) *Bandwidth {
	return &Bandwidth{now: now, limiter: rate.NewLimiter(rate.Inf, bandwidthStep)}
}

// Limit sets what is allowed at any time, in bytes per second; zero is no limit. It counts for what waits already, too. Nil takes all limits away.
func (b *Bandwidth) Limit(allowed func(time.Time) int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.allowed = allowed
}

// Limited is how many bytes per second are allowed now; zero is no limit.
func (b *Bandwidth) Limited() int64 {
	if b == nil {
		return 0
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.allowed == nil {
		return 0
	}
	return b.allowed(b.now())
}

// Wait returns when n bytes are due, for who is bounded by something else than what it stores.
func (b *Bandwidth) Wait(ctx context.Context, n int64) error {
	for ; n > 0; n -= bandwidthStep {
		allowed := b.Limited()
		if allowed <= 0 {
			return nil
		}
		b.limiter.SetLimit(rate.Limit(allowed))
		if err := b.limiter.WaitN(ctx, int(min(n, bandwidthStep))); err != nil { // ctx has ended, or will before the bytes are due
			return cmp.Or(ctx.Err(), context.DeadlineExceeded)
		}
	}
	return nil
}
