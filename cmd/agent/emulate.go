package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/client"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func emulateCommand() *cobra.Command {
	return &cobra.Command{
		Use: "emulate DIR", Short: "Be a Hyper-V host over a folder, for demos and tests", Args: cobra.ExactArgs(1),
		Long: "DIR is the host's D:\\VMs: each folder in it that has a vm.yaml and .vhdx files is a virtual machine. Running ones serve their disks over NBD.",
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			host, err := emulator.Open(args[0], emulator.Options{Log: slog.New(logr.ToSlogHandler(ctrl.Log))})
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, host.Close()) }()
			listener, err := host.Listen(cmd.Context())
			if err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "The emulated host is reached with --emulated", emulator.SocketPath(args[0]))
			return host.Serve(cmd.Context(), listener)
		},
	}
}

// openHost reaches the Hyper-V host that the agent works on.
func openHost(socket string) (*hyperv.Host, hostfs.FS, func() error, error) {
	if socket == "" {
		return nil, nil, nil, errors.New("this version of the agent reaches only emulated Hyper-V hosts: name the socket of one with --emulated")
	}
	host := client.Dial(socket)
	return hyperv.New(hyperv.Seams{
		Virtualization: host.Session(wmi.NamespaceVirtualization), CIM: host.Session(wmi.NamespaceCIMv2), Cluster: host.Session(wmi.NamespaceCluster),
		Disks: host.Disks(), Files: host.Files(), Clock: clock.RealClock{},
	}), host.Files(), host.Close, nil
}
