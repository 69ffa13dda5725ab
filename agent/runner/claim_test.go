package runner

import (
	"context"
	"errors"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/controlplane"
)

const leaseDuration = 40 * time.Second

// newAPI starts an API server with our kinds and returns a client for it.
func newAPI(t *testing.T) client.Client {
	t.Helper()
	server := controlplane.ForTest(t, controlplane.Options{CRDs: []string{"../../config/crd/bases"}})
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(server.Config(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newNamespace(t *testing.T, c client.Client) string {
	t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "agent-"}}
	if err := c.Create(t.Context(), namespace); err != nil {
		t.Fatal(err)
	}
	return namespace.Name
}

func TestAgainstAPIServer(t *testing.T) {
	c := newAPI(t)
	for name, test := range map[string]func(*testing.T, client.Client){
		"a new session of the same installation takes over at once": claimIsTakenOverByNextSession,
		"another installation waits until the lease has expired":    claimIsTakenOverWhenExpired,
		"who lost the claim must not publish (I6)":                  claimThatWasLostForbidsPublishing,
		"a namespace whose lease is gone is not claimed any more":   claimThatVanishedForbidsPublishing,
		"one process and task at a time works on a repository":      repositoryIsWorkedOnByOne,
		"who lost the lease of a repository stops":                  repositoryThatWasTakenOverIsLeftAlone,
		"a report keeps to the limits of the schema":                reportStaysWithinLimits,
		"a report on a task that was deleted says so":               reportOnDeletedTask,
		"the verdict says who must act":                             reportVerdict,
		"a report taken up again starts anew":                       reportTakenUpAgain,
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, c) })
	}
}

func newClaim(c client.Client, namespace, instance, session string, clk *clocktesting.FakeClock) *Claim {
	return &Claim{Client: c, Namespace: namespace, Instance: instance, Session: session, Duration: leaseDuration, Clock: clk}
}

func claimIsTakenOverByNextSession(t *testing.T, c client.Client) {
	namespace, clk := newNamespace(t, c), clocktesting.NewFakeClock(time.Now())
	first, second := newClaim(c, namespace, "host", "1", clk), newClaim(c, namespace, "host", "2", clk)
	for _, claim := range []*Claim{first, second} {
		if err := claim.Acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := second.Check(t.Context()); err != nil {
		t.Errorf("the new session lost its claim: %v", err)
	}
	if err := first.Check(t.Context()); !errors.Is(err, ErrClaimLost) {
		t.Errorf("the old session may still publish: %v", err)
	}
}

func claimIsTakenOverWhenExpired(t *testing.T, c client.Client) {
	namespace, clk := newNamespace(t, c), clocktesting.NewFakeClock(time.Now())
	holder, waiter := newClaim(c, namespace, "host", "1", clk), newClaim(c, namespace, "other", "2", clk)
	if err := holder.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	acquired := make(chan error, 1)
	go func() { acquired <- waiter.Acquire(t.Context()) }()
	// The waiter looks once for each quarter that its clock moves on. Three of them are less than the duration.
	for range 3 {
		stepWhenWaiting(t, clk, leaseDuration/4)
		select {
		case err := <-acquired:
			t.Fatalf("took over a lease that is not expired: %v", err)
		default:
		}
	}
	for {
		select {
		case err := <-acquired:
			if err != nil {
				t.Fatal(err)
			}
			if err := holder.Check(t.Context()); !errors.Is(err, ErrClaimLost) {
				t.Errorf("both have the claim: %v", err)
			}
			return
		case <-t.Context().Done():
			t.Fatal("never took over")
		default:
			if clk.HasWaiters() {
				clk.Step(leaseDuration / 4)
			}
		}
	}
}

func stepWhenWaiting(t *testing.T, clk *clocktesting.FakeClock, d time.Duration) {
	t.Helper()
	for !clk.HasWaiters() {
		if t.Context().Err() != nil {
			t.Fatal("nobody waits")
		}
	}
	clk.Step(d)
}

func claimThatWasLostForbidsPublishing(t *testing.T, c client.Client) {
	namespace, clk := newNamespace(t, c), clocktesting.NewFakeClock(time.Now())
	claim := newClaim(c, namespace, "host", "1", clk)
	if err := claim.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	lease := &coordinationv1.Lease{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: v1alpha1.AgentName}, lease); err != nil {
		t.Fatal(err)
	}
	lease.Spec.HolderIdentity = ptr.To("other/9")
	if err := c.Update(t.Context(), lease); err != nil {
		t.Fatal(err)
	}
	kept := make(chan error, 1)
	go func() { kept <- claim.Keep(t.Context()) }()
	stepWhenWaiting(t, clk, leaseDuration/4)
	if err := <-kept; !errors.Is(err, ErrClaimLost) {
		t.Errorf("kept a claim that is another's: %v", err)
	}
	if err := claim.Check(t.Context()); !errors.Is(err, ErrClaimLost) {
		t.Errorf("may publish: %v", err)
	}
}

func claimThatVanishedForbidsPublishing(t *testing.T, c client.Client) {
	claim := newClaim(c, newNamespace(t, c), "host", "1", clocktesting.NewFakeClock(time.Now()))
	if err := claim.Check(context.WithoutCancel(t.Context())); !errors.Is(err, ErrClaimLost) {
		t.Errorf("may publish: %v", err)
	}
}
