package wine

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// twoDisks lays out a running virtual machine.
func twoDisks(t *testing.T, dir string) {
	t.Helper()
	folder := filepath.Join(dir, "crm")
	if err := os.Mkdir(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	definition := "id: 11111111-1111-4111-8111-111111111111\nname: crm\nstate: running\ndisks: [{path: system.vhdx}, {path: data.vhdx}]\n"
	if err := os.WriteFile(filepath.Join(folder, "vm.yaml"), []byte(definition), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"system.vhdx", "data.vhdx"} {
		f, err := os.Create(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := vhdx.Create(f, vhdx.Options{VirtualSize: 16 << 20, BlockSize: 1 << 20}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHyperVThroughCOM has each method of WMI that the agent calls succeed and fail, in operations of package hyperv.
func TestHyperVThroughCOM(t *testing.T) {
	Require(t)
	host, p := serveHost(t, twoDisks)
	runTests(t, p, "agent/hyperv/native", func(command string) error {
		name, argument, _ := strings.Cut(command, " ")
		switch name {
		case "fail":
			var fault emulator.Fault
			if err := json.Unmarshal([]byte(argument), &fault); err != nil {
				return err
			}
			host.Faults().FailNext(fault)
		case "release":
			host.Faults().ReleaseJobs()
		default:
			return fmt.Errorf("cannot %s", command)
		}
		return nil
	})
	checkLeftBehind(t, host)
}
