//go:build !windows

package main

import (
	"context"
	"testing"

	. "github.com/onsi/gomega"
	"github.com/spf13/cobra"

	"github.com/hyperkeep/hyperkeep/agent/service"
)

func TestCommandsForWindowsSaySo(t *testing.T) {
	for name, cmd := range map[string]*cobra.Command{
		"enroll": enrollCommand(), "install": installCommand(), "uninstall": uninstallCommand(), "run": runCommand(),
	} {
		t.Run(name, func(t *testing.T) {
			cmd.SetArgs(nil)
			if name == "enroll" {
				cmd.SetArgs([]string{"--host", "hv01", "--server", "https://127.0.0.1"})
			}
			NewWithT(t).Expect(cmd.ExecuteContext(context.Background())).To(MatchError(service.ErrWindowsOnly))
		})
	}
}
