package wine

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// buildTimeout bounds compiling; the agent takes minutes when nothing of it is in Go's cache.
const buildTimeout = 10 * time.Minute

// Build compiles a command of this module for Windows and returns the program's path. The flags are go build's.
func Build(tb testing.TB, pkg string, flags ...string) string {
	tb.Helper()
	return compile(tb, "build", pkg, flags)
}

// BuildTest compiles the tests of a package of this module for Windows and returns the program's path.
func BuildTest(tb testing.TB, pkg string, flags ...string) string {
	tb.Helper()
	return compile(tb, "test", pkg, append([]string{"-c"}, flags...))
}

func compile(tb testing.TB, verb, pkg string, flags []string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), buildTimeout)
	defer cancel()
	exe := filepath.Join(tb.TempDir(), strings.ReplaceAll(pkg, "/", "-")+".exe")
	args := slices.Concat([]string{verb, "-o", exe}, flags)
	if verb == "build" {
		args = append(args, counting()...)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "github.com/hyperkeep/hyperkeep/"+pkg)...)
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("compile %s for Windows: %v\n%s", pkg, err, out)
	}
	return exe
}
