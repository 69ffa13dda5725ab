package backuprepository

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/liveness"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

const (
	// ownerKind of probes.
	ownerKind = "BackupRepository"
	// probeDeadline is how long a probe may take.
	probeDeadline = 2 * time.Minute
	// testInterval is how often the storage is tested.
	testInterval = 24 * time.Hour
)

// decision is what to do about a repository, and what to report.
type decision struct {
	// mark of the distribution that is due; empty when none is.
	mark string
	// probe is the name of the probe that is due; empty when none is.
	probe string
	// upkeep is the maintenance that is due.
	upkeep upkeep
	// share is what is due to be verified.
	share share
	// change is the name of the task that changes the password; empty when none is due.
	change string
	// remove are tasks that say nothing any more.
	remove []*v1alpha1.AgentTask
	importing
	status v1alpha1.BackupRepositoryStatus
	wait   report.Wait
}

// decide is pure: what it returns follows from its arguments alone.
func decide(repository *v1alpha1.BackupRepository, seen observed, now time.Time) decision {
	next := decision{status: *repository.Status.DeepCopy()}
	next.status.ObservedGeneration = repository.Generation
	if !seen.keeper.Until.IsZero() {
		next.wait = next.wait.Sooner(report.Until(now, seen.keeper.Until, "the keeper's lease expires then"))
	}
	if seen.credential.usable() {
		if due := mark(repository, seen, now); due != seen.distributed {
			next.mark = due
		}
	}
	current := next.schedule(repository, seen, now)
	conditions := report.ConditionsOf(&next.status.Conditions, repository.Generation, now)
	next.judge(repository, seen, current, now).tell(conditions)
	depend(conditions, repository, next.status.Storage)
	next.maintain(repository, seen, now)
	next.verify(repository, seen, now)
	next.password(repository, seen, now)
	next.imports(repository, seen, now)
	return next
}

// testDue says whether the next probe is to test the storage: when it never was, after a change of the spec, and every day, for what holds a
// repository may be moved.
func testDue(repository *v1alpha1.BackupRepository, now time.Time) bool {
	tested := repository.Status.Storage
	return tested == nil || repository.Generation != repository.Status.ObservedGeneration || now.Sub(tested.TestTime.Time) > testInterval
}

// probes of the present credential and spec.
type probes struct {
	// finished is the newest one that has a verdict, pending one that has none.
	finished, pending *v1alpha1.AgentTask
}

// schedule sees to it that there is one probe in each interval, and at once when the credential or the spec changed. Its name says which interval it is of,
// so that a repeated reconcile makes no second one.
func (d *decision) schedule(repository *v1alpha1.BackupRepository, seen observed, now time.Time) probes {
	basis := "probe-" + repository.Name + "-" + digest(string(repository.UID), strconv.FormatInt(repository.Generation, 10), seen.credential.version) + "-"
	interval := time.Duration(max(1, repository.Spec.ProbeIntervalSeconds)) * time.Second
	due := basis + strconv.FormatInt(now.Unix()/int64(interval/time.Second), 10)
	var current probes
	exists := false
	for i := range seen.probes {
		task := &seen.probes[i]
		exists = exists || task.Name == due
		switch {
		case !strings.HasPrefix(task.Name, basis):
			d.remove = append(d.remove, task)
		case !delegation.Finished(task):
			current.pending = d.newer(current.pending, task)
		default:
			current.finished = d.newer(current.finished, task)
		}
	}
	awaited := current.pending != nil && !overdue(current.pending, now)
	if seen.credential.usable() && !exists && !awaited {
		d.probe = due
		if current.pending != nil {
			d.remove = append(d.remove, current.pending)
		}
	}
	d.wait = d.wait.Sooner(report.Until(now, now.Truncate(interval).Add(interval), "the next probe is due"))
	return current
}

// newer keeps the newer of two tasks and has the other one removed.
func (d *decision) newer(a, b *v1alpha1.AgentTask) *v1alpha1.AgentTask {
	if a == nil {
		return b
	}
	if b.CreationTimestamp.Before(&a.CreationTimestamp) {
		a, b = b, a
	}
	d.remove = append(d.remove, a)
	return b
}

