// Package stage gives the tests of runs a cluster with hosts, repositories and virtual machines, and plays the agents: it writes the status of
// tasks, as they do.
package stage

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/clock"
	kstatus "sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
	"github.com/hyperkeep/hyperkeep/controllers/test/testcluster"
)

// Repository is the name of the repository of every world. It serves all namespaces.
const Repository = "main"

// World is a cluster with one repository.
type World struct {
	*testcluster.Cluster
}

// New starts a cluster with a repository. One is enough for a package.
func New(t *testing.T) World {
	w := World{testcluster.New(t)}
	repository := &v1alpha1.BackupRepository{ObjectMeta: metav1.ObjectMeta{Name: Repository}}
	repository.Spec.Location.Filesystem = &v1alpha1.FilesystemLocation{Path: `\\nas\backup`}
	repository.Spec.SecretName, repository.Spec.AllowedNamespaces = "main", []string{"*"}
	w.Create(t, repository)
	w.Condition(t, repository, &repository.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionTrue, "Reachable")
	return w
}

// Eventually polls, with patience enough for a busy machine.
func (w World) Eventually(t *testing.T, f any) AsyncAssertion {
	t.Helper()
	return NewWithT(t).Eventually(f).WithTimeout(30 * time.Second).WithPolling(50 * time.Millisecond)
}

// Consistently polls for a moment.
func (w World) Consistently(t *testing.T, f any) AsyncAssertion {
	t.Helper()
	return NewWithT(t).Consistently(f).WithTimeout(time.Second).WithPolling(50 * time.Millisecond)
}

// Condition writes one condition of an object's status, as its controller does. list is the list within the object.
func (w World) Condition(t *testing.T, object client.Object, list *[]metav1.Condition, kind string, status metav1.ConditionStatus, reason string) {
	t.Helper()
	w.Status(t, object, func() {
		meta.SetStatusCondition(list, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: reason})
	})
}

// Status changes the status of an object.
func (w World) Status(t *testing.T, object client.Object, edit func()) {
	t.Helper()
	w.Eventually(t, func() error {
		if err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		edit()
		return w.Admin.Status().Update(t.Context(), object)
	}).Should(Succeed())
}

// Refresh reads an object, and says whether it exists.
func (w World) Refresh(t *testing.T, object client.Object) bool {
	t.Helper()
	err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(object), object)
	if client.IgnoreNotFound(err) != nil {
		t.Fatal(err)
	}
	return err == nil
}

// Edit changes an object outside of its status.
func (w World) Edit(t *testing.T, object client.Object, edit func()) {
	t.Helper()
	w.Eventually(t, func() error {
		if err := w.Admin.Get(t.Context(), client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		edit()
		return w.Admin.Update(t.Context(), object)
	}).Should(Succeed())
}

// Delete deletes an object as a person does.
func (w World) Delete(t *testing.T, object client.Object) {
	t.Helper()
	if err := w.Admin.Delete(t.Context(), object); err != nil {
		t.Fatal(err)
	}
}

// Host makes a host whose agent is alive and has the credential of the repository.
func (w World) Host(t *testing.T, name string, maxParallelJobs int32) *v1alpha1.HyperVHost {
	t.Helper()
	host := &v1alpha1.HyperVHost{ObjectMeta: metav1.ObjectMeta{Name: name}}
	host.Spec = v1alpha1.HyperVHostSpec{MaxParallelJobs: maxParallelJobs, VirtualMachineNamespace: "default"}
	namespace := v1alpha1.AgentNamespace(name)
	w.Namespace(t, namespace)
	w.Create(t, host,
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: testcluster.ManagerAccount},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "hyperkeep-credentials"},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: testcluster.ManagerNamespace, Name: testcluster.ManagerAccount}},
		},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: delegation.CredentialName(Repository)}},
	)
	w.Condition(t, host, &host.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonAgentAlive)
	return host
}

// Machine makes a virtual machine that a host has. Its id follows from its namespace and name.
func (w World) Machine(t *testing.T, namespace, name, host string) *v1alpha1.VirtualMachine {
	t.Helper()
	facts := v1alpha1.VirtualMachineFacts{ID: "id-" + namespace + "-" + name, DisplayName: name, State: v1alpha1.StateRunning}
	machine := &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{
		Namespace: namespace, Name: inventory.ObjectName(facts), Labels: map[string]string{v1alpha1.LabelVirtualMachineID: facts.ID},
	}}
	w.Create(t, machine)
	w.Status(t, machine, func() {
		machine.Status.HostName, machine.Status.Facts = host, &facts
		meta.SetStatusCondition(&machine.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionPresent, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonFound})
	})
	return machine
}

// Image makes a usable image of a virtual machine, some hours old.
func (w World) Image(t *testing.T, machine *v1alpha1.VirtualMachine, name string, hours int, edits ...func(*v1alpha1.BackupImage)) *v1alpha1.BackupImage {
	t.Helper()
	id := machine.Status.Facts.ID
	image := &v1alpha1.BackupImage{ObjectMeta: metav1.ObjectMeta{
		Namespace: machine.Namespace, Name: name, Labels: map[string]string{v1alpha1.LabelVirtualMachineID: id, v1alpha1.LabelRepository: Repository},
	}}
	image.Spec.ImageID = name
	image.Spec.VirtualMachine = v1alpha1.ImageVirtualMachine{ID: id, Name: machine.Status.Facts.DisplayName, ObjectName: machine.Name, HostName: machine.Status.HostName}
	image.Spec.RepositoryRef.Name = Repository
	image.Spec.Summary = *Summary(clock.RealClock{}.Now().Add(-time.Duration(hours) * time.Hour))
	for _, edit := range edits {
		edit(image)
	}
	w.Create(t, image)
	w.Condition(t, image, &image.Status.Conditions, v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonPublished)
	return image
}

// Summary is that of an image of two disks.
func Summary(taken time.Time) *v1alpha1.ImageSummary {
	return &v1alpha1.ImageSummary{
		Digest:       strings.Repeat("ab", 32),
		SnapshotTime: metav1.NewTime(taken.Truncate(time.Second)), Type: v1alpha1.ImageFull, Consistency: v1alpha1.ConsistencyApplication,
		Method: v1alpha1.MethodWMI, ProtectedBytes: 40 << 30, StoredBytes: 1 << 30,
		Disks: []v1alpha1.DiskSummary{
			{Key: "SCSI-0-0", Included: v1alpha1.DiskIncluded, Type: v1alpha1.ImageFull},
			{Key: "SCSI-0-1", Included: v1alpha1.DiskIncluded, Type: v1alpha1.ImageFull},
		},
	}
}

// KStatus is what kubectl, Flux and Argo CD make of an object.
func (w World) KStatus(t *testing.T, object client.Object) string {
	t.Helper()
	if !w.Refresh(t, object) {
		return string(kstatus.NotFoundStatus)
	}
	kinds, _, err := w.Admin.Scheme().ObjectKinds(object)
	if err != nil {
		t.Fatal(err)
	}
	object.GetObjectKind().SetGroupVersionKind(kinds[0])
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	raw := &unstructured.Unstructured{}
	if err := raw.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	result, err := kstatus.Compute(raw)
	if err != nil {
		t.Fatal(err)
	}
	return string(result.Status)
}
