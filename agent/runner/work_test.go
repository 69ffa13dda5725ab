package runner

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/controlplane"
)

const (
	hostName   = "hv01"
	diskSize   = 64 << 20
	repository = "main"
)

// rig is an emulated host with one virtual machine, its agent and a keeper, on a real API server.
type rig struct {
	t      *testing.T
	client client.Client
	dir    string // of the host
	host   *emulator.Host
	logic  *hyperv.Host
	images map[string]v1alpha1.ImageTask // what the backups of the test published, by id
}

func newRig(t *testing.T) *rig {
	t.Helper()
	return newRigOn(t, "", nil)
}

// newRigOn has a host as its host.yaml says. What the host and the agent's journal hold before the agent starts is the third parameter's.
func newRigOn(t *testing.T, hostYAML string, before func(*rig, *Journal)) *rig {
	t.Helper()
	server := controlplane.ForTest(t, controlplane.Options{CRDs: []string{"../../config/crd/bases"}})
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(server.Config(), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	r := newHostOnly(t, hostYAML)
	r.client = c
	for _, namespace := range []string{v1alpha1.AgentNamespace(hostName), "keeper"} {
		r.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
		r.create(&corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "repository-main"},
			Data:       map[string][]byte{v1alpha1.SecretKeyPassword: []byte("correct horse")},
		})
	}
	options := func(namespace string) Options {
		return Options{Config: server.Config(), Namespace: namespace, StateDir: t.TempDir(), Version: "test", LeaseDuration: time.Minute}
	}
	r.work(func(ctx context.Context) error { return RunKeeper(ctx, options("keeper")) })
	host := options(v1alpha1.AgentNamespace(hostName))
	if before != nil {
		journal, err := OpenJournal(filepath.Join(host.StateDir, "journal"))
		if err != nil {
			t.Fatal(err)
		}
		before(r, journal)
	}
	r.work(func(ctx context.Context) error {
		return RunHost(ctx, HostOptions{
			Options: host, Host: r.logic, Files: r.host.Files(),
			InventoryResync: time.Minute, InventoryInterval: time.Second, SweepInterval: time.Second,
		})
	})
	return r
}

// newHostOnly has a host with its virtual machine, and neither agents nor an API server.
func newHostOnly(t *testing.T, hostYAML string) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir(), images: map[string]v1alpha1.ImageTask{}}
	r.makeMachine("crm")
	if err := os.WriteFile(filepath.Join(r.dir, "host.yaml"), []byte(hostYAML), 0o644); err != nil {
		t.Fatal(err)
	}
	var err error
	if r.host, err = emulator.Open(r.dir, emulator.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.host.Close() })
	r.logic = hyperv.New(hyperv.Seams{
		Virtualization: r.host.Session(wmi.NamespaceVirtualization), CIM: r.host.Session(wmi.NamespaceCIMv2),
		Disks: r.host.Disks(), Files: r.host.Files(), Shadows: r.host.VSS(), Clock: clock.RealClock{},
	})
	return r
}

// work runs an agent for the length of the test.
func (r *rig) work(run func(context.Context) error) {
	ctx, stop := context.WithCancel(context.WithoutCancel(r.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	r.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			r.t.Errorf("the agent ended: %v", err)
		}
	})
}

func (r *rig) create(object client.Object) {
	r.t.Helper()
	if err := r.client.Create(r.t.Context(), object); err != nil {
		r.t.Fatal(err)
	}
}

