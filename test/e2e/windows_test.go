package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/client"
	"github.com/hyperkeep/hyperkeep/test/site"
	"github.com/hyperkeep/hyperkeep/test/wine"
)

// onWindows says that the hosts' agents are the Windows program, under Wine. Everything else stays as it is.
var onWindows = os.Getenv("HYPERKEEP_AGENT") == "windows"

// records is where a run with the Windows program leaves what it covered, and which calls were made: in a folder that the caller names, or with the site's
// other files.
func records(kind string) string {
	dir := os.Getenv("HYPERKEEP_RECORDS")
	if dir == "" {
		dir = shared.dir
	}
	return filepath.Join(dir, kind)
}

func windowsMachines(ctx context.Context) (site.Windows, error) {
	if !onWindows {
		return nil, nil
	}
	exe := filepath.Join(shared.dir, "bin", "agent.exe")
	if err := site.BuildForWindows(ctx, exe, os.Stderr, "-cover", "-coverpkg=./agent/...,./cmd/agent"); err != nil {
		return nil, err
	}
	coverage := records("coverage")
	if err := os.MkdirAll(coverage, 0o755); err != nil {
		return nil, err
	}
	return wine.Machines{AgentExe: exe, Environment: []string{"GOCOVERDIR=" + wine.WindowsPath(coverage)}}, nil
}

// keepUsage keeps which calls a host got, and complains about what its agent still held when it ended.
func keepUsage(host *site.Host, usage client.Usage) error {
	if !onWindows {
		return nil
	}
	text, err := json.Marshal(usage)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(records("calls"), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(records("calls"), "e2e-"+host.Name+".json"), text, 0o644); err != nil {
		return err
	}
	if usage.Objects != 0 {
		return fmt.Errorf("the agent of host %s left %d automation objects behind", host.Name, usage.Objects)
	}
	return nil
}
