package wine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
)

// newHost is an emulated host's folder, without anybody serving it.
func newHost(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	h, err := emulator.Open(dir, emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPrograms(t *testing.T) {
	Require(t)
	probe := Build(t, "test/wine/internal/probe")
	host := newHost(t)
	p := NewPrefix(t, host, "127.0.0.1:1")
	run := func(t *testing.T, args ...string) string {
		t.Helper()
		out, err := p.Command(t.Context(), probe, args...).Output()
		if err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
		return strings.ReplaceAll(string(out), "\r\n", "\n")
	}
	t.Run("the host's folder is D:\\VMs", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(host, "seen"), []byte("from Linux"), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := run(t, "show", `d:\vms\SEEN`); got != "from Linux" {
			t.Error(got)
		}
		run(t, "write", `D:\other`, "from Windows")
		if got, err := os.ReadFile(filepath.Join(host, ".volumes", "D", "other")); string(got) != "from Windows" {
			t.Error(string(got), err)
		}
	})
	t.Run("Hyper-V's folders on C: are the host's, and the rest is not", func(t *testing.T) {
		run(t, "write", `C:\ProgramData\Microsoft\Windows\Hyper-V\x`, "here")
		run(t, "write", `C:\ProgramData\x`, "there")
		if got, err := os.ReadFile(filepath.Join(host, ".volumes/C/ProgramData/Microsoft/Windows/Hyper-V/x")); string(got) != "here" {
			t.Error(string(got), err)
		}
		if got, err := os.ReadFile(p.Local(`C:\ProgramData\x`)); string(got) != "there" {
			t.Error(string(got), err)
		}
	})
	t.Run("the address of the shims is in the environment and in a file", func(t *testing.T) {
		if got := run(t, "environment"); !strings.Contains(got, "HYPERKEEP_SHIMS=127.0.0.1:1\n") {
			t.Error(got)
		}
		if got := run(t, "show", `C:\windows\hyperkeep-shims.txt`); got != "127.0.0.1:1" {
			t.Error(got)
		}
	})
	t.Run("the exit code is the program's", func(t *testing.T) {
		var exit *exec.ExitError
		if err := p.Command(t.Context(), probe, "exit", "7").Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Error(err)
		}
	})
	t.Run("an interrupt is Ctrl+C, and a kill ends it at once", func(t *testing.T) {
		if out := signalled(t, p, probe, os.Interrupt); out != "interrupted" {
			t.Errorf("after the interrupt: %q", out)
		}
		if out := signalled(t, p, probe, os.Kill); out != "" {
			t.Errorf("after the kill: %q", out)
		}
	})
}

// TestNothingLiesWhereWindowsHasItsSharedPage: see atFixedAddresses.
func TestNothingLiesWhereWindowsHasItsSharedPage(t *testing.T) {
	Require(t)
	if atFixedAddresses() == nil {
		t.Skip("Linux does not let this user fix the addresses of programs")
	}
	p := NewPrefix(t, "", "")
	cmd, lines := waiting(t, p, Build(t, "test/wine/internal/probe"))
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	heap := regexp.MustCompile(`(?m)^([0-9a-f]+)-.*\[heap\]$`).FindStringSubmatch(string(maps))
	if heap == nil || !strings.HasPrefix(heap[1], "7d00") {
		t.Errorf("the heap does not follow Wine's loader, but is anywhere: %v", heap)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Error(err)
	}
	_, _ = io.Copy(io.Discard, lines)
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// signalled starts a program that waits, and returns what it says after a signal.
func signalled(t *testing.T, p *Prefix, probe string, signal os.Signal) string {
	t.Helper()
	cmd, lines := waiting(t, p, probe)
	if err := cmd.Process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(lines)
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); (err != nil) != (signal == os.Kill) {
		t.Error(err)
	}
	return strings.TrimSpace(string(rest))
}

// waiting starts a program that waits for a signal, and returns its further output.
func waiting(t *testing.T, p *Prefix, probe string) (*exec.Cmd, io.Reader) {
	t.Helper()
	cmd := p.Command(t.Context(), probe, "wait")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	first, err := lines.ReadString('\n')
	if strings.TrimSpace(first) != "waiting" {
		t.Fatal(first, err)
	}
	return cmd, lines
}

func TestMachineEndsWithItsTest(t *testing.T) {
	Require(t)
	probe := Build(t, "test/wine/internal/probe")
	running := func() bool { return exec.Command("pgrep", "--full", probe).Run() == nil }
	var cmd *exec.Cmd
	t.Run("a test that leaves a program running", func(t *testing.T) {
		p := NewPrefix(t, "", "")
		cmd = p.Command(context.Background(), probe, "wait")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !running() {
			t.Fatal("the program is not found")
		}
	})
	if err := cmd.Wait(); running() { // with which code a program ends that Wine ends is Wine's own business
		t.Errorf("the program runs on: %v", err)
	}
}

// TestCrashIsTold has a program crash whose exit code nobody looks at.
func TestCrashIsTold(t *testing.T) {
	Require(t)
	p, stop, err := start(t.Context(), t.TempDir(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	_ = p.Command(t.Context(), "rundll32", "kernel32.dll,DebugBreak").Run()
	if err := stop(); err == nil || !strings.Contains(err.Error(), "rundll32.exe") {
		t.Errorf("the end of the machine tells of no crash: %v", err)
	}
}

func TestCrashOfWinesOwnUSBDriverIsNone(t *testing.T) {
	const usb = "Unhandled exception: page fault\nBacktrace:\n 1 wine_enumerate_root_devices+0x24d(driver_name=L\"wineusb\") in ntoskrnl\n"
	const other = "Unhandled exception: page fault\nBacktrace:\n 0 service_wait_for_startup in services\n"
	for told, want := range map[string]string{usb: "", other: other, usb + other + usb: other} {
		if got := withoutUSB(told); got != want {
			t.Errorf("%q is left of %q", got, told)
		}
	}
}
