package wine

import (
	"bytes"
	"context"
	"os"
	"testing"
	"time"
)

// contractTimeout bounds the tests of one package on a busy machine.
const contractTimeout = 5 * time.Minute

// runProgram runs those tests of a compiled package in a machine that match a pattern, as one test of this package.
func runProgram(t *testing.T, p *Prefix, exe, pattern string, environment ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), contractTimeout)
	defer cancel()
	cmd := p.Command(ctx, exe, "-test.v", "-test.run", pattern)
	cmd.Env = append(cmd.Env, environment...)
	cmd.Dir = t.TempDir()
	out, err := cmd.Output()
	if err != nil || os.Getenv("HYPERKEEP_WINE_VERBOSE") != "" {
		t.Logf("%s", out)
	}
	if err != nil || !bytes.Contains(out, []byte("--- PASS")) {
		t.Errorf("the tests did not pass: %v", err)
	}
}

func TestFilesOfWindowsKeepTheContract(t *testing.T) {
	runProgram(t, NewPrefix(t, "", ""), BuildTest(t, "agent/hyperv/hostfs"), "Native")
}

func TestStateFilesOfWindows(t *testing.T) {
	runProgram(t, NewPrefix(t, "", ""), BuildTest(t, "agent/statefile"), ".")
}
