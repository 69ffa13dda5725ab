package site

import (
	"context"
	"fmt"
	"net"
	"os"
)

// Windows has Windows machines.
type Windows interface {
	// Machine makes one. Hyper-V's calls go to the emulated host over dir, which runs and answers them at shims, a loopback address.
	Machine(ctx context.Context, dir, shims string) (Machine, error)
	// Path is how every machine calls a local file or folder.
	Path(local string) string
}

// Machine is a Windows machine.
type Machine interface {
	// Agent is the program and the arguments that run the Windows agent on the machine, and their environment.
	Agent(args ...string) (command, environment []string)
	// Close ends everything that runs on the machine, and removes it.
	Close() error
}

// WindowsPath names a local folder for the hosts' agents, and for everybody else, "" where that is the same.
func (s *Site) WindowsPath(local string) (hosts, others string) {
	if s.Windows == nil {
		return local, ""
	}
	return s.Windows.Path(local), local
}

// newAgent makes the agent of a host, which is not started yet.
func (s *Site) newAgent(ctx context.Context, host *Host, shims string) error {
	state, err := s.folder("state", host.Name)
	if err != nil {
		return err
	}
	kubeconfig, log := s.file("accounts", host.Name+".kubeconfig"), s.logFile("agent-"+host.Name)
	args := append([]string{"host", "--host", host.Name}, s.HostArgs...)
	if s.Windows == nil {
		args = append(args, "--kubeconfig", kubeconfig, "--state-dir", state, "--emulated", s.HostAddress(host.Name, host.Socket()))
		host.Agent = NewProcess("agent of "+host.Name, log, append([]string{s.Binaries.Agent}, args...)...)
		return nil
	}
	if host.machine, err = s.Windows.Machine(ctx, host.Dir, s.HostAddress(host.Name, shims)); err != nil {
		return fmt.Errorf("make the Windows machine of host %s: %w", host.Name, err)
	}
	command, environment := host.machine.Agent(append(args, "--kubeconfig", s.Windows.Path(kubeconfig), "--state-dir", s.Windows.Path(state))...)
	host.Agent = NewProcess("Windows agent of "+host.Name, log, command...)
	host.Agent.environment = environment
	host.Agent.stop = os.Interrupt // what a Windows program is told by Ctrl-C
	return nil
}

// freeAddress is a loopback address that nobody listens at. It stays a host's own when the emulated host is started again.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}
