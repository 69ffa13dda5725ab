// Package tenant is one user of a running site, for one test: a namespace, an emulated host and a repository of its own, virtual machines with guests
// that write, and what that user does with them. A test that goes wrong says what the objects and logs said.
package tenant

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/site"
)

const (
	// patience is how long anything may take that a test waits for: much more than it needs on a busy machine with two cores.
	patience = 2 * time.Minute
	// lookInterval is how often a test looks at what it waits for.
	lookInterval = 50 * time.Millisecond
	// Password of the tenants' repositories, for those who look into them with other tools.
	Password = "a tenant's secret"
)

// Tenant is one user of a site. Its methods fail the test when something goes wrong, and belong to the test's goroutine.
type Tenant struct {
	testing.TB
	// Site that the tenant uses.
	Site *site.Site
	// Name of the namespace, the host and the repository.
	Name string
	// Host of the tenant, set by Start.
	Host *site.Host
	// Dir is for the test's files. It goes with the test.
	Dir string
	// RepositoryDir is the folder of the repository. It goes with the site, for the keeper goes on to look at it when the test is over.
	RepositoryDir string

	machines []*Machine
}

// New makes a tenant with a namespace. name is short and used by no other test of the site.
func New(tb testing.TB, s *site.Site, name string) *Tenant {
	tb.Helper()
	dir := tb.TempDir()
	x := &Tenant{TB: tb, Site: s, Name: name, Dir: dir, RepositoryDir: filepath.Join(s.Dir, "repositories", name)}
	x.ok(s.CreateNamespace(tb.Context(), name), "create namespace")
	x.ok(os.MkdirAll(x.RepositoryDir, 0o755), "make the repository's folder")
	tb.Cleanup(x.explain)
	return x
}

// Start starts the tenant's host over the machines that were added, with its agent, and returns when Kubernetes shows all of them.
func (x *Tenant) Start() {
	x.Helper()
	var names []string
	for _, m := range x.machines {
		names = append(names, m.Name)
	}
	x.StartExpecting(names...)
}

// StartExpecting is Start where not every machine can be read.
func (x *Tenant) StartExpecting(names ...string) {
	x.Helper()
	host, err := x.Site.AddHost(x.Context(), x.Name)
	x.ok(err, "start the host")
	x.Host = host
	x.Create(&v1alpha1.HyperVHost{
		ObjectMeta: metav1.ObjectMeta{Name: x.Name},
		Spec:       v1alpha1.HyperVHostSpec{VirtualMachineNamespace: x.Name, MaxParallelJobs: 4},
	})
	x.Cleanup(func() {
		x.detachGuests()
		x.ok(host.Stop(), "stop the host and its agent")
	})
	x.ok(host.Join(x.Context()), "start the agent")
	for _, name := range names {
		x.AwaitMachine(name)
	}
	for _, m := range x.machines {
		if slices.Contains(names, m.Name) {
			m.attach()
		}
	}
}

// UseRepository makes the tenant's repository, in a folder, and waits until the keeper has it ready.
func (x *Tenant) UseRepository() {
	x.Helper()
	x.UseRepositoryAt(x.Folder(x.RepositoryDir), nil)
}

// Folder is a local folder as a repository's location.
func (x *Tenant) Folder(local string) v1alpha1.RepositoryLocation {
	hosts, keeper := x.Site.WindowsPath(local)
	return v1alpha1.RepositoryLocation{Filesystem: &v1alpha1.FilesystemLocation{Path: hosts, KeeperPath: keeper}}
}

// UseRepositoryAt is UseRepository for any location. more are further keys of the Secret.
func (x *Tenant) UseRepositoryAt(at v1alpha1.RepositoryLocation, more map[string]string) {
	x.Helper()
	x.CreateRepository(x.Name, Password, at, more)
	x.AwaitCondition(&v1alpha1.BackupRepository{ObjectMeta: metav1.ObjectMeta{Name: x.Name}}, v1alpha1.ConditionReady, metav1.ConditionTrue)
}

