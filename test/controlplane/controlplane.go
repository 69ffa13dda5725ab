// Package controlplane runs a real Kubernetes control plane, etcd and kube-apiserver and on request
// kube-controller-manager, on loopback ports for the tests and the demo. It is never a fake:
// validation, defaulting, RBAC, ServiceAccount tokens and watches are the API server's own.
//
// controller-runtime's envtest does the same with less. It is not used because its servers outlive
// a test that is killed, its start cannot be cancelled, and it does not compile for Windows.
//
// There are no nodes: a Pod or a Deployment is stored and nothing runs it.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/client-go/rest"
)

// Options says what to start. Its zero value is an API server without any custom resource.
type Options struct {
	// Dir keeps etcd's data, keys, the logs and the kubeconfig, and is not removed by Stop. A later
	// Start with the same Dir finds the same objects at another port. etcd does not sync its
	// files, so that they survive a kill but not a loss of power. Empty means a temporary folder
	// that Stop removes.
	Dir string
	// CRDs are files, or folders of files, with CustomResourceDefinitions to install. Start returns
	// when the API server serves them.
	CRDs []string
	// WithControllerManager also starts kube-controller-manager with the controllers that act on
	// any kind of object: garbage collection, namespace deletion, default ServiceAccounts and
	// aggregation of ClusterRoles.
	WithControllerManager bool
}

// ControlPlane is a running control plane. The methods that start or stop something must not run at
// the same time as another of them; all others may be called from several goroutines.
type ControlPlane struct {
	dir       string
	temporary bool
	binaries  binaries
	etcdURL   string
	config    *rest.Config // the administrator's

	etcd, apiServer, controllerManager *process // nil when not running
}

// Start starts a control plane and waits until it serves; ctx bounds the start only. It needs the
// binaries in the folder named by KUBEBUILDER_ASSETS, and returns a *MissingBinaryError that says
// how to get them otherwise. Whatever was started is stopped when Start fails.
func Start(ctx context.Context, opts Options) (*ControlPlane, error) {
	found, err := findBinaries(opts.WithControllerManager)
	if err != nil {
		return nil, err
	}
	c := &ControlPlane{dir: opts.Dir, binaries: found}
	if err := c.start(ctx, opts); err != nil {
		return nil, errors.Join(fmt.Errorf("start control plane: %w", err), c.Stop())
	}
	return c, nil
}

func (c *ControlPlane) start(ctx context.Context, opts Options) error {
	if err := c.prepare(); err != nil {
		return err
	}
	if err := c.startEtcd(); err != nil {
		return err
	}
	if err := c.StartAPIServer(ctx); err != nil {
		return err
	}
	if err := c.installCRDs(ctx, opts.CRDs); err != nil {
		return err
	}
	if opts.WithControllerManager {
		return c.startControllerManager(ctx)
	}
	return nil
}

// prepare makes the folder, the keys and the kubeconfig, before any process runs.
func (c *ControlPlane) prepare() error {
	if c.dir == "" {
		dir, err := os.MkdirTemp("", "hyperkeep-controlplane-")
		if err != nil {
			return err
		}
		c.dir, c.temporary = dir, true
	}
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	admin, err := c.makeCredentials()
	if err != nil {
		return err
	}
	c.config = admin
	return WriteKubeconfig(c.Kubeconfig(), admin)
}

func (c *ControlPlane) file(name string) string { return filepath.Join(c.dir, name) }

// Dir returns the folder with the data, the kubeconfig and one log file per process.
func (c *ControlPlane) Dir() string { return c.dir }

// Config returns a client configuration of the administrator (group system:masters), without a
// limit on the rate of requests. The caller owns it.
func (c *ControlPlane) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Kubeconfig returns the path of the administrator's kubeconfig file, readable by this user only.
func (c *ControlPlane) Kubeconfig() string { return c.file("kubeconfig") }

// Stop ends the processes and removes what Start made, but for a Dir that the caller gave. A second
// call does nothing.
func (c *ControlPlane) Stop() error {
	err := errors.Join(
		stop(&c.controllerManager),
		stop(&c.apiServer),
		stop(&c.etcd),
	)
	if c.temporary {
		err = errors.Join(err, os.RemoveAll(c.dir))
	}
	return err
}
