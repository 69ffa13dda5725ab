package hostfs_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs/hostfstest"
)

func TestLocalKeepsTheContract(t *testing.T) {
	dir := t.TempDir()
	for _, letter := range []string{"D", "E"} {
		if err := os.MkdirAll(filepath.Join(dir, ".volumes", letter), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := hostfs.NewLocal(hostfs.Mapping{Root: dir, Volumes: []hostfs.Volume{
		{Prefix: `D:\VMs`, Folder: "."}, {Prefix: "D:", Folder: ".volumes/D"}, {Prefix: "E:", Folder: ".volumes/E"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for _, folder := range []string{`D:\contract`, `D:\VMs\contract`} {
		t.Run(folder, func(t *testing.T) { hostfstest.Contract(t, l, folder, `E:`) })
	}
}
