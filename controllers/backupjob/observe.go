package backupjob

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
)

// observation is all that a decision about a job depends on.
type observation struct {
	tasks delegation.Tasks
	// hostReady is the verdict on the agent that has the present task.
	hostReady bool
	// machine is nil when it does not exist. It and site are looked at only when the job needs a place.
	machine *v1alpha1.VirtualMachine
	site    delegation.Site
}

func (r *Reconciler) observe(ctx context.Context, job *v1alpha1.BackupJob, run delegation.Run) (seen observation, err error) {
	if seen.tasks, err = r.delegator.Tasks(ctx, run); err != nil {
		return seen, err
	}
	if current := seen.tasks.Current(); current != nil && !delegation.Finished(current) {
		host, err := r.delegator.Host(ctx, current.Labels[v1alpha1.LabelHost])
		seen.hostReady = delegation.HostReady(host)
		return seen, err
	}
	if !run.NeedsPlace(seen.tasks) {
		return seen, nil
	}
	machine := &v1alpha1.VirtualMachine{}
	key := types.NamespacedName{Namespace: job.Namespace, Name: job.Spec.VirtualMachineRef.Name}
	if err := r.client.Get(ctx, key, machine); err != nil {
		return seen, client.IgnoreNotFound(err)
	}
	seen.machine = machine
	seen.site, err = r.delegator.Site(ctx, job.Namespace, job.Spec.RepositoryRef.Name, machine.Status.HostName)
	if err != nil {
		return seen, fmt.Errorf("look at the host: %w", err)
	}
	return seen, nil
}
