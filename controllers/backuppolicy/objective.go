package backuppolicy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// namedViolators is how many virtual machines a message names.
const namedViolators = 5

// reportObjective says whether the promise is kept now, and wakes the policy when that changes by itself.
func (d *decider) reportObjective() {
	d.next.status.VirtualMachines = ptr.To(int32(len(d.seen.machines)))
	d.next.status.Compliance = ""
	if d.policy.Spec.Objectives == nil {
		d.conditions.Absent(v1alpha1.ConditionRPOMet)
		return
	}
	rpo, err := d.policy.Spec.Objectives.RPO.Duration()
	if err != nil {
		d.conditions.Unknown(v1alpha1.ConditionRPOMet, v1alpha1.ReasonInternalError, err.Error())
		return
	}
	var missed, never []string
	for i := range d.seen.machines {
		machine := &d.seen.machines[i]
		point := machine.Status.LastRestorePoint
		if point == nil {
			never = append(never, machine.Name)
			continue
		}
		deadline := point.Time.Add(rpo)
		if d.now.After(deadline) {
			missed = append(missed, machine.Name)
			continue
		}
		d.next.wait = d.next.wait.Sooner(report.Until(d.now, deadline.Add(time.Second), "the RPO of "+machine.Name))
	}
	all := len(d.seen.machines)
	d.next.status.Compliance = fmt.Sprintf("%d/%d", all-len(missed)-len(never), all)
	d.judgeObjective(missed, never)
}

func (d *decider) judgeObjective(missed, never []string) {
	rpo := d.policy.Spec.Objectives.RPO
	switch {
	case len(d.seen.machines) == 0:
		d.conditions.Unknown(v1alpha1.ConditionRPOMet, v1alpha1.ReasonNoVirtualMachines, "no virtual machine is selected")
	case len(missed) > 0:
		message := fmt.Sprintf("older than %s: %s", rpo, names(missed))
		if len(never) > 0 {
			message += "; never backed up: " + names(never)
		}
		d.conditions.False(v1alpha1.ConditionRPOMet, v1alpha1.ReasonRPOMissed, message)
	case len(never) > 0:
		d.conditions.False(v1alpha1.ConditionRPOMet, v1alpha1.ReasonNeverBackedUp, "never backed up: "+names(never))
	default:
		d.conditions.True(v1alpha1.ConditionRPOMet, v1alpha1.ReasonRPOMet, fmt.Sprintf("all %d virtual machines have an image younger than %s", len(d.seen.machines), rpo))
	}
}

// names are the first few, in order.
func names(all []string) string {
	slices.Sort(all)
	if len(all) <= namedViolators {
		return strings.Join(all, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:namedViolators], ", "), len(all)-namedViolators)
}

// sumUp counts the jobs of the newest run.
func (d *decider) sumUp() {
	last := d.next.status.LastRun
	if last == nil {
		return
	}
	last.Jobs, last.Succeeded, last.Failed = 0, 0, 0
	for i := range d.seen.jobs {
		job := &d.seen.jobs[i]
		if job.Labels[v1alpha1.LabelRunID] != last.ID {
			continue
		}
		last.Jobs++
		switch {
		case hasSucceeded(job):
			last.Succeeded++
		case delegation.Terminal(job.Status.RunStatus):
			last.Failed++
		}
	}
}

func hasSucceeded(job *v1alpha1.BackupJob) bool {
	return meta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.ConditionSucceeded)
}

// outdated are the finished jobs beyond the limits, which count for each virtual machine, and for good and bad ones apart. A job whose host is not clean
// yet stays: it is where that can be seen.
func outdated(limits v1alpha1.JobHistory, jobs []v1alpha1.BackupJob) (surplus []v1alpha1.BackupJob) {
	finished := slices.DeleteFunc(slices.Clone(jobs), func(job v1alpha1.BackupJob) bool {
		return !delegation.Terminal(job.Status.RunStatus) || !job.DeletionTimestamp.IsZero() || slices.Contains(job.Finalizers, v1alpha1.FinalizerHostClean)
	})
	slices.SortStableFunc(finished, func(a, b v1alpha1.BackupJob) int {
		return cmp.Or(compareTimes(b.Status.CompletionTime, a.Status.CompletionTime), cmp.Compare(a.Name, b.Name))
	})
	type series struct {
		machine   string
		succeeded bool
	}
	kept := map[series]int32{}
	for i := range finished {
		of := series{finished[i].Spec.VirtualMachineRef.Name, hasSucceeded(&finished[i])}
		limit := limits.Failed
		if of.succeeded {
			limit = limits.Succeeded
		}
		if kept[of]++; kept[of] > limit {
			surplus = append(surplus, finished[i])
		}
	}
	return surplus
}

func compareTimes(a, b *metav1.Time) int {
	if a == nil || b == nil {
		return 0
	}
	return a.Compare(b.Time)
}
