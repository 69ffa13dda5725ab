package main

import (
	"context"
	"fmt"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/site"
)

const (
	systemNamespace = site.SystemNamespace
	// patience is how long one step of the story may take.
	patience = 5 * time.Minute
	// lookInterval is how often the demo looks whether a step is done.
	lookInterval = 200 * time.Millisecond
)

// await asks until the answer is yes.
func (d *demo) await(what string, done func() (bool, error)) error {
	deadline := time.After(patience)
	for {
		yes, err := done()
		if err != nil || yes {
			return err
		}
		select {
		case <-d.ctx.Done():
			return d.ctx.Err()
		case <-deadline:
			return fmt.Errorf("it takes longer than %s until %s", patience, what)
		case <-time.After(lookInterval):
		}
	}
}

func (d *demo) host(name string) *site.Host {
	for _, host := range d.site.Hosts() {
		if host.Name == name {
			return host
		}
	}
	return nil
}

func (d *demo) machine(name string) *machine {
	for _, m := range d.machines {
		if m.name == name {
			return m
		}
	}
	return nil
}

// objects lists the VirtualMachine objects by the names that the machines have in Hyper-V.
func (d *demo) objects() (map[string]v1alpha1.VirtualMachine, error) {
	list := &v1alpha1.VirtualMachineList{}
	if err := d.site.Client.List(d.ctx, list, client.InNamespace(namespace)); err != nil {
		return nil, err
	}
	objects := map[string]v1alpha1.VirtualMachine{}
	for _, vm := range list.Items {
		if vm.Status.Facts != nil {
			objects[vm.Status.Facts.DisplayName] = vm
		}
	}
	return objects, nil
}

// objectOf is the name of the VirtualMachine object of a machine. It is empty when there is none.
func (d *demo) objectOf(name string) string {
	objects, err := d.objects()
	if err != nil {
		return ""
	}
	return objects[name].Name
}

func (d *demo) awaitMachines() error {
	return d.await("all virtual machines have appeared", func() (bool, error) {
		objects, err := d.objects()
		return len(objects) == len(d.machines), err
	})
}

func (d *demo) awaitGone(name string) error {
	return d.await(name+" is seen to be gone", func() (bool, error) {
		objects, err := d.objects()
		return conditionIs(objects[name].Status.Conditions, v1alpha1.ConditionPresent, metav1.ConditionFalse), err
	})
}

// awaitRun shows the progress of a run until all its jobs have ended and left their hosts clean.
func (d *demo) awaitRun(token string) ([]v1alpha1.BackupJob, error) {
	var jobs []v1alpha1.BackupJob
	err := d.await("the policy has made its jobs", func() (some bool, err error) {
		jobs, err = d.jobs(token)
		return len(jobs) > 0, err
	})
	if err != nil {
		return nil, err
	}
	stop := d.show("get", "backupjobs", "-n", namespace, "-l", v1alpha1.LabelRunID+"="+jobs[0].Labels[v1alpha1.LabelRunID], "-o",
		"custom-columns=VM:.spec.virtualMachineRef.name,PHASE:.status.phase,PROGRESS:.status.progress.summary")
	err = d.await("all backups have ended", func() (ended bool, err error) {
		jobs, err = d.jobs(token)
		ended = len(jobs) == len(d.machines)
		for _, job := range jobs {
			ended = ended && decided(job.Status.Conditions) && !conditionIs(job.Status.Conditions, v1alpha1.ConditionCheckpointReleased, metav1.ConditionUnknown)
		}
		return ended, err
	})
	if err := stop(); err != nil {
		return nil, err
	}
	for _, job := range jobs {
		if err == nil && !succeeded(job.Status.Conditions) {
			err = fmt.Errorf("the backup of %s failed: %s", d.nameOf(job), sentence(job.Status.Conditions))
		}
	}
	return jobs, err
}

// show has kubectl watch something until stop is called, which lets the last change be seen.
func (d *demo) show(args ...string) (stop func() error) {
	watching, end := context.WithCancel(d.ctx)
	shown := make(chan error, 1)
	go func() { shown <- d.console.watch(watching, args...) }()
	return func() error {
		select {
		case <-d.ctx.Done():
		case <-time.After(2 * lookInterval):
		}
		end()
		return <-shown
	}
}

// jobs lists the jobs of a run.
func (d *demo) jobs(token string) ([]v1alpha1.BackupJob, error) {
	list := &v1alpha1.BackupJobList{}
	err := d.site.Client.List(d.ctx, list, client.InNamespace(namespace))
	var jobs []v1alpha1.BackupJob
	for _, job := range list.Items {
		if job.Spec.Origin != nil && job.Spec.Origin.Name == token {
			jobs = append(jobs, job)
		}
	}
	return jobs, err
}

// nameOf is the name in Hyper-V of a job's machine.
func (d *demo) nameOf(job v1alpha1.BackupJob) string {
	objects, err := d.objects()
	if err != nil {
		return job.Spec.VirtualMachineRef.Name
	}
	for name, object := range objects {
		if object.Name == job.Spec.VirtualMachineRef.Name {
			return name
		}
	}
	return job.Spec.VirtualMachineRef.Name
}

// imageOf is the name of the image that a run made of a machine.
func (d *demo) imageOf(name, token string) (string, error) {
	jobs, err := d.jobs(token)
	for _, job := range jobs {
		if d.nameOf(job) == name && job.Status.ImageRef != nil {
			return job.Status.ImageRef.Name, nil
		}
	}
	return "", fmt.Errorf("the run %s made no image of %s (%w)", token, name, err)
}

func (d *demo) awaitRestore(name string) (*v1alpha1.RestoredVirtualMachine, error) {
	stop := d.show("get", "restorejob", name, "-n", namespace, "-o",
		"custom-columns=RESTORE:.metadata.name,PHASE:.status.phase,PROGRESS:.status.progress.summary,MADE:.status.restored.name")
	restore := &v1alpha1.RestoreJob{}
	err := d.await(name+" has ended", func() (bool, error) {
		err := d.site.Client.Get(d.ctx, client.ObjectKey{Namespace: namespace, Name: name}, restore)
		return decided(restore.Status.Conditions), err
	})
	if err := stop(); err != nil {
		return nil, err
	}
	if err == nil && (!succeeded(restore.Status.Conditions) || restore.Status.Restored == nil) {
		err = fmt.Errorf("the restore failed: %s", sentence(restore.Status.Conditions))
	}
	return restore.Status.Restored, err
}

func conditionIs(conditions []metav1.Condition, kind string, status metav1.ConditionStatus) bool {
	return apimeta.IsStatusConditionPresentAndEqual(conditions, kind, status)
}

func decided(conditions []metav1.Condition) bool {
	verdict := apimeta.FindStatusCondition(conditions, v1alpha1.ConditionSucceeded)
	return verdict != nil && verdict.Status != metav1.ConditionUnknown
}

func succeeded(conditions []metav1.Condition) bool {
	return conditionIs(conditions, v1alpha1.ConditionSucceeded, metav1.ConditionTrue)
}

// sentence is what the verdict says.
func sentence(conditions []metav1.Condition) string {
	verdict := apimeta.FindStatusCondition(conditions, v1alpha1.ConditionSucceeded)
	if verdict == nil {
		return "there is no verdict"
	}
	return verdict.Reason + ": " + verdict.Message
}
