package site

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hyperkeep/hyperkeep/test/controlplane"
)

// What config/ installs.
const (
	// SystemNamespace is the manager's: the Secrets of repositories belong there.
	SystemNamespace = "hyperkeep-system"
	// KeeperNamespace is the keeper's.
	KeeperNamespace = "hyperkeep-keeper"

	managerAccount = "hyperkeep-manager"
	agentAccount   = "agent"
)

// tokenLifetime is long enough for somebody who keeps the demo open. A real installation's tokens are renewed by Kubernetes.
const tokenLifetime = "168h"

// install applies config/ as the README says.
func (s *Site) install(ctx context.Context) error {
	root, err := Checkout()
	if err != nil {
		return err
	}
	kubectl := s.ControlPlane.Kubectl()
	if _, err := kubectl.Run(ctx, "apply", "--server-side", "-k", filepath.Join(root, "config", "default")); err != nil {
		return err
	}
	_, err = kubectl.Run(ctx, "wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
	return err
}

// account writes a kubeconfig with a new token of a ServiceAccount and returns its path.
func (s *Site) account(ctx context.Context, name, namespace, serviceAccount string) (string, error) {
	dir, err := s.folder("accounts")
	if err != nil {
		return "", err
	}
	token, err := s.ControlPlane.Kubectl().Run(ctx, "create", "token", serviceAccount, "--namespace", namespace, "--duration", tokenLifetime)
	if err != nil {
		return "", fmt.Errorf("get a token for %s: %w", name, err)
	}
	config := s.ControlPlane.Config()
	config.BearerToken = token
	config.Host = s.APIServer(name, config.Host)
	path := filepath.Join(dir, name+".kubeconfig")
	if err := os.RemoveAll(path); err != nil {
		return "", err
	}
	return path, controlplane.WriteKubeconfig(path, config)
}

func (s *Site) startManager(ctx context.Context) error {
	kubeconfig, err := s.account(ctx, "manager", SystemNamespace, managerAccount)
	if err != nil {
		return err
	}
	// Several sites run on one machine: nobody may ask for a port that is fixed.
	args := []string{s.Binaries.Manager, "--kubeconfig", kubeconfig, "--metrics-bind-address", "0", "--health-probe-bind-address", "0"}
	s.Manager = NewProcess("manager", s.logFile("manager"), append(args, s.ManagerArgs...)...)
	return s.Manager.Start()
}

func (s *Site) startKeeper(ctx context.Context) error {
	kubeconfig, err := s.account(ctx, "keeper", KeeperNamespace, agentAccount)
	if err != nil {
		return err
	}
	state, err := s.folder("state", "keeper")
	if err != nil {
		return err
	}
	args := []string{s.Binaries.Agent, "keeper", "--namespace", KeeperNamespace, "--kubeconfig", kubeconfig, "--state-dir", state}
	s.Keeper = NewProcess("keeper", s.logFile("keeper"), append(args, s.KeeperArgs...)...)
	return s.Keeper.Start()
}
