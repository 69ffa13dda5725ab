package runner

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

func newExclusive(c client.Client, namespace, instance string) *Exclusive {
	return NewExclusive(&Claim{
		Client: c, Namespace: namespace, Instance: instance, Session: "1", Duration: time.Second, Clock: clock.RealClock{},
	})
}

// R2: neither two tasks of a keeper nor two keepers delete from a repository at once; another repository is nobody's business.
func repositoryIsWorkedOnByOne(t *testing.T, c client.Client) {
	namespace := newNamespace(t, c)
	first, second := newExclusive(c, namespace, "a"), newExclusive(c, namespace, "b")
	var inside, done atomic.Int32
	work := func(ctx context.Context) error {
		if n := inside.Add(1); n > 1 {
			t.Errorf("%d work on the repository", n)
		}
		defer inside.Add(-1)
		done.Add(1)
		return first.Run(ctx, "other", func(context.Context) error { return nil })
	}
	var all sync.WaitGroup
	for _, e := range []*Exclusive{first, first, second} {
		all.Go(func() {
			if err := e.Run(t.Context(), "main", work); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if done.Load() != 3 {
		t.Errorf("%d of 3 worked", done.Load())
	}
}

func repositoryThatWasTakenOverIsLeftAlone(t *testing.T, c client.Client) {
	namespace := newNamespace(t, c)
	err := newExclusive(c, namespace, "a").Run(t.Context(), "main", func(ctx context.Context) error {
		lease := &coordinationv1.Lease{}
		if err := c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: leaseOf("main")}, lease); err != nil {
			return err
		}
		lease.Spec.HolderIdentity = ptr.To("b/1")
		if err := c.Update(ctx, lease); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	})
	if !errors.Is(err, ErrLeaseLost) {
		t.Errorf("%v", err)
	}
}
