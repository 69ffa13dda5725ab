package main

import (
	"errors"
	"fmt"
	"log/slog"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
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
