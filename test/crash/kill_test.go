package crash

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"
	. "github.com/onsi/gomega"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/site"
	"github.com/hyperkeep/hyperkeep/test/tenant"
	"github.com/hyperkeep/hyperkeep/test/wine"
)

const mib = int64(1 << 20)

// lane is a machine that is backed up again and again, while one process is killed at one point each time.
type lane struct {
	*tenant.Tenant
	world   *world
	machine *tenant.Machine
	taps    []*tap // of what the process does that is killed
	// victim is killed, and revived.
	victim *site.Process
	revive func() error
	// spec changes the jobs; it may be nil.
	spec func(*v1alpha1.BackupJobSpec)
	// every is of how many effects one is tried where time is short.
	every int
	runs  int
}

// newLane makes a machine with two disks and a repository in a bucket, and takes the first backup.
func newLane(t *testing.T, name string) *lane {
	t.Helper()
	w := theWorld(t)
	l := &lane{Tenant: tenant.New(t, w.site, name), world: w, every: 1}
	if wine.OnWindows() {
		l.every = 5 // this agent takes longer to come back, and only has to show that it is one with the other
	}
	l.machine = l.AddMachine("vm", nil,
		l.Raw("system", 16*mib, map[int64]int64{0: 3 * mib}), l.Raw("data", 8*mib, map[int64]int64{4 * mib: 1 * mib}))
	bucket := s3mem.New()
	if err := bucket.CreateBucket("images"); err != nil {
		t.Fatal(err)
	}
	address := w.relayToStore(name, gofakes3.New(bucket).Server())
	l.UseRepositoryAt(v1alpha1.RepositoryLocation{S3: &v1alpha1.S3Location{
		Endpoint: strings.TrimPrefix(address, "http://"), Bucket: "images", Transport: "PlainText",
	}}, map[string]string{v1alpha1.SecretKeyAccessKeyID: "id", v1alpha1.SecretKeySecretAccessKey: "key"})
	l.Start()
	return l
}

// kills is who is killed where: the agent and the emulated host at the agent's effects, the manager at its own.
func (l *lane) kills(victim *site.Process, revive func() error, taps ...string) {
	l.victim, l.revive = victim, revive
	for _, name := range taps {
		l.taps = append(l.taps, l.world.tap(name))
	}
}

// tell hands the effects of the victim to e.
func (l *lane) tell(e *effects) {
	for _, t := range l.taps {
		t.tell(e)
	}
}

// backUp lets the guest write, and backs up what it wrote, while e counts.
func (l *lane) backUp(e *effects) (job *v1alpha1.BackupJob, frozen []string) {
	l.Helper()
	l.runs++
	for i, disk := range l.machine.Disks {
		if err := disk.Guest.Write(tenant.Random(20_000), int64(l.runs*37%60)*64<<10+int64(i)*512); err != nil {
			l.Fatal(err)
		}
	}
	name := fmt.Sprintf("run-%d", l.runs)
	frozen = l.machine.Freeze(name)
	l.tell(e)
	return l.Job(l.machine, name, l.spec), frozen
}

// points finds the moments at which the victim can be killed, by two runs in which it is not: what both have in common. The run before them has no
// base yet, and the first of its kind does what none does again.
func (l *lane) points(run func(e *effects)) []point {
	run(nil)
	var runs [2][]point
	for i := range runs {
		e := counting()
		run(e)
		runs[i] = e.seen()
	}
	return l.share(slices.DeleteFunc(runs[1], func(p point) bool { return !slices.Contains(runs[0], p) }))
}

// share returns both sides of every effect, or, where time is short, one side of some.
func (l *lane) share(effects []point) []point {
	step := l.every
	if everything {
		step = 1
	}
	var points []point
	for i := 0; i < len(effects); i += step {
		p := effects[i]
		if everything || i%2 == 0 {
			points = append(points, p)
		}
		if everything || i%2 == 1 {
			points = append(points, point{p.effect, p.number, after})
		}
	}
	return points
}

// strikeAt backs up while the victim is killed at a point, and judges what came of it. It says whether the point was reached.
func (l *lane) strikeAt(at point) (hit bool) {
	l.Helper()
	images := len(l.Images())
	e := l.killingAt(at)
	job, frozen := l.backUp(e)
	hit = l.awaitKill(e, at, func() bool { l.Get(job); return tenant.Decided(job.Status.Conditions) })
	l.AwaitJob(job)
	if !apimeta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.ConditionSucceeded) {
		l.Errorf("killed %s: the backup failed: %s", at, tenant.Verdict(job.Status.Conditions))
		return hit
	}
	l.Await(fmt.Sprintf("after a kill %s there is one image more than %d", at, images), func() bool { return len(l.Images()) == images+1 })
	l.expectCleanHost(at, job)
	l.ExpectRestores(job.Status.ImageRef.Name, fmt.Sprintf("again-%d", l.runs), frozen)
	if err := os.RemoveAll(filepath.Join(l.Host.Dir, fmt.Sprintf("again-%d", l.runs))); err != nil {
		l.Error(err)
	}
	return hit
}

