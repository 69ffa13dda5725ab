package runner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/google/uuid"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/statefile"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Options are what both modes of the agent need.
type Options struct {
	// Config reaches the API server with the agent's own token.
	Config *rest.Config
	// Namespace that the agent works for.
	Namespace string
	// StateDir is a folder that only this agent uses: its identity and its journal.
	StateDir string
	// Version of the agent.
	Version string
	// LeaseDuration is how long the manager and other agents wait before they take this one for dead.
	LeaseDuration time.Duration
	// Image tunes the data path.
	Image image.Options
}

// stopGrace is how long tasks may take to let go of the host when the agent stops.
const stopGrace = 20 * time.Second

// agent is what both modes share: one process, one namespace, one claim.
type agent struct {
	Options
	session string
	clock   clock.Clock
	client  client.Client // uncached
	claim   *Claim
	lock    *flock.Flock
}

// newAgent prepares an agent. ErrStateInUse when another process of this machine uses the state folder.
func newAgent(opts Options) (*agent, error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), v1alpha1.AddToScheme(scheme)); err != nil {
		return nil, fmt.Errorf("register the API: %w", err)
	}
	uncached, err := client.New(opts.Config, client.Options{Scheme: scheme})
	if err != nil {
		return nil, fmt.Errorf("reach the API server: %w", err)
	}
	lock, instance, err := openState(opts.StateDir)
	if err != nil {
		return nil, err
	}
	a := &agent{Options: opts, session: uuid.NewString(), clock: clock.RealClock{}, client: uncached, lock: lock}
	a.claim = &Claim{
		Client: uncached, Namespace: opts.Namespace, Instance: instance, Session: a.session,
		Duration: opts.LeaseDuration, Clock: a.clock,
	}
	return a, nil
}

// ErrStateInUse means that another agent runs on this machine with the same state folder.
var ErrStateInUse = errors.New("another agent uses this state folder")

// openState takes the state folder for this process and returns the installation's id, which it makes on first use.
func openState(dir string) (*flock.Flock, string, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, "", fmt.Errorf("open the state folder: %w", err)
	}
	lock := flock.New(filepath.Join(dir, "agent.lock"))
	locked, err := lock.TryLock()
	if err != nil {
		return nil, "", fmt.Errorf("lock the state folder: %w", err)
	}
	if !locked {
		return nil, "", fmt.Errorf("%w: %s", ErrStateInUse, dir)
	}
	path := filepath.Join(dir, "instance")
	if id, err := os.ReadFile(path); err == nil && uuid.Validate(strings.TrimSpace(string(id))) == nil {
		return lock, strings.TrimSpace(string(id)), nil
	}
	id := uuid.NewString()
	if err := statefile.Write(path, []byte(id+"\n")); err != nil {
		return nil, "", fmt.Errorf("write the agent's identity: %w", errors.Join(err, lock.Unlock()))
	}
	return lock, id, nil
}

// run works until ctx ends or the claim is lost: first claims the namespace, then does its tasks and the extra work that the mode has.
func (a *agent) run(ctx context.Context, handlers map[v1alpha1.TaskKind]Handler, extra func(*Tasks) []manager.Runnable) error {
	defer a.lock.Unlock() //nolint:errcheck // the lock ends with the process in any case
	log := ctrl.LoggerFrom(ctx).WithValues("namespace", a.Namespace, "session", a.session)
	log.Info("Waiting for the claim")
	if err := a.claim.Acquire(ctx); err != nil {
		return stoppedBy(ctx, err)
	}
	log.Info("Working")
	life, end := context.WithCancelCause(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, func() { end(errStopping) })()

	tasks := &Tasks{Session: a.session, Handlers: handlers, Clock: a.clock}
	mgr, err := a.manager(stopGrace)
	if err != nil {
		return err
	}
	tasks.Client = mgr.GetClient()
	if err := tasks.SetupWithManager(ctrl.LoggerInto(life, log), mgr); err != nil {
		return fmt.Errorf("watch tasks: %w", err)
	}
	for _, r := range extra(tasks) {
		if err := mgr.Add(r); err != nil {
			return fmt.Errorf("set up: %w", err)
		}
	}
	keep := manager.RunnableFunc(func(context.Context) error {
		if err := a.claim.Keep(life); errors.Is(err, ErrClaimLost) {
			end(err)
			return err
		}
		return nil
	})
	if err := mgr.Add(keep); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	err = mgr.Start(life)
	end(errStopping)
	tasks.Wait()
	return stoppedBy(ctx, err)
}

// stoppedBy leaves out errors that only say that the agent was asked to stop.
func stoppedBy(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

// manager watches the agent's own namespace and nothing else.
func (a *agent) manager(grace time.Duration) (ctrl.Manager, error) {
	mgr, err := ctrl.NewManager(a.Config, ctrl.Options{
		Scheme:                  a.client.Scheme(),
		Cache:                   cache.Options{DefaultNamespaces: map[string]cache.Config{a.Namespace: {}}},
		Metrics:                 metricsserver.Options{BindAddress: "0"},
		GracefulShutdownTimeout: &grace,
	})
	if err != nil {
		return nil, fmt.Errorf("set up the agent: %w", err)
	}
	return mgr, nil
}
