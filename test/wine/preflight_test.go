package wine

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/recording"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/preflight"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// oneVM lays out a running virtual machine with a disk whose first MiB is filled.
func oneVM(t *testing.T, dir string) {
	t.Helper()
	folder := filepath.Join(dir, "crm")
	err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(filepath.Join(folder, "vm.yaml"), []byte("name: crm\nstate: running\ndisks: [{path: system.vhdx}]\n"), 0o644))
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.Create(filepath.Join(folder, "system.vhdx"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	size, err := vhdx.Create(file, vhdx.Options{VirtualSize: 16 << 20, BlockSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	disk, err := vhdx.OpenWriter(file, size, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = disk.WriteAt(bytes.Repeat([]byte("x"), 1<<20), 0)
	if err := errors.Join(err, disk.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestPreflightOfWindows runs the whole of it as the program for Windows does: through COM and virtdisk.dll, with a backup cycle, and recorded.
func TestPreflightOfWindows(t *testing.T) {
	Require(t)
	host, p := serveHost(t, oneVM)
	file := filepath.Join(t.TempDir(), "host.jsonl")
	cmd := p.Command(t.Context(), Build(t, "cmd/agent"), "preflight", "--vm", "crm", "--yes", "-o", "json", "--record", WindowsPath(file), "--redact")
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	var report preflight.Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out.String(), problems.String())
	}
	// What depends on more than the emulated host: the right to ask the VSS writer, and the free space of the real disk below Wine's drives.
	elsewhere := []string{"VSS writer", "C:", "D:"}
	for _, c := range report.Checks {
		if c.Result != preflight.Passed && !slices.Contains(elsewhere, c.Name) {
			t.Errorf("%s, %s is %s: %s", c.Section, c.Name, c.Result, c.Found)
		}
	}
	if report.Cycle == nil || len(report.Cycle.Disks) != 1 || len(report.Cycle.Disks[0].Reads) != 3 {
		t.Errorf("the cycle did not read in three ways: %+v", report.Cycle)
	}
	checkLeftBehind(t, host)
	recorded, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer recorded.Close()
	replay, err := recording.Load(recorded)
	if err != nil {
		t.Fatal(err)
	}
	// What goes through COM arrives as what the emulated host is made of.
	differences, err := recording.Compare(replay)
	if err != nil || len(differences) > 0 {
		t.Errorf("%v: %v", err, differences)
	}
}

func checkLeftBehind(t *testing.T, host *emulator.Host) {
	t.Helper()
	if open := host.DiskHandles(); len(open) != 0 {
		t.Errorf("disks were left open: %v", open)
	}
	if counts := host.Usage().Counts(); counts.Objects != 0 || counts.Leaked != 0 {
		t.Errorf("%d objects are held and %d were when the program ended", counts.Objects, counts.Leaked)
	}
}
