// Package liveness tells by a Lease whether an agent lives. It trusts no clock but the observer's own: a lease has expired when it did not change for
// its duration by that clock. An agent with a wrong clock is therefore neither dead nor immortal.
package liveness

import (
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

const (
	// defaultDuration is for a lease that does not say how long it lasts: what Kubernetes' own nodes use.
	defaultDuration = 40 * time.Second
	// maxDuration bounds what an agent can claim, so that a compromised one cannot pass for alive after it was cut off.
	maxDuration = 5 * time.Minute
)

// State of an agent.
type State string

// States of an agent.
const (
	// NeverSeen means that there is no lease.
	NeverSeen State = "NeverSeen"
	// Undecided means that this observer has not watched the lease for its duration yet, as after a restart: what was believed before still counts.
	Undecided State = "Undecided"
	// Alive means that the lease changed within its duration.
	Alive State = "Alive"
	// Lost means that the lease did not change for its duration.
	Lost State = "Lost"
)

// Pulse is what is known of an agent at one moment.
type Pulse struct {
	State State
	// Until is when the state changes if the lease does not. Zero while only a change of the lease can change it.
	Until time.Time
}

// Observer watches leases. It remembers, for each, when it changed last by the observer's clock; after a restart it starts to watch anew. Its zero
// value is ready, and may be used by several goroutines.
type Observer struct {
	mu   sync.Mutex
	seen map[types.NamespacedName]sighting
}

// sighting is the newest change of a lease.
type sighting struct {
	present   bool
	renewed   metav1.MicroTime
	holder    string
	at        time.Time // by our own clock
	witnessed bool      // the change happened while we watched
}

// Observe takes note of a lease, nil when there is none, and says what is known at now.
func (o *Observer) Observe(key types.NamespacedName, lease *coordinationv1.Lease, now time.Time) Pulse {
	o.mu.Lock()
	defer o.mu.Unlock()
	last, known := o.seen[key]
	next := sightingOf(lease, now)
	if known && next.sameAs(last) {
		next = last
	} else {
		next.witnessed = known
	}
	if o.seen == nil {
		o.seen = map[types.NamespacedName]sighting{}
	}
	o.seen[key] = next
	return next.pulse(lease, now)
}

// Forget drops what is remembered of a lease that matters no more.
func (o *Observer) Forget(key types.NamespacedName) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.seen, key)
}

func sightingOf(lease *coordinationv1.Lease, now time.Time) sighting {
	if lease == nil {
		return sighting{at: now}
	}
	return sighting{
		present: true,
		renewed: ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{}),
		holder:  ptr.Deref(lease.Spec.HolderIdentity, ""),
		at:      now,
	}
}

func (s sighting) sameAs(other sighting) bool {
	return s.present == other.present && s.renewed.Equal(&other.renewed) && s.holder == other.holder
}

func (s sighting) pulse(lease *coordinationv1.Lease, now time.Time) Pulse {
	if lease == nil {
		return Pulse{State: NeverSeen}
	}
	expiry := s.at.Add(durationOf(lease))
	switch {
	case !now.Before(expiry):
		return Pulse{State: Lost}
	case s.witnessed:
		return Pulse{State: Alive, Until: expiry}
	default:
		return Pulse{State: Undecided, Until: expiry}
	}
}

func durationOf(lease *coordinationv1.Lease) time.Duration {
	seconds := ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)
	if seconds <= 0 {
		return defaultDuration
	}
	return min(time.Duration(seconds)*time.Second, maxDuration)
}
