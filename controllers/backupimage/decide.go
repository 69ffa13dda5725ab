package backupimage

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// action is what to do outside of the status: one of a closed set.
type action int

// What to do.
const (
	nothing action = iota
	// hold puts the finalizer on the object, letGo takes it off.
	hold
	letGo
	// erase has the keeper delete the data.
	erase
	// remove deletes the object.
	remove
	// verify has the keeper read the image.
	verify
)

// String is the action's name, for tests.
func (a action) String() string {
	return [...]string{"nothing", "hold", "letGo", "erase", "remove", "verify"}[a]
}

const (
	// pollInterval is how often a repository or a restore that is in the way is looked at again.
	pollInterval = 30 * time.Second
	// eraseDeadline and verifyDeadline bound the keeper's tasks. Verifying reads the whole image.
	eraseDeadline  = time.Hour
	verifyDeadline = 24 * time.Hour
)

// next is what to do for an image, and what its status is then.
type next struct {
	action   action
	taskName string
	attempt  int32
	deadline time.Time
	status   v1alpha1.BackupImageStatus
	wait     report.Wait
	events   []report.Event
}

func (n next) kind() v1alpha1.TaskKind {
	if n.action == verify {
		return v1alpha1.TaskVerify
	}
	return v1alpha1.TaskDeleteImage
}

type decider struct {
	image      *v1alpha1.BackupImage
	seen       observation
	now        time.Time
	next       next
	conditions report.Conditions
}

// decide says what happens to an image next. It reads nothing but its arguments.
func decide(image *v1alpha1.BackupImage, seen observation, now time.Time) next {
	d := &decider{image: image, seen: seen, now: now, next: next{status: *image.Status.DeepCopy()}}
	status := &d.next.status
	status.ObservedGeneration = image.Generation
	status.Size = humanize.IBytes(uint64(image.Spec.Summary.ProtectedBytes))
	status.Stored = humanize.IBytes(uint64(image.Spec.Summary.StoredBytes))
	d.conditions = report.ConditionsOf(&status.Conditions, image.Generation, now)
	expired := d.reportExpiry()
	wanted := image.Spec.DeletionPolicy == v1alpha1.DeletionDelete
	held := controllerutil.ContainsFinalizer(image, v1alpha1.FinalizerHostClean)
	switch {
	case !image.DeletionTimestamp.IsZero():
		d.goAway(wanted, held)
	case expired || d.committed():
		d.erase(v1alpha1.ReasonExpiring, "retention lets the image go", remove)
	case wanted != held:
		// The finalizer is only on objects whose deletion is to delete data. It never keeps an object that retains its data.
		d.next.action = letGo
		if wanted {
			d.next.action = hold
		}
	default:
		d.keep()
	}
	return d.next
}

// reportExpiry says when the image expires, and whether it has.
func (d *decider) reportExpiry() bool {
	term, err := judge(d.image, d.seen.policy, d.seen.series, d.now)
	if err != nil {
		d.next.events = append(d.next.events, report.Warning(v1alpha1.ReasonInternalError, "%s", err))
	}
	status := &d.next.status
	status.Expiry, status.ExpireTime = term.words, nil
	if !term.at.IsZero() {
		at := report.Time(term.at)
		status.ExpireTime = &at
		d.next.wait = report.Until(d.now, term.at, "the image expires")
	}
	return term.expired
}

// committed says that the keeper may already have deleted data, so that there is no way back.
func (d *decider) committed() bool {
	task := d.newestTask(eraseName)
	return task != nil && (delegation.Succeeded(task) || !delegation.Finished(task))
}

// goAway lets a deleted object go: at once if its data stays, else once the keeper has deleted it.
func (d *decider) goAway(wanted, held bool) {
	switch {
	case !held:
	case !wanted:
		d.next.action = letGo
	case d.image.Spec.Pinned && !d.committed():
		d.conditions.False(v1alpha1.ConditionReady, v1alpha1.ReasonRetained, "the image is pinned: unpin it, or set deletionPolicy to Retain to delete the object alone")
		d.conditions.Stalled(v1alpha1.ReasonRetained, "the image is pinned")
	default:
		d.erase(v1alpha1.ReasonDeleting, "the object was deleted, and deletionPolicy is Delete", letGo)
	}
}

