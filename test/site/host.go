package site

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kube "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/client"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Host is an emulated Hyper-V host and its agent.
type Host struct {
	// Name of the host's HyperVHost object.
	Name string
	// Dir is the host's folder, D:\VMs to the host: one folder for each virtual machine.
	Dir string
	// Emulator is the host; Agent does not run before Join.
	Emulator, Agent *Process

	site    *Site
	machine Machine // nil unless the agent is a Windows program
}

// HostDir is the folder of a host, which may be filled before the host is added.
func (s *Site) HostDir(name string) string { return s.file("hosts", name) }

// AddHost starts an emulated host over what lies in its folder, and returns when it serves.
func (s *Site) AddHost(ctx context.Context, name string) (*Host, error) {
	dir, err := s.folder("hosts", name)
	if err != nil {
		return nil, err
	}
	host := &Host{Name: name, Dir: dir, site: s}
	emulator := []string{s.Binaries.Agent, "emulate", dir}
	shims := ""
	if s.Windows != nil {
		if shims, err = freeAddress(); err != nil {
			return nil, err
		}
		emulator = append(emulator, "--shims", shims)
	}
	host.Emulator = NewProcess("emulated host "+name, s.logFile("emulator-"+name), emulator...)
	s.mu.Lock()
	s.hosts = append(s.hosts, host)
	s.mu.Unlock()
	if err := host.StartEmulator(ctx); err != nil {
		return nil, err
	}
	return host, s.newAgent(ctx, host, shims)
}

// Socket is where the emulated host answers.
func (h *Host) Socket() string { return filepath.Join(h.Dir, ".hyperv", "host.sock") }

// StartEmulator starts the emulated host after it was killed, and returns when it serves.
func (h *Host) StartEmulator(ctx context.Context) error {
	if err := h.Emulator.Start(); err != nil {
		return err
	}
	return h.Emulator.await(ctx, func(context.Context) bool { return serves(h.Socket()) })
}

func serves(socket string) bool {
	folder, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return false
	}
	defer folder.Close()
	// By way of the open folder, because a socket's address holds 107 bytes only.
	conn, err := net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(socket)))
	if err != nil {
		return false
	}
	return conn.Close() == nil
}

// Stop stops the agent, then the emulated host. An error names what had ended by itself. A second call does nothing.
func (h *Host) Stop() error {
	var err error
	if h.Agent != nil {
		err = h.Agent.Stop()
	}
	err = errors.Join(err, h.tellUsage(), h.Emulator.Stop())
	if h.machine != nil {
		err = errors.Join(err, h.machine.Close())
		h.machine = nil
	}
	return err
}

// tellUsage tells what was done with the host, once its agent has ended.
func (h *Host) tellUsage() error {
	if h.site.Usage == nil || !h.Emulator.Running() {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopPatience)
	defer cancel()
	host := client.Dial(h.Socket())
	usage, err := host.Usage(ctx)
	for err == nil && usage.Objects > 0 && pause(ctx) == nil { // the host may hear of the agent's end a moment later
		usage, err = host.Usage(ctx)
	}
	if err == nil {
		err = h.site.Usage(h, usage)
	}
	return errors.Join(err, host.Close())
}

// Join hands the agent the account that the manager makes for the host's HyperVHost object, which somebody applies, and starts it.
func (h *Host) Join(ctx context.Context) error {
	namespace := v1alpha1.AgentNamespace(h.Name)
	key := kube.ObjectKey{Namespace: namespace, Name: v1alpha1.AgentName}
	for {
		err := h.site.Client.Get(ctx, key, &corev1.ServiceAccount{})
		if err == nil {
			break
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("wait for the account of host %s: %w; the manager's log ends with:\n%s", h.Name, err, h.site.Manager.Tail(5))
		}
	}
	if _, err := h.site.account(ctx, h.Name, namespace, v1alpha1.AgentName); err != nil {
		return err
	}
	return h.Agent.Start()
}
