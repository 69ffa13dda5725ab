package site

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	emulated "github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/client"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/controlplane"
)

// Options say what to run.
type Options struct {
	// Dir holds everything: logs, accounts, the agents' state and the hosts' folders. It is not removed.
	Dir string
	// Binaries are the programs.
	Binaries Binaries
	// WithControllerManager is the control plane's: for tests in which garbage collection or the deletion of namespaces matters.
	WithControllerManager bool
	// Report, if set, is told what is being started.
	Report func(what string)
	// ManagerArgs, KeeperArgs and HostArgs are further flags of the manager, the keeper and each host's agent.
	ManagerArgs, KeeperArgs, HostArgs []string
	// APIServer, if set, returns the address at which a process is to reach the API server, given the process's name (manager, keeper or a host's) and the
	// server's own address. HostAddress does the same for an emulated host: for its socket, or for the address of its shims where agents are Windows
	// programs. So a test comes to stand in between.
	APIServer, HostAddress func(name, address string) string
	// Windows, if set, runs the agents of the hosts as Windows programs, on machines whose Hyper-V is the emulated host.
	Windows Windows
	// Usage, if set, is told what was done with an emulated host, when its agent has ended and the host is about to.
	Usage func(host *Host, usage emulated.Usage) error
}

// Site is a running Hyperkeep.
type Site struct {
	Options
	// ControlPlane is Kubernetes.
	ControlPlane *controlplane.ControlPlane
	// Manager and Keeper are the processes in the cluster.
	Manager, Keeper *Process
	// Client reads and writes as the administrator, without a cache.
	Client client.Client

	mu    sync.Mutex
	hosts []*Host
}

// Start starts everything but hosts, and returns when the manager and the keeper run. What was started is stopped when Start fails. A control plane
// whose binaries are missing is a *controlplane.MissingBinaryError.
func Start(ctx context.Context, opts Options) (*Site, error) {
	dir, err := filepath.Abs(opts.Dir)
	if err != nil {
		return nil, err
	}
	opts.Dir = dir
	if opts.Report == nil {
		opts.Report = func(string) {}
	}
	direct := func(_, address string) string { return address }
	if opts.APIServer == nil {
		opts.APIServer = direct
	}
	if opts.HostAddress == nil {
		opts.HostAddress = direct
	}
	log.SetLogger(logr.Discard()) // else the client complains that nobody told it where to log
	s := &Site{Options: opts}
	if err := s.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("start Hyperkeep: %w", err), s.Stop())
	}
	return s, nil
}

func (s *Site) start(ctx context.Context) (err error) {
	s.Report("etcd and kube-apiserver")
	s.ControlPlane, err = controlplane.Start(ctx, controlplane.Options{
		Dir: s.file("controlplane"), WithControllerManager: s.WithControllerManager,
	})
	if err != nil {
		return err
	}
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return err
	}
	s.Report("Hyperkeep's definitions, roles and accounts (config/)")
	if err := s.install(ctx); err != nil {
		return err
	}
	if s.Client, err = client.New(s.ControlPlane.Config(), client.Options{Scheme: scheme}); err != nil {
		return err
	}
	s.Report("the manager")
	if err := s.startManager(ctx); err != nil {
		return err
	}
	s.Report("the keeper")
	return s.startKeeper(ctx)
}

// Hosts returns the hosts that were added.
func (s *Site) Hosts() []*Host {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.hosts)
}

// Stop stops all processes, those first that depend on others. An error names those that had ended by themselves. A second call does nothing.
func (s *Site) Stop() error {
	var stops []func() error
	for _, process := range []*Process{s.Keeper, s.Manager} {
		if process != nil {
			stops = append(stops, process.Stop)
		}
	}
	for _, host := range s.Hosts() {
		stops = append(stops, host.Stop)
	}
	err := together(stops)
	if s.ControlPlane != nil {
		err = errors.Join(err, s.ControlPlane.Stop())
	}
	return err
}

// together calls functions at the same time.
func together(calls []func() error) error {
	errs := make([]error, len(calls))
	var done sync.WaitGroup
	for i, call := range calls {
		done.Go(func() { errs[i] = call() })
	}
	done.Wait()
	return errors.Join(errs...)
}

// CreateNamespace makes a namespace for users' objects.
func (s *Site) CreateNamespace(ctx context.Context, name string) error {
	namespace := &corev1.Namespace{}
	namespace.Name = name
	return s.Client.Create(ctx, namespace)
}

func (s *Site) file(elements ...string) string {
	return filepath.Join(append([]string{s.Dir}, elements...)...)
}

func (s *Site) logFile(name string) string { return s.file("logs", name+".log") }

// folder makes a folder of the site and returns its path.
func (s *Site) folder(elements ...string) (string, error) {
	path := s.file(elements...)
	return path, os.MkdirAll(path, 0o755)
}