func overdue(probe *v1alpha1.AgentTask, now time.Time) bool {
	return probe != nil && now.After(probe.Spec.Deadline.Time)
}

// judge says in words what state the repository is in.
func (d *decision) judge(repository *v1alpha1.BackupRepository, seen observed, current probes, now time.Time) verdict {
	secret := repository.Spec.SecretName
	switch {
	case seen.credential.version == "":
		return stalled(v1alpha1.ReasonSecretNotFound, fmt.Sprintf("there is no Secret %s in the manager's namespace: create it", secret))
	case len(seen.credential.missing) > 0:
		return stalled(v1alpha1.ReasonSecretIncomplete, fmt.Sprintf("Secret %s lacks: %s", secret, strings.Join(seen.credential.missing, ", ")))
	}
	result := verdict{ready: metav1.ConditionUnknown, reason: v1alpha1.ReasonProbing, message: "the keeper has not probed the repository yet", reconciling: true}
	if current.finished != nil {
		result = d.result(current.finished, seen.credential, result)
	}
	// What was found stays on show in the rest of the status.
	if away(repository, seen.keeper) || overdue(current.pending, now) {
		return verdict{ready: metav1.ConditionUnknown, reason: v1alpha1.ReasonKeeperUnreachable,
			message: "the keeper does not report: check that its Deployment runs and reaches the API server"}
	}
	return result
}

// away keeps to what was believed while it cannot be told, as after a restart of the manager.
func away(repository *v1alpha1.BackupRepository, keeper liveness.Pulse) bool {
	switch keeper.State {
	case liveness.NeverSeen, liveness.Lost:
		return true
	case liveness.Undecided:
		ready := meta.FindStatusCondition(repository.Status.Conditions, v1alpha1.ConditionReady)
		return ready != nil && ready.Reason == v1alpha1.ReasonKeeperUnreachable
	default:
		return false
	}
}

// result takes over what a probe found. undecided is for a probe that ended without an answer.
func (d *decision) result(probe *v1alpha1.AgentTask, used credential, undecided verdict) verdict {
	d.status.LastProbeTime = probe.Status.CompletionTime.DeepCopy()
	found := probe.Status.Probe
	if !delegation.Succeeded(probe) || found == nil {
		return failure(probe, undecided)
	}
	if d.status.RepositoryID == "" {
		d.status.RepositoryID = found.RepositoryID
	}
	if d.status.RepositoryID != found.RepositoryID {
		return stalled(v1alpha1.ReasonRepositoryReplaced, fmt.Sprintf(
			"ANOTHER REPOSITORY IS IN ITS PLACE: the images are in repository %s, and the keeper found %s there. Bring the old one back; "+
				"or, if it was meant, delete this BackupRepository and declare it anew", d.status.RepositoryID, found.RepositoryID))
	}
	d.status.Images, d.status.StoredBytes, d.status.FreeBytes = ptr.To(found.Images), found.StoredBytes, found.FreeBytes
	d.status.Stored, d.status.Free = humanize.IBytes(uint64(found.StoredBytes)), ""
	if found.FreeBytes != nil {
		d.status.Free = humanize.IBytes(uint64(*found.FreeBytes))
	}
	d.storage(found.Storage, used)
	return verdict{ready: metav1.ConditionTrue, reason: v1alpha1.ReasonReachable, message: "the keeper can use the repository"}
}

// storage takes over what a test showed, and adds what only the manager knows.
func (d *decision) storage(found *v1alpha1.StorageFacts, used credential) {
	if found != nil {
		d.status.Storage = found.DeepCopy()
	}
	if d.status.Storage == nil {
		return
	}
	lacks := slices.DeleteFunc(d.status.Storage.Lacks, func(a v1alpha1.StorageAbility) bool { return a == v1alpha1.AbilitySeparateCredentials })
	if !used.separate {
		lacks = append(lacks, v1alpha1.AbilitySeparateCredentials)
	}
	d.status.Storage.Lacks = lacks
}
