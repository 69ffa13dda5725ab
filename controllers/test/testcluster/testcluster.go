// Package testcluster gives the tests of the controllers a cluster in which Hyperkeep is installed as config/default installs it: the same roles and the same
// fence, and a manager that has no more rights than its own account.
package testcluster

import (
	"context"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/index"
	"github.com/hyperkeep/hyperkeep/test/controlplane"
)

// Names that config/default gives.
const (
	ManagerNamespace = "hyperkeep-system"
	ManagerAccount   = "hyperkeep-manager"
	KeeperNamespace  = "hyperkeep-keeper"
)

// Cluster is a control plane with Hyperkeep installed. It ends with the test.
type Cluster struct {
	*controlplane.ControlPlane
	// Admin may do everything, and reads without a cache.
	Admin  client.Client
	scheme *apiruntime.Scheme
}

// New starts a cluster. One is enough for a package: it takes some ten seconds.
func New(t *testing.T) *Cluster {
	t.Helper()
	ctrl.SetLogger(zap.New(zap.UseDevMode(true), zap.Level(zapcore.ErrorLevel)))
	plane := controlplane.ForTest(t, controlplane.Options{})
	for _, args := range [][]string{
		{"apply", "--server-side", "--kustomize", filepath.Join(Root(), "config", "default")},
		{"wait", "--for=condition=Established", "crd", "--all"},
	} {
		if _, err := plane.Kubectl().Run(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	scheme := apiruntime.NewScheme()
	for _, add := range []func(*apiruntime.Scheme) error{clientgoscheme.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c := &Cluster{ControlPlane: plane, scheme: scheme}
	c.Admin = c.Client(t, plane.Config())
	return c
}

// Root is the top folder of the checkout.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// Client returns an uncached client with the rights that a configuration has.
func (c *Cluster) Client(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	made, err := client.New(config, client.Options{Scheme: c.scheme})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// Account returns a client with the rights of a ServiceAccount.
func (c *Cluster) Account(t *testing.T, namespace, name string) client.Client {
	t.Helper()
	config, err := c.ServiceAccount(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return c.Client(t, config)
}

// Manage runs the controllers that setUp registers, with the rights of the manager's account, until the test ends or stop is called.
func (c *Cluster) Manage(t *testing.T, setUp ...func(ctrl.Manager) error) (stop func()) {
	t.Helper()
	account, err := c.ServiceAccount(t.Context(), ManagerNamespace, ManagerAccount)
	if err != nil {
		t.Fatal(err)
	}
	account.QPS, account.Burst = 500, 1000
	mgr, err := ctrl.NewManager(account, ctrl.Options{
		Scheme: c.scheme, Cache: index.CacheOptions(), Client: index.ClientOptions(),
		Metrics:    metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: ptr.To(true)},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := index.Register(t.Context(), mgr.GetFieldIndexer()); err != nil {
		t.Fatal(err)
	}
	for _, register := range setUp {
		if err := register(mgr); err != nil {
			t.Fatal(err)
		}
	}
	return run(t, mgr)
}

func run(t *testing.T, mgr ctrl.Manager) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the manager ended: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// Namespace makes a namespace.
func (c *Cluster) Namespace(t *testing.T, name string) {
	t.Helper()
	c.Create(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
}

// Create makes objects as an administrator.
func (c *Cluster) Create(t *testing.T, objects ...client.Object) {
	t.Helper()
	for _, object := range objects {
		if err := c.Admin.Create(t.Context(), object); err != nil {
			t.Fatal(err)
		}
	}
}

// Renew renews the Lease of the agent of a namespace, or makes it, with the rights that the client has.
func Renew(ctx context.Context, as client.Client, namespace string, duration time.Duration) error {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: v1alpha1.AgentName}}
	err := as.Get(ctx, client.ObjectKeyFromObject(lease), lease)
	if client.IgnoreNotFound(err) != nil {
		return err
	}
	now := metav1.NowMicro()
	lease.Spec.RenewTime, lease.Spec.HolderIdentity = &now, ptr.To("instance/session")
	lease.Spec.LeaseDurationSeconds = ptr.To(int32(duration / time.Second))
	if apierrors.IsNotFound(err) {
		return as.Create(ctx, lease)
	}
	return as.Update(ctx, lease)
}