// erase has the keeper delete the data, and then does what is last. An image that is restored from, that a running backup may stand on (R6), or whose
// repository is away, waits.
func (d *decider) erase(reason, because string, last action) {
	task := d.newestTask(eraseName)
	switch {
	case task != nil && delegation.Succeeded(task):
		d.next.action = last
		d.next.events = append(d.next.events, report.Normal(reason, "the image was deleted from repository %s: %s", d.image.Spec.RepositoryRef.Name, because))
	case task != nil && !delegation.Finished(task):
		d.going(reason, "the keeper deletes the image: "+because) // the watch on tasks wakes it
	case d.seen.restore != "":
		d.lingers(reason, fmt.Sprintf("%s, once restore %s has ended", because, d.seen.restore))
	case d.seen.backup != "":
		d.lingers(reason, fmt.Sprintf("%s, once backup %s has ended, which may stand on it", because, d.seen.backup))
	case d.eraseObstacle() != nil:
		d.lingers(reason, fmt.Sprintf("%s, but %s. To delete the object alone, set deletionPolicy to Retain", because, d.eraseObstacle().Message))
	case task != nil && !d.retryDue(task):
		d.failed(task)
	case !d.announced(reason):
		d.going(reason, because)
	default:
		d.going(reason, because)
		d.make(erase, eraseName, task, eraseDeadline)
	}
}

// announced says whether the status says already that the image goes. Nothing is deleted before: a restore must not choose it any more.
func (d *decider) announced(reason string) bool {
	ready := meta.FindStatusCondition(d.image.Status.Conditions, v1alpha1.ConditionReady)
	return ready != nil && ready.Status == "False" && (ready.Reason == reason || ready.Reason == v1alpha1.ReasonDeleteFailed)
}

func (d *decider) going(reason, message string) {
	d.conditions.False(v1alpha1.ConditionReady, reason, message)
	d.conditions.Reconciling(reason, message)
}

// lingers keeps the image as usable as it was while something is in the way of deleting it.
func (d *decider) lingers(reason, message string) {
	d.reportUsable()
	d.conditions.Reconciling(reason, message)
	d.next.wait = report.Wait{For: pollInterval, Because: message}
}

func (d *decider) failed(task *v1alpha1.AgentTask) {
	failure := delegation.FailureOf(task)
	message := fmt.Sprintf("the keeper could not delete the image (%s: %s); it tries again", failure.Reason, failure.Message)
	d.going(v1alpha1.ReasonDeleteFailed, message)
	d.next.wait = report.Until(d.now, retryTime(task), "the keeper tries again")
}

// obstacle keeps the keeper from working. A repository need not serve the image's namespace any more for the image to be deleted.
func (d *decider) obstacle() *delegation.Obstacle {
	return delegation.ReadyObstacle(d.seen.repository, d.image.Spec.RepositoryRef.Name)
}

// eraseObstacle keeps the keeper from deleting the image.
func (d *decider) eraseObstacle() *delegation.Obstacle {
	if o := d.obstacle(); o != nil {
		return o
	}
	if delegation.Importing(d.seen.repository) {
		return delegation.Waits(v1alpha1.ReasonImporting, "the catalog of repository %s is being imported", d.seen.repository.Name)
	}
	return nil
}

// keep is the state of an image that stays.
func (d *decider) keep() {
	d.conditions.Settled()
	d.verify()
	d.scrubbed()
	d.reportUsable()
}

// reportUsable says whether the image can be restored. Whether its repository is there now is the repository's to say.
func (d *decider) reportUsable() {
	if verified := meta.FindStatusCondition(d.next.status.Conditions, v1alpha1.ConditionVerified); verified != nil && verified.Status == "False" {
		d.conditions.False(v1alpha1.ConditionReady, v1alpha1.ReasonDamaged, verified.Message)
		d.conditions.Stalled(v1alpha1.ReasonDamaged, verified.Message)
		return
	}
	d.conditions.True(v1alpha1.ConditionReady, v1alpha1.ReasonPublished, "the image is in repository "+d.image.Spec.RepositoryRef.Name)
}
