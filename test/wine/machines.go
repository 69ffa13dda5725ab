package wine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/client"
	"github.com/hyperkeep/hyperkeep/test/site"
)

// OnWindows says that the hosts of a test are to have the Windows program as their agent, under Wine, and all else stays as it is: HYPERKEEP_AGENT=windows.
func OnWindows() bool { return os.Getenv("HYPERKEEP_AGENT") == "windows" }

// UseAgent makes the hosts of a site Windows machines, and compiles their agent. It keeps which calls the hosts got, and complains about what an agent still
// held when it ended.
func UseAgent(ctx context.Context, options *site.Options) error {
	exe := filepath.Join(options.Dir, "bin", "agent.exe")
	if err := site.BuildForWindows(ctx, exe, os.Stderr, counting()...); err != nil {
		return err
	}
	options.Windows = Machines{AgentExe: exe}
	options.Usage = func(host *site.Host, usage client.Usage) error {
		err := keepCalls(usage)
		if usage.Objects != 0 {
			err = errors.Join(err, fmt.Errorf("the agent of host %s left %d automation objects behind", host.Name, usage.Objects))
		}
		return err
	}
	return nil
}

// Machines makes the Windows machines of a site's hosts.
type Machines struct {
	// AgentExe is the agent, compiled for Windows.
	AgentExe string
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
	return &machine{prefix: p, agentExe: m.AgentExe, stop: stop, dir: dir}, nil
}

// Path implements site.Windows.
func (m Machines) Path(local string) string { return WindowsPath(local) }

type machine struct {
	prefix   *Prefix
	agentExe string
	stop     func() error
	dir      string
}

// Agent implements site.Machine.
func (m *machine) Agent(args ...string) (command, environment []string) {
	cmd := m.prefix.Command(context.Background(), m.agentExe, args...)
	return cmd.Args, cmd.Env
}

// Close implements site.Machine.
func (m *machine) Close() error { return errors.Join(m.stop(), os.RemoveAll(m.dir)) }
