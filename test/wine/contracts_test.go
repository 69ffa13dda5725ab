package wine

import (
	"bytes"
	"os"
	"testing"
	"time"
)

// contractTimeout bounds the tests of one package on a busy machine. A program that takes longer says where it is.
const contractTimeout = 15 * time.Minute

// testFlags are those of a compiled package's tests.
func testFlags(more ...string) []string {
	return append([]string{"-test.v", "-test.timeout=" + contractTimeout.String()}, more...)
}

// runProgram runs those tests of a compiled package in a machine that match a pattern, as one test of this package.
func runProgram(t *testing.T, p *Prefix, exe, pattern string, environment ...string) {
	t.Helper()
	cmd := p.Command(t.Context(), exe, testFlags("-test.run", pattern)...)
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
