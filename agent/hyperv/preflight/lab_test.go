package preflight_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/preflight"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

const (
	mib   = 1 << 20
	crmID = "11111111-1111-4111-8111-111111111111"
	crm   = "id: " + crmID + "\nname: crm\nstate: running\ndisks: [{path: system.vhdx}, {path: data.vhdx}]\n"
)

// oneVM is a running VM with two disks.
func oneVM() map[string]string {
	return map[string]string{"crm/vm.yaml": crm, "crm/system.vhdx": "", "crm/data.vhdx": ""}
}

// volumes of a gigabyte, so that nothing depends on the free space of this machine.
const volumes = "volumes: {C: {sizeBytes: 1073741824}, D: {sizeBytes: 1073741824}}\n"

// open runs an emulated host over files: those that end in .yaml are written, the others become disks.
func open(t *testing.T, files map[string]string) *emulator.Host {
	t.Helper()
	dir, err := os.MkdirTemp("", "hv") // short: the path of a socket has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if files["host.yaml"] == "" {
		files["host.yaml"] = "jobMillis: 1\n"
	}
	files["host.yaml"] += volumes
	for name, text := range files {
		path := filepath.Join(dir, name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if strings.HasSuffix(name, ".yaml") {
			err = errors.Join(err, os.WriteFile(path, []byte(text), 0o644))
		} else {
			err = errors.Join(err, makeDisk(path))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	h, err := emulator.Open(dir, emulator.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// makeDisk creates a dynamic disk whose first MiB is filled.
func makeDisk(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	size, err := vhdx.Create(f, vhdx.Options{VirtualSize: 16 * mib, BlockSize: mib})
	if err != nil {
		return errors.Join(err, f.Close())
	}
	w, err := vhdx.OpenWriter(f, size, nil)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = w.WriteAt([]byte(strings.Repeat("x", mib)), 0)
	return errors.Join(err, w.Sync(), f.Close())
}

// hurried is a clock on which waiting takes a hundredth of the time.
type hurried struct{}

func (hurried) Now() time.Time                         { return time.Now() }
func (hurried) After(d time.Duration) <-chan time.Time { return time.After(d / 100) }

func seams(h *emulator.Host) hyperv.Seams {
	return hyperv.Seams{
		Virtualization: h.Session(wmi.NamespaceVirtualization), CIM: h.Session(wmi.NamespaceCIMv2), Cluster: h.Session(wmi.NamespaceCluster),
		Disks: h.Disks(), Attacher: h.Attacher(), Files: h.Files(), Clock: hurried{},
	}
}

func of(s hyperv.Seams) *preflight.Preflight {
	return &preflight.Preflight{Seams: s, Machine: preflight.ThisMachine(), Agent: "test"}
}

// check finds a check by its section and name.
func check(r *preflight.Report, section, name string) preflight.Check {
	for _, c := range r.Checks {
		if c.Section == section && strings.TrimSpace(c.Name) == name {
			return c
		}
	}
	return preflight.Check{}
}
