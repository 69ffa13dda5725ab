// Command agent is Hyperkeep's hand on a Hyper-V host (agent host), its housekeeper of repositories (agent keeper), an emulated Hyper-V host for demos
// and tests (agent emulate), and a tool to look into disk files (agent disk).
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
)

// version is set when the binary is built.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctrl.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(os.Stderr, nil)))
	root := &cobra.Command{
		Use: "agent", Short: "Hyperkeep's agent", Version: version, SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(hostCommand(), keeperCommand(), emulateCommand(), diskCommand())
	if err := root.ExecuteContext(ctrl.LoggerInto(ctx, ctrl.Log)); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1) //nolint:gocritic // the signal handler goes with the process
	}
}
