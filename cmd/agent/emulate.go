package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/shim"
)

func emulateCommand() *cobra.Command {
	var shims string
	cmd := &cobra.Command{
		Use: "emulate DIR", Short: "Be a Hyper-V host over a folder, for demos and tests", Args: cobra.ExactArgs(1),
		Long: "DIR is the host's D:\\VMs: each folder in it that has a vm.yaml and .vhdx files is a virtual machine. Running ones serve their disks over NBD.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return emulate(cmd.Context(), cmd.OutOrStdout(), args[0], shims)
		},
	}
	cmd.Flags().StringVar(&shims, "shims", "", "address on which Windows programs under Wine reach the host, such as 127.0.0.1:0; written to DIR/.hyperv/shims")
	return cmd
}

// emulate serves an emulated host until ctx ends, to Windows programs under Wine too when shims is an address.
func emulate(ctx context.Context, out io.Writer, dir, shims string) (err error) {
	host, err := emulator.Open(dir, emulator.Options{Log: slog.New(logr.ToSlogHandler(ctrl.Log))})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, host.Close()) }()
	group, ctx := errgroup.WithContext(ctx)
	if shims != "" {
		listener, err := shim.Listen(ctx, dir, shims)
		if err != nil {
			return err
		}
		group.Go(func() error { return shim.Serve(ctx, host, listener) })
		fmt.Fprintln(out, "Windows programs under Wine reach it with HYPERKEEP_SHIMS="+listener.Addr().String())
	}
	group.Go(func() error {
		listener, err := host.Listen(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, "The emulated host is reached with --emulated", emulator.SocketPath(dir))
		return host.Serve(ctx, listener)
	})
	return group.Wait()
}
