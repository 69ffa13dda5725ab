// Command agent is Hyperkeep's hand on a Hyper-V host (agent host), its housekeeper of repositories (agent keeper), an emulated Hyper-V host for demos
// and tests (agent emulate), and a tool to look into disk files (agent disk).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// version is set when the binary is built.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctrl.SetLogger(zap.New())
	root := &cobra.Command{
		Use: "agent", Short: "Hyperkeep's agent", Version: version, SilenceUsage: true, SilenceErrors: true,
	}
	root.AddCommand(hostCommand(), keeperCommand(), emulateCommand(), diskCommand())
	if err := root.ExecuteContext(ctrl.LoggerInto(ctx, ctrl.Log)); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1) //nolint:gocritic // the signal handler goes with the process
	}
}
