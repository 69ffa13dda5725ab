package wine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/shim"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi/wmitest"
)

// served is an emulated host that serves its shims.
type served struct {
	*emulator.Host
	address string
	end     func() error
}

// serve opens the host over a folder and serves it at an address, whose port may be 0.
func serve(dir, address string) (*served, error) {
	h, err := emulator.Open(dir, emulator.Options{})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	l, err := shim.Listen(ctx, dir, address)
	if err != nil {
		cancel()
		return nil, errors.Join(err, h.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- shim.Serve(ctx, h, l) }()
	return &served{Host: h, address: l.Addr().String(), end: func() error {
		cancel()
		return errors.Join(<-ended, keepCalls(h.Usage().Counts()), h.Close())
	}}, nil
}

// serveHost serves an emulated host to a Windows machine of its own.
func serveHost(t *testing.T, prepare func(t *testing.T, dir string)) (*emulator.Host, *Prefix) {
	t.Helper()
	dir := t.TempDir()
	prepare(t, dir)
	h, err := serve(dir, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.end(); err != nil {
			t.Error(err)
		}
	})
	return h.Host, NewPrefix(t, dir, h.address)
}

// runTests runs the tests of a package, compiled for Windows, and reports what failed. A line "host: COMMAND" of theirs is a wish: control does it,
// and they go on when they read a line.
func runTests(t *testing.T, p *Prefix, pkg string, control func(command string) error) {
	t.Helper()
	cmd := p.Command(t.Context(), BuildTest(t, pkg), testFlags()...)
	in, out := io.Pipe()
	answers, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = out, out
	var log strings.Builder
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(in); lines.Scan(); {
			line := strings.TrimRight(lines.Text(), "\r")
			fmt.Fprintln(&log, line)
			if _, command, ok := strings.Cut(line, "host: "); ok {
				fmt.Fprintln(answers, answer(control(command)))
			}
		}
	}()
	err = cmd.Run()
	out.Close()
	<-read
	if err != nil || !strings.Contains(log.String(), "\nPASS\n") {
		t.Errorf("%s: %v\n%s", pkg, err, log.String())
	}
	if file := os.Getenv("HYPERKEEP_WINE_LOG"); file != "" {
		_ = os.WriteFile(file, []byte(log.String()), 0o644) // for people only
	}
}

// TestWMI runs the contract of WMI sessions through COM, and looks at what the program left behind.
func TestWMI(t *testing.T) {
	Require(t)
	dir := t.TempDir()
	wmitest.Prepare(t, dir)
	h, err := serve(dir, "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.end(); err != nil {
			t.Error(err)
		}
	})
	calls := 0
	runTests(t, NewPrefix(t, dir, h.address), "agent/hyperv/wmi/com", func(command string) (err error) {
		switch name, argument, _ := strings.Cut(command, " "); name {
		case "reopen": // the host itself, and with it all that it knows of the program
			calls += len(h.Usage().Counts().Calls)
			if err := h.end(); err != nil {
				return err
			}
			h, err = serve(dir, h.address)
		case "restart":
			h.Faults().RestartWMI()
		case "deny":
			h.Faults().DenyAccess(argument == "true")
		case "fail":
			class, property, _ := strings.Cut(argument, ".")
			h.Faults().FailProperty(class, property, 1)
		default:
			err = fmt.Errorf("cannot %s", command)
		}
		return err
	})
	if counts := h.Usage().Counts(); counts.Objects != 0 || counts.Leaked != 0 {
		t.Errorf("%d objects are held and %d were when the program ended", counts.Objects, counts.Leaked)
	}
	if calls == 0 {
		t.Error("no method was called")
	}
}

func answer(err error) string {
	if err != nil {
		return err.Error()
	}
	return "done"
}
