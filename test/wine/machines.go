package wine

import (
	"context"
	"errors"
	"os"

	"github.com/hyperkeep/hyperkeep/test/site"
)

// Machines makes the Windows machines of a site's hosts.
type Machines struct {
	// AgentExe is the agent, compiled for Windows.
	AgentExe string
	// Environment is set for every agent besides what it needs: NAME=value.
	Environment []string
}

var _ site.Windows = Machines{}

// Machine implements site.Windows.
func (m Machines) Machine(ctx context.Context, hostDir, shims string) (site.Machine, error) {
	dir, err := os.MkdirTemp("", "hyperkeep-wine-")
	if err != nil {
		return nil, err
	}
	p, stop, err := start(ctx, dir, hostDir, shims)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &machine{prefix: p, of: m, stop: stop, dir: dir}, nil
}

// Path implements site.Windows.
func (m Machines) Path(local string) string { return WindowsPath(local) }

type machine struct {
	prefix *Prefix
	of     Machines
	stop   func() error
	dir    string
}

// Agent implements site.Machine.
func (m *machine) Agent(args ...string) (command, environment []string) {
	cmd := m.prefix.Command(context.Background(), m.of.AgentExe, args...)
	return cmd.Args, append(cmd.Env, m.of.Environment...)
}

// Close implements site.Machine.
func (m *machine) Close() error { return errors.Join(m.stop(), os.RemoveAll(m.dir)) }