// CreateRepository makes a repository with its Secret and waits for nothing. more are further keys of the Secret.
func (x *Tenant) CreateRepository(name, password string, at v1alpha1.RepositoryLocation, more map[string]string) {
	x.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: site.SystemNamespace, Name: "repository-" + name},
		StringData: map[string]string{v1alpha1.SecretKeyPassword: password},
	}
	for key, value := range more {
		secret.StringData[key] = value
	}
	x.Create(secret)
	repository := &v1alpha1.BackupRepository{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.BackupRepositorySpec{
			Location: at, SecretName: secret.Name, AllowedNamespaces: []string{x.Name}, ProbeIntervalSeconds: 5,
		},
	}
	x.Create(repository)
	x.Cleanup(func() { // else the keeper probes it for as long as there are other tests
		x.ok(client.IgnoreNotFound(x.Site.Client.Delete(context.Background(), repository)), "delete repository %s", name)
	})
}

// Create creates an object.
func (x *Tenant) Create(object client.Object) {
	x.Helper()
	x.ok(x.Site.Client.Create(x.Context(), object), "create %T %s", object, object.GetName())
}

// Change gets an object, changes it and writes it back.
func (x *Tenant) Change(object client.Object, change func()) {
	x.Helper()
	x.Get(object)
	before := object.DeepCopyObject().(client.Object)
	change()
	x.ok(x.Site.Client.Patch(x.Context(), object, client.MergeFrom(before)), "change %T %s", object, object.GetName())
}

// Get reads an object by its name.
func (x *Tenant) Get(object client.Object) {
	x.Helper()
	x.ok(x.Site.Client.Get(x.Context(), client.ObjectKeyFromObject(object), object), "get %T %s", object, object.GetName())
}

// Delete deletes an object and waits until it is gone.
func (x *Tenant) Delete(object client.Object) {
	x.Helper()
	x.ok(x.Site.Client.Delete(x.Context(), object), "delete %T %s", object, object.GetName())
	x.AwaitGone(object)
}

// AwaitGone waits until an object does not exist any more.
func (x *Tenant) AwaitGone(object client.Object) {
	x.Helper()
	x.Await(fmt.Sprintf("%T %s is gone", object, object.GetName()), func() bool {
		err := x.Site.Client.Get(x.Context(), client.ObjectKeyFromObject(object), object)
		return apierrors.IsNotFound(err)
	})
}

// Await looks until the answer is yes, and fails the test when that takes too long.
func (x *Tenant) Await(what string, done func() bool) {
	x.Helper()
	ctx, cancel := context.WithTimeout(x.Context(), patience)
	defer cancel()
	for !done() {
		select {
		case <-ctx.Done():
			x.Fatalf("it takes longer than %s until %s", patience, what)
		case <-time.After(lookInterval):
		}
	}
}

func (x *Tenant) ok(err error, what string, args ...any) {
	x.Helper()
	if err != nil {
		x.Fatalf("%s: %v", fmt.Sprintf(what, args...), err)
	}
}

// explain shows, after a test that failed, what the tenant's objects and processes said.
func (x *Tenant) explain() {
	if !x.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, list := range []client.ObjectList{
		&v1alpha1.BackupPolicyList{}, &v1alpha1.BackupJobList{}, &v1alpha1.RestoreJobList{}, &v1alpha1.BackupImageList{}, &v1alpha1.VirtualMachineList{},
	} {
		if err := x.Site.Client.List(ctx, list, client.InNamespace(x.Name)); err == nil {
			x.show(list)
		}
	}
	tasks := &v1alpha1.AgentTaskList{}
	if err := x.Site.Client.List(ctx, tasks, client.InNamespace(v1alpha1.AgentNamespace(x.Name))); err == nil {
		x.show(tasks)
	}
	processes := []*site.Process{x.Site.Manager, x.Site.Keeper}
	if x.Host != nil {
		processes = append(processes, x.Host.Agent, x.Host.Emulator)
	}
	for _, process := range processes {
		x.Logf("the log of %s ends with:\n%s", process.Name(), process.Tail(15))
	}
}

func (x *Tenant) show(list client.ObjectList) {
	text, err := yaml.Marshal(list)
	if err != nil || strings.Contains(string(text), "items: []") {
		return
	}
	var lines []string
	skip := false // the API server's book-keeping says nothing to people
	for line := range strings.Lines(string(text)) {
		if trimmed := strings.TrimLeft(line, " "); trimmed == "managedFields:\n" {
			skip = true
		} else if skip && !strings.HasPrefix(trimmed, "-") && len(line)-len(trimmed) <= 4 {
			skip = false
		}
		if !skip {
			lines = append(lines, line)
		}
	}
	x.Logf("%T:\n%s", list, strings.Join(lines, ""))
}
