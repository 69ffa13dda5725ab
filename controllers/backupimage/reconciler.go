// Package backupimage keeps the records of images: it says when each expires, has the keeper delete what did and what people ask to delete, and has it
// verify on request. Nothing else ever deletes the data of an image (I8).
package backupimage

import (
	"context"
	"fmt"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/report"
	"github.com/hyperkeep/hyperkeep/controllers/transition"
)

// Kind of the objects that this controller reconciles.
const Kind = "BackupImage"

// DefaultKeeperNamespace is where the keeper works unless told otherwise.
const DefaultKeeperNamespace = "hyperkeep-keeper"

// Options of the controller.
type Options struct {
	Delegator *delegation.Delegator
	Clock     clock.PassiveClock
	// KeeperNamespace is where the keeper works: DefaultKeeperNamespace if empty.
	KeeperNamespace string
}

// +kubebuilder:rbac:groups=hyperkeep.io,resources=backupimages,verbs=get;list;watch;patch;delete
// +kubebuilder:rbac:groups=hyperkeep.io,resources=backupimages/status,verbs=patch
// +kubebuilder:rbac:groups=hyperkeep.io,resources=agenttasks,verbs=get;list;watch;create
// +kubebuilder:rbac:groups=hyperkeep.io,resources=backuppolicies;restorejobs;backuprepositories,verbs=get;list;watch
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconciler of BackupImages.
type Reconciler struct {
	client    client.Client
	live      client.Reader
	delegator *delegation.Delegator
	reporter  report.Reporter
	clock     clock.PassiveClock
	keeper    string
}

// SetupWithManager registers the controller.
func SetupWithManager(mgr ctrl.Manager, opts Options) error {
	r := &Reconciler{
		client:    mgr.GetClient(),
		live:      mgr.GetAPIReader(),
		delegator: opts.Delegator,
		reporter:  report.Reporter{Client: mgr.GetClient(), Recorder: mgr.GetEventRecorder("hyperkeep-backupimage")},
		clock:     opts.Clock,
		keeper:    opts.KeeperNamespace,
	}
	if r.keeper == "" {
		r.keeper = DefaultKeeperNamespace
	}
	return ctrl.NewControllerManagedBy(mgr).
		Named("backupimage").
		For(&v1alpha1.BackupImage{}).
		Watches(&v1alpha1.AgentTask{}, delegation.EnqueueOwner(Kind)).
		Watches(&v1alpha1.AgentTask{}, r.imagesOfShare()).
		Watches(&v1alpha1.BackupImage{}, r.siblings()).
		Watches(&v1alpha1.BackupPolicy{}, r.imagesOfPolicy(), retentionChanges()).
		Complete(reconcile.AsReconciler(r.client, r))
}

// Reconcile moves an image one observable step on. It may be repeated, and killed between any two lines.
func (r *Reconciler) Reconcile(ctx context.Context, image *v1alpha1.BackupImage) (ctrl.Result, error) {
	before := image.DeepCopy()
	seen, err := r.observe(ctx, image, r.client)
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("observe: %w", err)
	}
	now := r.clock.Now()
	next := decide(image, seen, now)
	if next.action == erase {
		// Data is never deleted because of what a cache believes.
		if err := r.live.Get(ctx, client.ObjectKeyFromObject(image), image); err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		before = image.DeepCopy()
		if seen, err = r.observe(ctx, image, r.live); err != nil {
			return ctrl.Result{}, fmt.Errorf("observe: %w", err)
		}
		next = decide(image, seen, now)
	}
	done, err := r.act(ctx, image, seen, next)
	if err != nil || done {
		return ctrl.Result{}, err
	}
	image.Status = next.status
	events := append(next.events, transition.Events(before.Status.Conditions, image.Status.Conditions,
		v1alpha1.ConditionReady, v1alpha1.ConditionVerified)...)
	return r.reporter.Finish(ctx, before, image, next.wait, events...)
}

// act has the one effect outside that was decided on. done says that the object itself was changed, so that the watch on it sees what follows.
func (r *Reconciler) act(ctx context.Context, image *v1alpha1.BackupImage, seen observation, next next) (done bool, err error) {
	switch next.action {
	case hold, letGo:
		return true, r.hold(ctx, image, next.action == hold)
	case remove:
		err := r.client.Delete(ctx, image, client.Preconditions{UID: &image.UID})
		r.reporter.Send(image, next.events...)
		return true, client.IgnoreNotFound(err)
	case erase, verify:
		return false, r.delegator.Create(ctx, r.newTask(image, seen.repository, next))
	case nothing:
		return false, nil
	default:
		return false, fmt.Errorf("no such action: %s", next.action)
	}
}

func (r *Reconciler) hold(ctx context.Context, image *v1alpha1.BackupImage, on bool) error {
	changed := image.DeepCopy()
	if on {
		controllerutil.AddFinalizer(changed, v1alpha1.FinalizerHostClean)
	} else {
		controllerutil.RemoveFinalizer(changed, v1alpha1.FinalizerHostClean)
	}
	patch := client.MergeFromWithOptions(image, client.MergeFromWithOptimisticLock{})
	if err := r.client.Patch(ctx, changed, patch); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("change finalizer: %w", err)
	}
	return nil
}

func (r *Reconciler) newTask(image *v1alpha1.BackupImage, repository *v1alpha1.BackupRepository, next next) *v1alpha1.AgentTask {
	task := delegation.NewTask(delegation.OwnerOf(Kind, image), next.kind(), next.attempt, r.keeper, next.deadline)
	task.Name = next.taskName
	delegation.SetRepository(task, repository)
	task.Spec.Image = &v1alpha1.ImageTask{
		ImageID: image.Spec.ImageID, VirtualMachineID: image.Spec.VirtualMachine.ID, Digest: image.Spec.Summary.Digest,
	}
	return task
}
