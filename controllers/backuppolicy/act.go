package backuppolicy

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// act starts a run, or deletes old jobs. Both may be repeated.
func (r *Reconciler) act(ctx context.Context, policy *v1alpha1.BackupPolicy, next next) ([]report.Event, error) {
	if next.start != nil {
		return r.start(ctx, policy, next.start)
	}
	for i := range next.prune {
		if err := r.client.Delete(ctx, &next.prune[i], client.Preconditions{UID: &next.prune[i].UID}); client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("delete job %s: %w", next.prune[i].Name, err)
		}
	}
	return nil, nil
}

// start makes the jobs of a run. A virtual machine that another run of the policy is still at is left out: runs do not pile up. That is looked at with
// the API server, because the cache may not have the jobs of a run that started a moment ago.
func (r *Reconciler) start(ctx context.Context, policy *v1alpha1.BackupPolicy, run *run) (events []report.Event, err error) {
	jobs, err := jobsOf(ctx, r.live, policy, client.MatchingLabels{v1alpha1.LabelPolicyUID: string(policy.UID)})
	if err != nil {
		return nil, err
	}
	busy := busyMachines(jobs, run.id)
	var skipped []string
	for i := range run.machines {
		machine := &run.machines[i]
		if busy[machine.Name] {
			skipped = append(skipped, machine.Name)
			continue
		}
		job := newJob(policy, run, machine)
		taken, err := r.create(ctx, policy, job)
		if err != nil {
			return nil, err
		}
		if taken {
			events = append(events, report.Warning(v1alpha1.ReasonJobNameTaken, "virtual machine %s is left out of run %s: somebody else's job has the name %s", machine.Name, run.id, job.Name))
		}
	}
	if len(skipped) > 0 {
		events = append(events, report.Warning(v1alpha1.ReasonVirtualMachineBusy, "run %s leaves out what an earlier run is still at: %s", run.id, strings.Join(skipped, ", ")))
	}
	return events, nil
}

// busyMachines are those that a job of another run is still at.
func busyMachines(jobs []v1alpha1.BackupJob, runID string) map[string]bool {
	busy := map[string]bool{}
	for i := range jobs {
		if jobs[i].Labels[v1alpha1.LabelRunID] != runID && !delegation.Terminal(jobs[i].Status.RunStatus) {
			busy[jobs[i].Spec.VirtualMachineRef.Name] = true
		}
	}
	return busy
}

// create makes a job, or finds that the policy made it before. taken is set when the name is somebody else's.
func (r *Reconciler) create(ctx context.Context, policy *v1alpha1.BackupPolicy, job *v1alpha1.BackupJob) (taken bool, err error) {
	err = r.client.Create(ctx, job)
	if !apierrors.IsAlreadyExists(err) {
		if err != nil {
			err = fmt.Errorf("create job %s: %w", job.Name, err)
		}
		return false, err
	}
	found := &v1alpha1.BackupJob{}
	if err := r.live.Get(ctx, client.ObjectKeyFromObject(job), found); err != nil {
		return false, client.IgnoreNotFound(fmt.Errorf("get job %s: %w", job.Name, err))
	}
	return !ownedBy(found, policy), nil
}
