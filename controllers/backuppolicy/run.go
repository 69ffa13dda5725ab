package backuppolicy

import (
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
)

// run is one run of a policy that is to start.
type run struct {
	id      string
	trigger v1alpha1.JobTrigger
	// name of the schedule, or the token.
	name     string
	kind     v1alpha1.RunType
	time     time.Time
	machines []v1alpha1.VirtualMachine
}

// scheduledRun follows from the schedule and the slot, so that a run that is started twice is one.
func scheduledRun(schedule v1alpha1.Schedule, slot time.Time) *run {
	return &run{
		id:      fmt.Sprintf("%s-%s", schedule.Name, slot.UTC().Format("20060102-150405")),
		trigger: v1alpha1.TriggerSchedule,
		name:    schedule.Name,
		kind:    schedule.Type,
		time:    slot,
	}
}

// requestedRun follows from the token. A token may be any text, so its hash stands for it.
func requestedRun(request v1alpha1.RunNow, now time.Time) *run {
	return &run{
		id:      delegation.ChildName("run-now", request.Token),
		trigger: v1alpha1.TriggerRunNow,
		name:    request.Token,
		kind:    request.Type,
		time:    now,
	}
}

// newJob is the job of a run for one virtual machine. It has labels of its own only: whoever prunes what carries the policy's must not find it.
func newJob(policy *v1alpha1.BackupPolicy, run *run, machine *v1alpha1.VirtualMachine) *v1alpha1.BackupJob {
	return &v1alpha1.BackupJob{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: policy.Namespace,
			Name:      delegation.ChildName(policy.Name+"-"+machine.Name, string(policy.UID), machine.Name, run.id),
			Labels: map[string]string{
				v1alpha1.LabelManagedBy:        v1alpha1.ManagedBy,
				v1alpha1.LabelPolicyUID:        string(policy.UID),
				v1alpha1.LabelRunID:            run.id,
				v1alpha1.LabelVirtualMachineID: inventory.ID(machine),
			},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion:         v1alpha1.GroupVersion.String(),
				Kind:               "BackupPolicy",
				Name:               policy.Name,
				UID:                policy.UID,
				Controller:         ptr.To(true),
				BlockOwnerDeletion: ptr.To(false), // a running job must not keep its policy from going
			}},
		},
		Spec: v1alpha1.BackupJobSpec{
			BackupSettings:    *policy.Spec.BackupSettings.DeepCopy(),
			VirtualMachineRef: v1alpha1.VirtualMachineReference{Name: machine.Name},
			Type:              run.kind,
			Origin: &v1alpha1.JobOrigin{
				PolicyRef: v1alpha1.PolicyReference{Name: policy.Name},
				Trigger:   run.trigger,
				Name:      run.name,
				Time:      metav1.NewTime(run.time),
			},
			StartDeadlineSeconds: policy.Spec.StartDeadlineSeconds,
			RunDeadlineSeconds:   policy.Spec.RunDeadlineSeconds,
			Attempts:             policy.Spec.Attempts,
		},
	}
}

func ownedBy(job *v1alpha1.BackupJob, policy *v1alpha1.BackupPolicy) bool {
	return metav1.IsControlledBy(job, policy)
}
