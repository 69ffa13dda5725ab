// Command agent is Hyperkeep's hand on a Hyper-V host (agent host), its housekeeper of repositories (agent keeper), an emulated Hyper-V host for demos
// and tests (agent emulate), and tools to look at a host before its first backup (agent preflight), into disk files (agent disk), and to restore images where
// no cluster is left (agent images). On Windows it enrolls its
// host (agent enroll) and is a service (agent install, uninstall and run).
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/preflight"
)

// version is set when the binary is built.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use: "agent", Short: "Hyperkeep's agent", Version: version, SilenceUsage: true, SilenceErrors: true,
		PersistentPreRun: func(*cobra.Command, []string) { logTo(slog.New(slog.NewTextHandler(os.Stderr, nil))) },
	}
	root.AddCommand(hostCommand(), keeperCommand(), emulateCommand(), diskCommand(), preflightCommand(), requesterCommand(), imagesCommand())
	root.AddCommand(enrollCommand(), installCommand(), uninstallCommand(), runCommand())
	if cmd, err := root.ExecuteContextC(ctrl.LoggerInto(ctx, ctrl.Log)); err != nil {
		exit := exitOf(cmd, err)
		if exit.err != nil {
			fmt.Fprintln(os.Stderr, "Error:", exit.err)
		}
		os.Exit(exit.code) //nolint:gocritic // the signal handler goes with the process
	}
}

// exitError ends the process with a code; its error is printed when there is one.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitOf says how a command that returned an error ends: with 1, unless its codes have a meaning of their own.
func exitOf(cmd *cobra.Command, err error) *exitError {
	var exit *exitError
	switch {
	case errors.As(err, &exit):
		return exit
	case cmd.Name() == preflightName:
		return &exitError{code: preflight.ExitNotReady, err: err}
	}
	return &exitError{code: 1, err: err}
}

// logTo makes a logger that of the whole process, and of the libraries in it.
func logTo(logger *slog.Logger) {
	sink := logr.FromSlogHandler(logger.Handler())
	ctrl.SetLogger(sink)
	klog.SetLogger(sink) // what client-go says
}
