// Package store runs real object stores for the tests, each on a port of the loopback interface with its data in the test's folder.
//
// The programs lie in the folder that HYPERKEEP_STORES names, which hack/stores.sh fills and prints.
package store

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

const (
	programsVariable = "HYPERKEEP_STORES"
	remedy           = `use a make target, or export HYPERKEEP_STORES="$(hack/stores.sh)" in the top folder of the checkout`
	// startTimeout is many times what a store needs on a machine with nothing else to do.
	startTimeout = time.Minute
)

// program finds a store's program. A test that has none is skipped, or fails if CI is set: there, nothing may be skipped.
func program(tb testing.TB, name ...string) string {
	tb.Helper()
	path := filepath.Join(append([]string{os.Getenv(programsVariable)}, name...)...)
	_, err := os.Stat(path)
	if os.Getenv(programsVariable) != "" && err == nil {
		return path
	}
	if os.Getenv("CI") != "" {
		tb.Fatalf("there is no %s: %s", path, remedy)
	}
	tb.Skipf("there is no %s: %s", path, remedy)
	return ""
}

// start runs a store until the test ends, and waits until it accepts connections. As setpriv asks for, it is killed with the thread that
// started it, which therefore waits for it: a test that panics leaves nothing behind.
func start(tb testing.TB, address string, command ...string) {
	tb.Helper()
	output, err := os.Create(filepath.Join(tb.TempDir(), "log"))
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.CommandContext(tb.Context(), "setpriv", append([]string{"--pdeathsig", "KILL"}, command...)...) // ends before Cleanup
	cmd.Stdout, cmd.Stderr = output, output
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + tb.TempDir()}
	started, done := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(done)
		defer output.Close()
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { <-done })
	if err := await(address, done); err != nil {
		said, _ := os.ReadFile(output.Name())
		tb.Fatalf("%s: %v\n%s", command[0], err, said)
	}
}

func await(address string, done <-chan struct{}) error {
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		if connection, err := net.DialTimeout("tcp", address, time.Second); err == nil {
			return connection.Close()
		}
		select {
		case <-done:
			return fmt.Errorf("it ended by itself")
		case <-time.After(20 * time.Millisecond):
		}
	}
	return fmt.Errorf("it does not listen on %s", address)
}

// freeAddress is one on which nobody listens.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
