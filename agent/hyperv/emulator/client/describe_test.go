package client_test

import (
	"errors"
	"os"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/client"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func TestClassesAreDescribedThroughTheSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "hv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Cleanup(run(t, dir))
	c := client.Dial(emulator.SocketPath(dir))
	t.Cleanup(func() { c.Close() })
	session := c.Session(wmi.NamespaceVirtualization).(wmi.Describer)

	class, err := session.Describe(t.Context(), "msvm_virtualsystemsnapshotservice")
	if err != nil {
		t.Fatal(err)
	}
	create := class.Methods["CreateSnapshot"]
	if class.Name != "Msvm_VirtualSystemSnapshotService" || class.Properties["OperationalStatus"] != "uint16[]" ||
		create.In["SnapshotType"] != "uint16" || create.In["SnapshotSettings"] != "string" || create.Out["Job"] != "ref" || create.In["Job"] != "" {
		t.Errorf("%+v", class)
	}
	if _, err := session.Describe(t.Context(), "Msvm_NoSuchClass"); !errors.Is(err, wmi.ErrInvalidClass) {
		t.Errorf("a class that does not exist: %v", err)
	}
	if _, err := c.Session(`root\nowhere`).(wmi.Describer).Describe(t.Context(), "Msvm_ComputerSystem"); !errors.Is(err, wmi.ErrInvalidNamespace) {
		t.Errorf("a namespace that does not exist: %v", err)
	}
}