// makeMachine makes a virtual machine with one disk of random bytes at its start.
func (r *rig) makeMachine(name string) {
	r.t.Helper()
	folder := filepath.Join(r.dir, name)
	if err := os.Mkdir(folder, 0o755); err != nil {
		r.t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(folder, "system.vhdx"))
	if err != nil {
		r.t.Fatal(err)
	}
	defer file.Close()
	size, err := vhdx.Create(file, vhdx.Options{VirtualSize: diskSize, BlockSize: 1 << 20})
	if err != nil {
		r.t.Fatal(err)
	}
	disk, err := vhdx.OpenWriter(file, size, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	content := make([]byte, 5<<20)
	_, _ = rand.Read(content)
	if _, err := disk.WriteAt(content, 1<<20); err != nil {
		r.t.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		r.t.Fatal(err)
	}
	yaml := "state: \"off\"\ndisks:\n  - path: system.vhdx\n"
	if err := os.WriteFile(filepath.Join(folder, "vm.yaml"), []byte(yaml), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// do has an agent carry out a task and returns it with its verdict.
func (r *rig) do(namespace, name string, spec v1alpha1.AgentTaskSpec) *v1alpha1.AgentTask {
	r.t.Helper()
	spec.Deadline = metav1.NewTime(time.Now().Add(time.Hour))
	spec.Owner = v1alpha1.TaskOwner{Kind: "BackupJob", Namespace: "sales", Name: name, UID: name}
	if spec.Kind != v1alpha1.TaskRelease {
		spec.Repository = &v1alpha1.TaskRepository{
			Name: repository, SecretName: "repository-main",
			Location: v1alpha1.RepositoryLocation{Filesystem: &v1alpha1.FilesystemLocation{Path: filepath.Join(r.dir, "..", "repository")}},
		}
	}
	if asked := spec.Restore; asked != nil && asked.VirtualMachineID == "" { // as the manager recorded it
		recorded := r.images[asked.ImageID]
		asked.VirtualMachineID, asked.Digest = recorded.VirtualMachineID, recorded.Digest
	}
	if asked := spec.Image; asked != nil && asked.VirtualMachineID == "" {
		*asked = r.images[asked.ImageID]
	}
	task := &v1alpha1.AgentTask{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: spec}
	r.create(task)
	limit := time.Now().Add(time.Minute)
	for !finished(task) {
		if time.Now().After(limit) {
			r.t.Fatalf("task %s has no verdict: %+v", name, task.Status)
		}
		time.Sleep(50 * time.Millisecond)
		if err := r.client.Get(r.t.Context(), client.ObjectKeyFromObject(task), task); err != nil {
			r.t.Fatal(err)
		}
	}
	return task
}

func (r *rig) backup(name string, change ...func(*v1alpha1.BackupTask)) *v1alpha1.AgentTask {
	r.t.Helper()
	vm := r.machine("crm")
	spec := &v1alpha1.BackupTask{
		VirtualMachine: v1alpha1.ImageVirtualMachine{ID: strings.ToLower(vm.ID), Name: vm.Name, ObjectName: "crm-1", HostName: hostName},
		ImageID:        name, Namespace: "sales", Type: v1alpha1.RunAuto, UnsupportedDisks: v1alpha1.UnsupportedDisksExcludeAndWarn,
		Consistency: v1alpha1.ConsistencySettings{Level: v1alpha1.LevelApplication, QuiesceAttempts: 2, QuiesceTimeoutSeconds: 60},
	}
	for _, c := range change {
		c(spec)
	}
	task := r.do(v1alpha1.AgentNamespace(hostName), name, v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskBackup, Backup: spec})
	if published := task.Status.Image; published != nil {
		r.images[name] = v1alpha1.ImageTask{ImageID: name, VirtualMachineID: spec.VirtualMachine.ID, Digest: published.Digest}
	}
	return task
}

func (r *rig) machine(name string) hyperv.VM {
	r.t.Helper()
	inventory, err := r.logic.Inventory(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, vm := range inventory.VMs {
		if vm.Name == name {
			return vm
		}
	}
	r.t.Fatalf("no virtual machine %s", name)
	return hyperv.VM{}
}

// content reads a disk file of the host whole, through our own reader: that the reader is right is proven elsewhere.
func (r *rig) content(path ...string) []byte {
	r.t.Helper()
	file, err := os.Open(filepath.Join(append([]string{r.dir}, path...)...))
	if err != nil {
		r.t.Fatal(err)
	}
	defer file.Close()
	stat, _ := file.Stat()
	member, err := vhdx.Open(file, stat.Size())
	if err != nil {
		r.t.Fatal(err)
	}
	disk, err := vhdx.NewDisk(member)
	if err != nil {
		r.t.Fatal(err)
	}
	content, err := io.ReadAll(io.NewSectionReader(disk, 0, disk.Size()))
	if err != nil {
		r.t.Fatal(err)
	}
	return content
}

func wantSuccess(t *testing.T, task *v1alpha1.AgentTask) {
	t.Helper()
	if apimeta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionSucceeded) {
		return
	}
	t.Fatalf("task %s failed: %+v\nsteps %+v", task.Name, task.Status.Failure, task.Status.Steps)
}

// TestTasks goes through the life of an image: probed, full, incremental, verified, restored, deleted.
func TestTasks(t *testing.T) {
	r := newRig(t)
	probe := r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe})
	wantSuccess(t, probe)
	if probe.Status.Probe == nil || probe.Status.Probe.RepositoryID == "" || probe.Status.Probe.Images != 0 {
		t.Errorf("the probe found %+v", probe.Status.Probe)
	}
	first := r.backup("first")
	wantSuccess(t, first)
	if got := first.Status.Image; got == nil || got.Type != v1alpha1.ImageFull || got.Consistency != v1alpha1.ConsistencyOffline || got.Disks[0].Reason != "FirstBackup" {
		t.Errorf("the first image is %+v", got)
	}
	if !apimeta.IsStatusConditionTrue(first.Status.Conditions, v1alpha1.ConditionReleased) {
		t.Errorf("not released: %+v", first.Status.Conditions)
	}
	second := r.backup("second")
	wantSuccess(t, second)
	if got := second.Status.Image; got.Type != v1alpha1.ImageIncremental || got.ReadBytes != 0 || got.OptimizationPercent != 100 {
		t.Errorf("nothing changed, and the second image is %+v; warnings %+v", got, second.Status.Warnings)
	}
	wantSuccess(t, r.do("keeper", "verify", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskVerify, Image: &v1alpha1.ImageTask{ImageID: "second"}}))
	restored := r.do(v1alpha1.AgentNamespace(hostName), "restore", v1alpha1.AgentTaskSpec{
		Kind:    v1alpha1.TaskRestore,
		Restore: &v1alpha1.RestoreTask{ImageID: "second", Overwrite: v1alpha1.OverwriteNever, Name: "crm-restored", RestoreID: "r1"},
	})
	wantSuccess(t, restored)
	if got := restored.Status.Restored; got.Method != v1alpha1.RestoreImport || got.MethodReason != "" {
		t.Errorf("restored by %s: %s", got.Method, got.MethodReason)
	}
	if left, err := os.ReadDir(filepath.Join(r.dir, "crm-restored", "hyperkeep")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the imported files remain: %v, %v", left, err)
	}
	if vm := r.machine("crm-restored"); vm.State != hyperv.Off || strings.EqualFold(vm.ID, r.machine("crm").ID) {
		t.Errorf("the restored virtual machine is %+v", vm)
	}
	if !bytes.Equal(r.content("crm-restored", "system.vhdx"), r.content("crm", "system.vhdx")) {
		t.Error("the restored disk differs")
	}
	wantSuccess(t, r.do("keeper", "delete", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskDeleteImage, Image: &v1alpha1.ImageTask{ImageID: "first"}}))
	wantSuccess(t, r.do("keeper", "verify-2", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskVerify, Image: &v1alpha1.ImageTask{ImageID: "second"}}))
	points, err := r.logic.ReferencePoints(t.Context(), r.machine("crm").ID)
	if err != nil || len(points) != 1 {
		t.Errorf("%d reference points remain (I4), %v", len(points), err)
	}
	inPlace := r.do(v1alpha1.AgentNamespace(hostName), "in-place", v1alpha1.AgentTaskSpec{
		Kind:    v1alpha1.TaskRestore,
		Restore: &v1alpha1.RestoreTask{ImageID: "second", Overwrite: v1alpha1.OverwriteReplace, RestoreID: "r2"},
	})
	wantSuccess(t, inPlace)
	if _, err := os.Stat(filepath.Join(r.dir, "crm", "system.vhdx")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the replaced disk is still there: %v", err)
	}
	untracked := r.backup("untracked", func(b *v1alpha1.BackupTask) {
		b.ChangeTracking.BlockLevelIncremental = new(bool)
	})
	wantSuccess(t, untracked)
	if points, err := r.logic.ReferencePoints(t.Context(), r.machine("crm").ID); err != nil || len(points) != 0 {
		t.Errorf("%d reference points remain (NW-12), %v", len(points), err)
	}
}
