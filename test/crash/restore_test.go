package crash

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/client"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/tenant"
)

// TestAgentIsKilledAtEveryEffectOfARestore restores to new machines.
func TestAgentIsKilledAtEveryEffectOfARestore(t *testing.T) {
	t.Parallel()
	r := newRestores(t, "restore-lane")
	r.strikeEverywhere(t)
}

// TestAgentIsKilledAtEveryEffectOfARestoreInPlace replaces the machine, which gives way in the middle of it.
func TestAgentIsKilledAtEveryEffectOfARestoreInPlace(t *testing.T) {
	t.Parallel()
	r := newRestores(t, "in-place-lane")
	r.change = func(spec *v1alpha1.RestoreJobSpec) { spec.Target, spec.Overwrite = nil, v1alpha1.OverwriteReplace }
	r.strikeEverywhere(t)
}

// restores is a machine that is restored again and again, while the agent is killed at one point each time.
type restores struct {
	*lane
	// change makes the jobs others than restores to a new machine; it may be nil.
	change func(*v1alpha1.RestoreJobSpec)
	// images are restored in turn, so that no restore finds in place what it is to write.
	images [2]imageOf
	// clean are the files that an undisturbed restore leaves on the host.
	clean []string
}

// imageOf is an image, and what its disks must be.
type imageOf struct {
	name   string
	frozen []string
}

func newRestores(t *testing.T, name string) *restores {
	t.Helper()
	r := &restores{lane: newLane(t, name)}
	r.kills(r.Host.Agent, r.Host.Agent.Start, "api of "+name, "host "+name)
	r.every *= 3 // the tests of agent/runner cut a restore at every call, within a process
	for i := range r.images {
		job, frozen := r.backUp(nil)
		r.AwaitJob(job)
		r.AwaitCondition(job, v1alpha1.ConditionSucceeded, metav1.ConditionTrue)
		r.images[i] = imageOf{job.Status.ImageRef.Name, frozen}
	}
	r.machine.Detach()
	return r
}

// restore starts a restore, while e counts.
func (r *restores) restore(e *effects) (job *v1alpha1.RestoreJob, frozen []string) {
	r.Helper()
	r.runs++
	image := r.images[r.runs%len(r.images)]
	r.tell(e)
	return r.RestoreJob(image.name, fmt.Sprintf("again-%d", r.runs), r.change), image.frozen
}

// judge expects of a restore that it has ended well, and removes what it made beside the machine.
func (r *restores) judge(job *v1alpha1.RestoreJob, frozen []string, when string) {
	r.Helper()
	r.AwaitRestore(job)
	if !apimeta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.ConditionSucceeded) || job.Status.Restored == nil {
		r.Errorf("%s: the restore failed: %s", when, tenant.Verdict(job.Status.Conditions))
		return
	}
	if restored := job.Status.Restored; restored.Method != v1alpha1.RestoreImport {
		r.Errorf("%s: restored by %s: %s", when, restored.Method, restored.MethodReason)
	}
	var disks []string
	for _, path := range job.Status.Restored.Paths {
		disks = append(disks, r.HostPath(path))
	}
	r.ExpectEqual(disks, frozen)
	r.expectOnly(job.Name, when)
	if err := os.RemoveAll(filepath.Join(r.Host.Dir, job.Name)); err != nil {
		r.Error(err)
	}
}

// expectOnly waits until the host has the files that a restore leaves there which nobody disturbed, and no planned machine.
func (r *restores) expectOnly(name, when string) {
	r.Helper()
	host := client.Dial(r.Host.Socket())
	defer host.Close()
	session := host.Session(wmi.NamespaceVirtualization)
	r.Await("the host is clean "+when, func() bool {
		files := r.filesOf(name)
		if r.clean == nil {
			r.clean = files
		}
		planned, err := session.Query(r.Context(), "SELECT * FROM Msvm_PlannedComputerSystem")
		return err == nil && len(planned) == 0 && slices.Equal(files, r.clean)
	})
}

// madeUp is what names of files are made unique with.
var madeUp = regexp.MustCompile(`[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[0-9a-f]{8}`)

// filesOf lists the files on the host by names that a restore of another name has as well.
func (r *restores) filesOf(name string) []string {
	found := map[string]int{}
	err := filepath.WalkDir(r.Host.Dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			found[madeUp.ReplaceAllString(strings.ReplaceAll(path, name, "NAME"), "ID")]++
		}
		return nil // files come and go
	})
	if err != nil {
		r.Error(err)
	}
	var files []string
	for _, path := range slices.Sorted(maps.Keys(found)) {
		files = append(files, fmt.Sprintf("%d %s", found[path], path))
	}
	return files
}

// strikeEverywhere kills the agent at each point of a restore.
func (r *restores) strikeEverywhere(t *testing.T) {
	r.strikeAll(t, r.points(func(e *effects) {
		job, frozen := r.restore(e)
		r.AwaitRestore(job)
		r.tell(nil)
		r.judge(job, frozen, "undisturbed")
	}), func(at point) bool {
		e := r.killingAt(at)
		job, frozen := r.restore(e)
		hit := r.awaitKill(e, at, func() bool { r.Get(job); return tenant.Decided(job.Status.Conditions) })
		r.judge(job, frozen, "killed "+at.String())
		return hit
	})
}
