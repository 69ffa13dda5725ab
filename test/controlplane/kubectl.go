package controlplane

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Kubectl runs kubectl as the owner of a kubeconfig file.
type Kubectl struct {
	// Path is the program's path.
	Path string
	// Kubeconfig is the file with the address and the credentials. kubectl's discovery cache is
	// kept in a folder beside it, away from the home folder of whoever runs the tests.
	Kubeconfig string
}

// Kubectl returns the administrator's kubectl.
func (c *ControlPlane) Kubectl() Kubectl {
	return Kubectl{Path: c.binaries.kubectl, Kubeconfig: c.Kubeconfig()}
}

// Run runs kubectl and returns its standard output. The error of a command that fails contains what
// it printed on standard error.
func (k Kubectl) Run(ctx context.Context, args ...string) (string, error) {
	return k.run(ctx, "", args...)
}

// Apply runs kubectl apply on a manifest, one or more documents of YAML, and returns what it printed.
func (k Kubectl) Apply(ctx context.Context, manifest string) (string, error) {
	return k.run(ctx, manifest, "apply", "-f", "-")
}

func (k Kubectl) run(ctx context.Context, stdin string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, k.Path, args...)
	cmd.Env = append(os.Environ(),
		"KUBECONFIG="+k.Kubeconfig,
		"KUBECACHEDIR="+filepath.Join(filepath.Dir(k.Kubeconfig), "kubectl-cache"),
	)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