func (l *lane) killingAt(at point) *effects {
	return killing(at, func() {
		if err := l.victim.Kill(); err != nil {
			l.Errorf("kill %s: %v", at, err)
		}
	})
}

// graceAfterVerdict is how long effects may still come after the verdict.
const graceAfterVerdict = 3 * time.Second

// awaitKill waits until the victim was killed, and revives it. It gives up when the work has ended without that.
func (l *lane) awaitKill(e *effects, at point, ended func() bool) (hit bool) {
	l.Helper()
	var since time.Time
	l.Await(fmt.Sprintf("%s is killed %s, or the work has ended", l.victim.Name(), at), func() bool {
		select {
		case <-e.reached:
			hit = true
			return true
		default:
		}
		if since.IsZero() && ended() {
			since = time.Now()
		}
		return !since.IsZero() && time.Since(since) > graceAfterVerdict
	})
	l.tell(nil)
	if err := l.revive(); err != nil {
		l.Fatal(err)
	}
	return hit
}

// hostState is what the emulated host keeps of a machine.
type hostState struct {
	Snapshots, ReferencePoints, Merges []any
	Garbage                            []string
}

// expectCleanHost looks into the folders of the machine and of its host: I4. A reference point that could not be dropped, because the host died over it, may
// stay until the next backup if the job says so.
func (l *lane) expectCleanHost(at point, job *v1alpha1.BackupJob) {
	l.Helper()
	fewest, most := 1, 1
	if slices.ContainsFunc(job.Status.Warnings, func(w v1alpha1.Warning) bool { return w.Reason == "ReferencePointRemains" }) {
		most = 2
	}
	if job.Spec.Method == v1alpha1.MethodChoiceVSS {
		fewest, most = 0, 0
	}
	l.Await(fmt.Sprintf("the host is clean after a kill %s", at), func() bool {
		var state hostState
		text, err := os.ReadFile(l.machine.Path(filepath.Join(".hyperv", "state.json")))
		if err != nil || json.Unmarshal(text, &state) != nil {
			return false
		}
		left := len(state.Snapshots) + len(state.Merges) + len(state.Garbage)
		for _, pattern := range []string{l.machine.Path("*.avhdx"), filepath.Join(l.Host.Dir, ".hyperv", "shadows", "*")} {
			files, err := filepath.Glob(pattern)
			if err != nil {
				return false
			}
			left += len(files)
		}
		return left == 0 && fewest <= len(state.ReferencePoints) && len(state.ReferencePoints) <= most
	})
}

// expectNothingStuck waits until every task has its verdict, and compares the repository's count of images with Kubernetes'.
func (l *lane) expectNothingStuck() {
	l.Helper()
	l.Await("no task is left without a verdict", func() bool {
		tasks := &v1alpha1.AgentTaskList{}
		if err := l.Site.Client.List(l.Context(), tasks, client.InNamespace(v1alpha1.AgentNamespace(l.Name))); err != nil {
			return false
		}
		for _, task := range tasks.Items {
			if !tenant.Decided(task.Status.Conditions) {
				return false
			}
		}
		return true
	})
	repository := &v1alpha1.BackupRepository{ObjectMeta: metav1.ObjectMeta{Name: l.Name}}
	l.Await("the repository has as many images as Kubernetes: none lost, none published twice", func() bool {
		l.Get(repository)
		return int(ptr.Deref(repository.Status.Images, -1)) == len(l.Images())
	})
}

// strikeEverywhere kills the victim at each point of a backup.
func (l *lane) strikeEverywhere(t *testing.T) {
	backUp := func(e *effects) *v1alpha1.BackupJob {
		job, _ := l.backUp(e)
		l.AwaitJob(job)
		l.tell(nil)
		return job
	}
	l.strikeAll(t, l.points(func(e *effects) { backUp(e) }), l.strikeAt)
	l.expectCleanHost(point{effect: "anywhere"}, backUp(nil))
}

// tries is how often a point is looked for: how many times a status is written depends on how much the writer finds to say at once.
const tries = 4

// strikeAll has strike kill the victim at each point, and say whether it came to it. The first of each kind of effect must be reached; a second or third
// write of a status may be none, where the writer found everything to say at once.
func (l *lane) strikeAll(t *testing.T, points []point, strike func(point) bool) {
	NewWithT(t).Expect(points).NotTo(BeEmpty())
	started, hits := time.Now(), 0
	for _, at := range points {
		hit := false
		for try := 0; try < tries && !hit; try++ {
			hit = strike(at)
		}
		switch {
		case hit:
			hits++
		case at.number > 1:
			t.Logf("there was no effect like this in %d runs: %s", tries, at)
		default:
			t.Errorf("the point was never reached: %s", at)
		}
	}
	l.expectNothingStuck()
	report(t, l, points, hits, started)
}

// report prints how many points were hit, and which there are.
func report(t *testing.T, l *lane, points []point, hits int, started time.Time) {
	t.Helper()
	var text strings.Builder
	for _, at := range points {
		fmt.Fprintf(&text, "\n  %s", at)
	}
	t.Logf("%s was killed at %d of %d points, in %s:%s", l.victim.Name(), hits, len(points), time.Since(started).Round(time.Second), text.String())
}
