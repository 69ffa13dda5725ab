package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss/child"
)

// requesterCommand is what the agent starts for each backup through VSS.
func requesterCommand() *cobra.Command {
	return &cobra.Command{
		Use: child.Command, Short: "Make shadow copies for the agent that started this", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return child.Run(cmd.Context(), os.Stdin, os.Stdout)
		},
	}
}
