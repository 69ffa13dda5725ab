package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/preflight"
)

// volumes of a gigabyte, so that nothing depends on the free space of this machine.
const volumes = "volumes: {C: {sizeBytes: 1073741824}, D: {sizeBytes: 1073741824}}\n"

// emulated serves a host without virtual machines, and returns its socket.
func emulated(t *testing.T, config string) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hv") // short: the path of a socket has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "host.yaml"), []byte(config+volumes), 0o644); err != nil {
		t.Fatal(err)
	}
	h, err := emulator.Open(dir, emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := h.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-served, h.Close()); err != nil {
			t.Error(err)
		}
	})
	return emulator.SocketPath(dir)
}

// runPreflight returns the exit code and what was printed.
func runPreflight(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	cmd := preflightCommand()
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	ran, err := cmd.ExecuteContextC(t.Context())
	if err == nil {
		return 0, out.String()
	}
	exit := exitOf(ran, err)
	if exit.err != nil {
		out.WriteString(exit.err.Error())
	}
	return exit.code, out.String()
}

func TestPreflightEndsWithTheVerdict(t *testing.T) {
	g := NewWithT(t)
	code, out := runPreflight(t, "--emulated", emulated(t, "edition: desktop\n"))
	g.Expect(code).To(Equal(preflight.ExitNotReady))
	g.Expect(out).To(ContainSubstring("VERDICT\n  Not ready"))
	code, out = runPreflight(t, "--emulated", emulated(t, "edition: server\n"), "-o", "json")
	g.Expect(code).To(Equal(preflight.ExitConcerns), out) // it has no virtual machines
	var report preflight.Report
	g.Expect(json.Unmarshal([]byte(out), &report)).To(Succeed())
	g.Expect(report.Verdict).To(Equal(preflight.Concern))
}

func TestPreflightRecordsReplaysAndCompares(t *testing.T) {
	g := NewWithT(t)
	file := filepath.Join(t.TempDir(), "host.jsonl")
	socket := emulated(t, "name: SECRET7\n")
	code, out := runPreflight(t, "--emulated", socket, "--record", file, "--redact")
	g.Expect(code).To(Equal(preflight.ExitConcerns), out)
	recorded, err := os.ReadFile(file)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(bytes.ToUpper(recorded)).NotTo(ContainSubstring("SECRET7"))
	code, out = runPreflight(t, "--replay", file)
	g.Expect(code).To(Equal(preflight.ExitConcerns), out)
	code, out = runPreflight(t, "--compare", file)
	g.Expect([]any{code, out}).To(Equal([]any{0, "0 differences from the emulated host.\n"}))
	code, out = runPreflight(t, "--emulated", socket, "--record", file)
	g.Expect(code).To(Equal(preflight.ExitNotReady), "a recording is never overwritten")
	g.Expect(out).To(ContainSubstring("exists"))
}

func TestPreflightTakesAMachineThroughACycleOnlyWhenAllowed(t *testing.T) {
	g := NewWithT(t)
	socket := emulated(t, "name: HV01\njobMillis: 1\n")
	folder := filepath.Join(filepath.Dir(filepath.Dir(socket)), "crm")
	g.Expect(os.Mkdir(folder, 0o755)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(folder, "vm.yaml"), []byte("state: off\n"), 0o644)).To(Succeed())
	code, out := runPreflight(t, "--emulated", socket, "--vm", "crm")
	g.Expect(code).To(Equal(preflight.ExitNotReady))
	g.Expect(out).To(ContainSubstring("allow it with --yes"))
	g.Expect(out).NotTo(ContainSubstring("BACKUP CYCLE"))
	code, out = runPreflight(t, "--emulated", socket, "--vm", "crm", "--yes")
	g.Expect(code).To(Equal(preflight.ExitReady), out)
	g.Expect(out).To(MatchRegexp(`(?s)BACKUP CYCLE\n.*clean up +nothing is left on the host`))
}

func TestPreflightThatCannotRunSaysSo(t *testing.T) {
	for name, args := range map[string][]string{
		"an unknown flag":            {"--bogus"},
		"an unknown form":            {"--emulated", "x", "-o", "yaml"},
		"redact without a recording": {"--emulated", "x", "--redact"},
		"two hosts":                  {"--emulated", "x", "--replay", "y"},
		"an argument":                {"x"},
		"no such recording":          {"--replay", "/nowhere/x"},
		"a host that is away":        {"--emulated", "/nowhere/x"},
	} {
		t.Run(name, func(t *testing.T) {
			code, out := runPreflight(t, args...)
			NewWithT(t).Expect(code).To(Equal(preflight.ExitNotReady), out)
			NewWithT(t).Expect(out).NotTo(BeEmpty())
		})
	}
}
