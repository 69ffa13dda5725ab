package runner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// ErrClaimLost means that another agent works for this namespace now. Whoever gets it must not publish, and must leave the host alone.
var ErrClaimLost = errors.New("another agent has taken this namespace over")

// Claim is the agent's hold on its namespace, a Lease that it renews: one agent works for a host at a time (I6). Who observes it trusts its own
// clock alone: the claim has ended when renewTime did not change for the lease's duration.
type Claim struct {
	// Client reads and writes without a cache.
	Client    client.Client
	Namespace string
	// Name of the lease: v1alpha1.AgentName if empty.
	Name string
	// Instance is the agent's installation, kept on the host; Session is this life of its process. A new session of the same instance takes
	// over at once: the lock on the state folder proves that the old one is dead.
	Instance, Session string
	// Duration of the lease. It is renewed four times in that time.
	Duration time.Duration
	Clock    clock.Clock
}

func (c *Claim) identity() string { return c.Instance + "/" + c.Session }

func (c *Claim) name() string { return cmp.Or(c.Name, v1alpha1.AgentName) }

// Acquire waits until this agent has the claim, or ctx ends.
func (c *Claim) Acquire(ctx context.Context) error {
	var seen *metav1.MicroTime
	since := c.Clock.Now()
	for {
		lease, err := c.read(ctx)
		switch {
		case apierrors.IsNotFound(err):
			err = c.Client.Create(ctx, c.renewed(&coordinationv1.Lease{
				ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.name()},
			}))
		case err == nil:
			if renewed := lease.Spec.RenewTime; !renewed.Equal(seen) {
				seen, since = renewed, c.Clock.Now()
			}
			if !c.free(lease, since) {
				err = fmt.Errorf("agent %s is alive", ptr.Deref(lease.Spec.HolderIdentity, ""))
				break
			}
			err = c.Client.Update(ctx, c.renewed(lease))
		}
		if err == nil {
			return nil
		}
		if !c.sleep(ctx, c.Duration/4) {
			return fmt.Errorf("claim namespace %s: %w", c.Namespace, err)
		}
	}
}

// free says whether the lease may be taken: nobody's, an earlier session's of this installation, or not renewed for its duration.
func (c *Claim) free(lease *coordinationv1.Lease, unchangedSince time.Time) bool {
	holder := ptr.Deref(lease.Spec.HolderIdentity, "")
	if instance, _, _ := strings.Cut(holder, "/"); holder == "" || instance == c.Instance {
		return true
	}
	duration := time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second
	return c.Clock.Since(unchangedSince) > duration
}

// Keep renews the claim until ctx ends. An API server that is away does not end it, for then nobody else can take it either; ErrClaimLost does, when the
// lease is another agent's or was deleted.
func (c *Claim) Keep(ctx context.Context) error {
	for c.sleep(ctx, c.Duration/4) {
		lease, err := c.read(ctx)
		if apierrors.IsNotFound(err) {
			return ErrClaimLost
		}
		if err != nil {
			continue
		}
		if ptr.Deref(lease.Spec.HolderIdentity, "") != c.identity() {
			return ErrClaimLost
		}
		// A conflict means that somebody wrote meanwhile: the next round sees who.
		_ = c.Client.Update(ctx, c.renewed(lease))
	}
	return ctx.Err()
}

// Check asks the API server whether this agent still has the claim, waiting while the server is away. It stands directly before an image
// becomes visible.
func (c *Claim) Check(ctx context.Context) error {
	for {
		lease, err := c.read(ctx)
		if err == nil {
			if ptr.Deref(lease.Spec.HolderIdentity, "") != c.identity() {
				return ErrClaimLost
			}
			return nil
		}
		if apierrors.IsNotFound(err) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
			return fmt.Errorf("%w: %w", ErrClaimLost, err)
		}
		if !c.sleep(ctx, time.Second) {
			return fmt.Errorf("check the claim: %w", errors.Join(context.Cause(ctx), err))
		}
	}
}

func (c *Claim) read(ctx context.Context) (*coordinationv1.Lease, error) {
	lease := &coordinationv1.Lease{}
	key := client.ObjectKey{Namespace: c.Namespace, Name: c.name()}
	return lease, c.Client.Get(ctx, key, lease)
}

func (c *Claim) renewed(lease *coordinationv1.Lease) *coordinationv1.Lease {
	now := metav1.NewMicroTime(c.Clock.Now())
	if ptr.Deref(lease.Spec.HolderIdentity, "") != c.identity() {
		lease.Spec.AcquireTime = &now
		lease.Spec.LeaseTransitions = ptr.To(ptr.Deref(lease.Spec.LeaseTransitions, 0) + 1)
	}
	lease.Spec.HolderIdentity = ptr.To(c.identity())
	lease.Spec.LeaseDurationSeconds = ptr.To(max(1, int32(c.Duration/time.Second)))
	lease.Spec.RenewTime = &now
	return lease
}

// sleep waits d, and says whether ctx still goes on.
func (c *Claim) sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-c.Clock.After(d):
		return true
	}
}
