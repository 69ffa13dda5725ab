// Package tool runs other people's programs for the tests and the demo: the judges that share no code with what they judge.
package tool

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// packages says where Debian has the programs that not every machine has.
var packages = map[string]string{
	"qemu-img": "qemu-utils", "qemu-io": "qemu-utils", "qemu-system-x86_64": "qemu-system-x86",
	"mke2fs": "e2fsprogs", "e2fsck": "e2fsprogs", "debugfs": "e2fsprogs",
	"mkntfs": "ntfs-3g", "ntfscp": "ntfs-3g", "ntfscat": "ntfs-3g", "ntfsfix": "ntfs-3g",
	"vhdiinfo": "libvhdi-utils", "busybox": "busybox-static",
	"wine": "wine wine64", "wineserver": "wine wine64", "x86_64-w64-mingw32-gcc": "gcc-mingw-w64-x86-64-win32",
}

// MissingError means that programs are not installed.
type MissingError struct{ Programs []string }

// Error says how to get them.
func (e *MissingError) Error() string {
	var names []string
	for _, program := range e.Programs {
		if from := packages[program]; from != "" && !strings.Contains(strings.Join(names, " "), from) {
			names = append(names, from)
		}
	}
	return fmt.Sprintf("not installed: %s; on Debian and Ubuntu, apt-get install %s", strings.Join(e.Programs, ", "), strings.Join(names, " "))
}

// Find returns a *MissingError when a program is not there.
func Find(programs ...string) error {
	var missing []string
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if len(missing) > 0 {
		return &MissingError{missing}
	}
	return nil
}

// Require skips a test where a program is missing, or fails it if CI is set: there, nothing may be skipped.
func Require(tb testing.TB, programs ...string) {
	tb.Helper()
	err := Find(programs...)
	if err != nil && os.Getenv("CI") != "" {
		tb.Fatal(err)
	}
	if err != nil {
		tb.Skip(err)
	}
}

// Run runs a program and returns its standard output. The error of one that fails has all that it printed.
func Run(ctx context.Context, program string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(stdout.String()+stderr.String()))
	}
	return stdout.String(), nil
}
