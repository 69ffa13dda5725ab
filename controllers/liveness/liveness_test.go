package liveness

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// sight is one look at a lease: after how many seconds, and what renewTime it had then.
type sight struct {
	after int
	renew string // "" for no lease
	want  State
}

func TestObserver(t *testing.T) {
	const wrongYear, earlier = "1999-01-01T00:00:00.000000Z", "1998-01-01T00:00:00.000000Z"
	cases := map[string]struct {
		seconds int32
		sights  []sight
	}{
		"no lease, then one": {30, []sight{{0, "", NeverSeen}, {100, earlier, Alive}}},
		"a lease that was there before the observer is not judged for its duration": {30, []sight{
			{0, earlier, Undecided}, {29, earlier, Undecided}, {30, earlier, Lost},
		}},
		"a renewal counts from when it was seen, whatever the agent's clock says": {30, []sight{
			{0, wrongYear, Undecided}, {10, earlier, Alive}, {39, earlier, Alive}, {40, earlier, Lost},
		}},
		"a lost agent that comes back": {30, []sight{
			{0, earlier, Undecided}, {30, earlier, Lost}, {99, wrongYear, Alive},
		}},
		"a lease that is deleted":               {30, []sight{{0, earlier, Undecided}, {5, wrongYear, Alive}, {6, "", NeverSeen}}},
		"a lease without a duration has 40 s":   {0, []sight{{0, "", NeverSeen}, {1, earlier, Alive}, {40, earlier, Alive}, {41, earlier, Lost}}},
		"a lease cannot claim to last for ever": {86400, []sight{{0, "", NeverSeen}, {1, earlier, Alive}, {300, earlier, Alive}, {301, earlier, Lost}}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			var observer Observer
			start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
			key := types.NamespacedName{Namespace: "hyperkeep-host-hv01", Name: "agent"}
			for _, s := range c.sights {
				got := observer.Observe(key, leaseRenewed(t, s.renew, c.seconds), start.Add(time.Duration(s.after)*time.Second))
				if got.State != s.want {
					t.Errorf("after %d s with renewTime %q the agent is %s, want %s", s.after, s.renew, got.State, s.want)
				}
			}
		})
	}
}

func TestObserverSaysWhenToLookAgain(t *testing.T) {
	var observer Observer
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	key := types.NamespacedName{Name: "agent"}
	lease := leaseRenewed(t, "2020-01-01T00:00:00.000000Z", 30)
	observer.Observe(key, lease, start)
	if got, want := observer.Observe(key, lease, start.Add(10*time.Second)).Until, start.Add(30*time.Second); !got.Equal(want) {
		t.Errorf("the state may change at %v, want %v", got, want)
	}
	observer.Forget(key)
	if got, want := observer.Observe(key, lease, start.Add(20*time.Second)).Until, start.Add(50*time.Second); !got.Equal(want) {
		t.Errorf("once forgotten, the state may change at %v, want %v", got, want)
	}
}

func leaseRenewed(t *testing.T, renew string, seconds int32) *coordinationv1.Lease {
	t.Helper()
	if renew == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339Nano, renew)
	if err != nil {
		t.Fatal(err)
	}
	lease := &coordinationv1.Lease{}
	lease.Spec.RenewTime = &metav1.MicroTime{Time: at}
	lease.Spec.HolderIdentity = ptr.To("instance/session")
	if seconds > 0 {
		lease.Spec.LeaseDurationSeconds = &seconds
	}
	return lease
}
