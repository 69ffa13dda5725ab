package crash

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

func TestAgentIsKilledAtEveryEffect(t *testing.T) {
	t.Parallel()
	l := newLane(t, "agent")
	l.kills(l.Host.Agent, l.Host.Agent.Start, "api of agent", "host agent", "store of agent")
	l.strikeEverywhere(t)
}

func TestHostIsKilledAtEveryCall(t *testing.T) {
	t.Parallel()
	l := newLane(t, "emulator")
	l.kills(l.Host.Emulator, func() error {
		l.machine.Detach()
		if err := l.Host.StartEmulator(l.Context()); err != nil {
			return err
		}
		l.machine.Attach()
		return nil
	}, "host emulator")
	l.strikeEverywhere(t)
}

func TestManagerIsKilledAtEveryEffect(t *testing.T) {
	t.Parallel()
	l := newLane(t, "manager-lane")
	l.kills(l.Site.Manager, l.Site.Manager.Start, "api of manager")
	l.relays[0].only("/namespaces/manager-lane/", "/namespaces/hyperkeep-host-manager-lane/")
	l.strikeEverywhere(t)
}

// TestKeeperIsKilledAtEveryEffect deletes images, and kills the keeper at each of its effects.
func TestKeeperIsKilledAtEveryEffect(t *testing.T) {
	t.Parallel()
	l := newLane(t, "keeper-lane")
	l.kills(l.Site.Keeper, l.Site.Keeper.Start, "api of keeper", "store of keeper-lane")
	l.relays[0].only("/agenttasks/deleteimage-")
	spare := func() *v1alpha1.BackupImage {
		job, _ := l.backUp(nil)
		l.AwaitJob(job)
		l.AwaitCondition(job, v1alpha1.ConditionSucceeded, metav1.ConditionTrue)
		return &v1alpha1.BackupImage{ObjectMeta: metav1.ObjectMeta{Namespace: l.Name, Name: job.Status.ImageRef.Name}}
	}
	remove := func(image *v1alpha1.BackupImage, e *effects) {
		l.Change(image, func() { image.Spec.DeletionPolicy = v1alpha1.DeletionDelete })
		l.tell(e)
		if err := l.Site.Client.Delete(t.Context(), image); err != nil {
			t.Fatal(err)
		}
	}
	counted := counting()
	image := spare()
	remove(image, counted)
	l.AwaitGone(image)
	l.tell(nil)
	points := share(counted.seen())
	NewWithT(t).Expect(points).NotTo(BeEmpty())
	started, hits := time.Now(), 0
	for _, at := range points {
		image, e := spare(), l.killingAt(at)
		remove(image, e)
		gone := func() bool { _, there := l.Images()[image.Name]; return !there }
		if l.awaitKill(e, at, gone) {
			hits++
		} else {
			t.Errorf("the point was never reached: %s", at)
		}
		l.AwaitGone(image)
	}
	l.expectNothingStuck()
	report(t, l, points, hits, started)
}
