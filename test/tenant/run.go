package tenant

import (
	"fmt"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/qemu"
)

// Object returns the VirtualMachine object of a machine by the machine's name in Hyper-V, nil when there is none.
func (x *Tenant) Object(name string) *v1alpha1.VirtualMachine {
	x.Helper()
	list := &v1alpha1.VirtualMachineList{}
	x.ok(x.Site.Client.List(x.Context(), list, client.InNamespace(x.Name)), "list virtual machines")
	for i, vm := range list.Items {
		if vm.Status.Facts != nil && vm.Status.Facts.DisplayName == name {
			return &list.Items[i]
		}
	}
	return nil
}

// AwaitMachine waits until a machine has its object.
func (x *Tenant) AwaitMachine(name string) *v1alpha1.VirtualMachine {
	x.Helper()
	x.Await("machine "+name+" appears", func() bool { return x.Object(name) != nil })
	return x.Object(name)
}

// Job starts a backup of a machine on demand. change alters the job before it is created; it may be nil.
func (x *Tenant) Job(m *Machine, name string, change func(*v1alpha1.BackupJobSpec)) *v1alpha1.BackupJob {
	x.Helper()
	return x.JobNamed(m.Name, name, change)
}

// JobNamed is Job by the machine's name in Hyper-V.
func (x *Tenant) JobNamed(machine, name string, change func(*v1alpha1.BackupJobSpec)) *v1alpha1.BackupJob {
	x.Helper()
	job := &v1alpha1.BackupJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: x.Name, Name: name},
		Spec: v1alpha1.BackupJobSpec{
			BackupSettings:    v1alpha1.BackupSettings{RepositoryRef: v1alpha1.RepositoryReference{Name: x.Name}},
			VirtualMachineRef: v1alpha1.VirtualMachineReference{Name: x.AwaitMachine(machine).Name},
		},
	}
	if change != nil {
		change(&job.Spec)
	}
	x.Create(job)
	return job
}

// AwaitJob waits until a job has its verdict and, where there was a checkpoint, has said what became of it.
func (x *Tenant) AwaitJob(job *v1alpha1.BackupJob) {
	x.Helper()
	x.Await("job "+job.Name+" has ended", func() bool {
		x.Get(job)
		released := apimeta.FindStatusCondition(job.Status.Conditions, v1alpha1.ConditionCheckpointReleased)
		return Decided(job.Status.Conditions) && (released == nil || released.Status != metav1.ConditionUnknown)
	})
}

// Backup backs a machine up and expects that the job succeeds and leaves the host clean.
func (x *Tenant) Backup(m *Machine, name string, change func(*v1alpha1.BackupJobSpec)) *v1alpha1.BackupJob {
	x.Helper()
	job := x.Job(m, name, change)
	x.AwaitJob(job)
	if !apimeta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.ConditionSucceeded) {
		x.Fatalf("job %s failed: %s", name, Verdict(job.Status.Conditions))
	}
	if !apimeta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.ConditionCheckpointReleased) || len(x.Leftovers()) > 0 {
		x.Fatalf("job %s has left the host unclean: %s", name, strings.Join(x.Leftovers(), ", "))
	}
	return job
}

// Restore restores an image, as a new machine unless change says otherwise, and expects that it succeeds. It returns the paths of the restored disks.
func (x *Tenant) Restore(image, name string, change func(*v1alpha1.RestoreJobSpec)) []string {
	x.Helper()
	job := x.RestoreJob(image, name, change)
	x.AwaitRestore(job)
	if !apimeta.IsStatusConditionTrue(job.Status.Conditions, v1alpha1.ConditionSucceeded) || job.Status.Restored == nil {
		x.Fatalf("restore %s failed: %s", name, Verdict(job.Status.Conditions))
	}
	var paths []string
	for _, path := range job.Status.Restored.Paths {
		paths = append(paths, x.HostPath(path))
	}
	return paths
}

// RestoreJob starts a restore of an image.
func (x *Tenant) RestoreJob(image, name string, change func(*v1alpha1.RestoreJobSpec)) *v1alpha1.RestoreJob {
	x.Helper()
	job := &v1alpha1.RestoreJob{
		ObjectMeta: metav1.ObjectMeta{Namespace: x.Name, Name: name},
		Spec: v1alpha1.RestoreJobSpec{
			Source: v1alpha1.RestoreSource{ImageRef: &v1alpha1.ImageReference{Name: image}},
			Target: &v1alpha1.RestoreTarget{Name: name},
		},
	}
	if change != nil {
		change(&job.Spec)
	}
	x.Create(job)
	return job
}

