package emulator

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"testing"
)

// emulateEnv makes the test program be an emulator process over the folder that it names.
const emulateEnv = "HYPERKEEP_TEST_EMULATE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(emulateEnv); dir != "" {
		if err := emulate(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// emulate serves until standard input ends, so that no process outlives the test.
func emulate(dir string) error {
	h, err := Open(dir, Options{})
	if err != nil {
		return err
	}
	l, err := h.Listen(context.Background())
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	fmt.Println("ready")
	if err := h.Serve(ctx, l); err != nil {
		return err
	}
	return h.Close()
}

// process is an emulator of its own.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func startProcess(t *testing.T, dir string) *process {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), emulateEnv+"="+dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, stdin: stdin}
	t.Cleanup(p.kill)
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("the emulator did not start: %q, %v", line, err)
	}
	return p
}

// kill ends the process as kill -9 does. A second call does nothing.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill() // it may be gone already
		_ = p.cmd.Wait()         // says that it was killed
	}
}

// stop ends the process in an orderly way.
func (p *process) stop() {
	p.t.Helper()
	p.stdin.Close()
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatalf("the emulator ended with %v", err)
	}
}
