package win32_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/shim"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk/virtdisktest"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk/win32"
)

// TestServiceKeepsTheContract is run under Wine by package test/wine, which says in the environment where the emulated host is and what is on it.
func TestServiceKeepsTheContract(t *testing.T) {
	text, address := os.Getenv("HYPERKEEP_FIXTURE"), os.Getenv("HYPERKEEP_SHIMS")
	if text == "" {
		t.Skip("needs an emulated host")
	}
	var fixture virtdisktest.Fixture
	if err := json.Unmarshal([]byte(text), &fixture); err != nil {
		t.Fatal(err)
	}
	control, err := shim.DialControl(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control.Close() })
	virtdisktest.Contract(t, virtdisktest.Subject{Disks: win32.Service{}, Attacher: win32.Service{}, Host: control, Fixture: fixture})
}