// AwaitRestore waits until a restore has its verdict.
func (x *Tenant) AwaitRestore(job *v1alpha1.RestoreJob) {
	x.Helper()
	x.Await("restore "+job.Name+" has ended", func() bool { x.Get(job); return Decided(job.Status.Conditions) })
}

// ExpectRestores restores an image as a new machine and compares each disk with a raw file, byte for byte.
func (x *Tenant) ExpectRestores(image, name string, frozen []string) {
	x.Helper()
	x.ExpectEqual(x.Restore(image, name, nil), frozen)
}

// ExpectEqual compares VHDX files with raw files, by QEMU's reading of them.
func (x *Tenant) ExpectEqual(restored, frozen []string) {
	x.Helper()
	if len(restored) != len(frozen) {
		x.Fatalf("%d disks were restored instead of %d", len(restored), len(frozen))
	}
	for i := range frozen {
		x.ok(qemu.Check(x.Context(), restored[i]), "check a restored disk")
		x.ok(qemu.Compare(x.Context(), frozen[i], restored[i]), "compare %s", filepath.Base(frozen[i]))
	}
}

// Images lists the tenant's images, by name.
func (x *Tenant) Images() map[string]v1alpha1.BackupImage {
	x.Helper()
	list := &v1alpha1.BackupImageList{}
	x.ok(x.Site.Client.List(x.Context(), list, client.InNamespace(x.Name)), "list images")
	images := map[string]v1alpha1.BackupImage{}
	for _, image := range list.Items {
		images[image.Name] = image
	}
	return images
}

// MarkForDeletion sets an image's deletion policy to Delete, and waits until the manager holds the object, so that deleting it deletes the data too.
func (x *Tenant) MarkForDeletion(image *v1alpha1.BackupImage) {
	x.Helper()
	x.Change(image, func() { image.Spec.DeletionPolicy = v1alpha1.DeletionDelete })
	x.Await("image "+image.Name+" is held", func() bool { x.Get(image); return len(image.Finalizers) > 0 })
}

// AwaitCondition waits until an object has a condition of a kind and status, and returns it.
func (x *Tenant) AwaitCondition(object client.Object, kind string, status metav1.ConditionStatus) metav1.Condition {
	x.Helper()
	var found *metav1.Condition
	x.Await(fmt.Sprintf("%T %s has %s=%s", object, object.GetName(), kind, status), func() bool {
		x.Get(object)
		found = apimeta.FindStatusCondition(ConditionsOf(x, object), kind)
		return found != nil && found.Status == status
	})
	return *found
}

// ConditionsOf reads the conditions in the status of any object.
func ConditionsOf(x *Tenant, object client.Object) []metav1.Condition {
	x.Helper()
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	x.ok(err, "read conditions")
	var only struct {
		Status struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	x.ok(runtime.DefaultUnstructuredConverter.FromUnstructured(map[string]any{"status": fields["status"]}, &only), "read conditions")
	return only.Status.Conditions
}

// AwaitEvent waits until an event about an object has a reason, and returns its message.
func (x *Tenant) AwaitEvent(object client.Object, reason string) string {
	x.Helper()
	message := ""
	x.Await("an event says "+reason+" of "+object.GetName(), func() bool {
		list := &corev1.EventList{}
		x.ok(x.Site.Client.List(x.Context(), list), "list events")
		for _, event := range list.Items {
			if event.InvolvedObject.UID == object.GetUID() && event.Reason == reason {
				message = event.Message
			}
		}
		return message != ""
	})
	return message
}

// Decided says whether a run has its verdict.
func Decided(conditions []metav1.Condition) bool {
	verdict := apimeta.FindStatusCondition(conditions, v1alpha1.ConditionSucceeded)
	return verdict != nil && verdict.Status != metav1.ConditionUnknown
}

// Verdict is the verdict of a run in words.
func Verdict(conditions []metav1.Condition) string {
	verdict := apimeta.FindStatusCondition(conditions, v1alpha1.ConditionSucceeded)
	if verdict == nil {
		return "there is no verdict"
	}
	return fmt.Sprintf("%s=%s %s: %s", verdict.Type, verdict.Status, verdict.Reason, verdict.Message)
}
