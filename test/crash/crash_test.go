package crash

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/wine"
)

func TestAgentIsKilledAtEveryEffect(t *testing.T) {
	t.Parallel()
	l := newLane(t, "agent")
	l.kills(l.Host.Agent, l.Host.Agent.Start, "api of agent", "host agent", "store of agent")
	l.strikeEverywhere(t)
}

// TestAgentIsKilledAtEveryEffectOfShadowCopies backs the machine up by shadow copies, which a child of the agent makes.
func TestAgentIsKilledAtEveryEffectOfShadowCopies(t *testing.T) {
	if !wine.OnWindows() {
		t.Skip("only the Windows agent makes them in a child, whose steps can be told")
	}
	t.Parallel()
	l := newLane(t, "shadow-lane")
	l.spec = func(spec *v1alpha1.BackupJobSpec) {
		spec.Method, spec.OnMethodIneligible = v1alpha1.MethodChoiceVSS, v1alpha1.MethodIneligibleFail
	}
	l.kills(l.Host.Agent, l.Host.Agent.Start, "api of shadow-lane", "host shadow-lane", "store of shadow-lane")
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
	l.taps[0].limit("/namespaces/manager-lane/", "/namespaces/hyperkeep-host-manager-lane/")
	l.strikeEverywhere(t)
}

// TestKeeperIsKilledAtEveryEffect deletes images, and kills the keeper at each of its effects.
func TestKeeperIsKilledAtEveryEffect(t *testing.T) {
	t.Parallel()
	l := newLane(t, "keeper-lane")
	l.kills(l.Site.Keeper, l.Site.Keeper.Start, "api of keeper", "store of keeper-lane")
	l.taps[0].limit("/agenttasks/deleteimage-")
	spare := func() *v1alpha1.BackupImage {
		job, _ := l.backUp(nil)
		l.AwaitJob(job)
		l.AwaitCondition(job, v1alpha1.ConditionSucceeded, metav1.ConditionTrue)
		return &v1alpha1.BackupImage{ObjectMeta: metav1.ObjectMeta{Namespace: l.Name, Name: job.Status.ImageRef.Name}}
	}
	remove := func(image *v1alpha1.BackupImage, e *effects) {
		l.MarkForDeletion(image)
		l.tell(e)
		if err := l.Site.Client.Delete(t.Context(), image); err != nil {
			t.Fatal(err)
		}
	}
	l.strikeAll(t, l.points(func(e *effects) {
		image := spare()
		remove(image, e)
		l.AwaitGone(image)
		l.tell(nil)
	}), func(at point) bool {
		image, e := spare(), l.killingAt(at)
		remove(image, e)
		hit := l.awaitKill(e, at, func() bool { _, there := l.Images()[image.Name]; return !there })
		l.AwaitGone(image)
		return hit
	})
}
