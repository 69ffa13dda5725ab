// Command requester is a VSS requester as the agent runs one, for tests of it alone.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss/child"
)

func main() {
	if err := child.Run(context.Background(), os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "requester:", err)
		os.Exit(1)
	}
}
