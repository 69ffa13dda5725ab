package tenant

import (
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/hyperkeep/hyperkeep/test/guest"
	"github.com/hyperkeep/hyperkeep/test/qemu"
)

// Machine is a virtual machine on the tenant's host.
type Machine struct {
	// Name in Hyper-V, which is also its folder's.
	Name string
	// Disks in the order of vm.yaml, without pass-through disks.
	Disks []*Disk

	tenant *Tenant
	dir    string
	// idle machines serve no disks.
	idle bool
}

// Disk is a disk of a machine.
type Disk struct {
	// File is the VHDX file's name in the machine's folder.
	File string
	// Shadow is a raw file with what the guest has written.
	Shadow string
	// Guest uses the disk while the machine runs.
	Guest *guest.Guest
}

// Settings are further fields of vm.yaml.
type Settings map[string]any

// AddMachine makes a machine of raw disk files, which become the shadows of its guests. It belongs before Start, or the caller waits for it to appear.
func (x *Tenant) AddMachine(name string, settings Settings, shadows ...string) *Machine {
	x.Helper()
	m := &Machine{Name: name, tenant: x, dir: filepath.Join(x.Site.HostDir(x.Name), name)}
	x.ok(os.MkdirAll(m.dir, 0o755), "make the machine's folder")
	for i, shadow := range shadows {
		disk := &Disk{File: fmt.Sprintf("disk%d.vhdx", i), Shadow: shadow}
		x.ok(qemu.Convert(x.Context(), shadow, filepath.Join(m.dir, disk.File)), "make a disk")
		m.Disks = append(m.Disks, disk)
	}
	m.WriteSettings(settings)
	x.machines = append(x.machines, m)
	return m
}

// WriteSettings writes vm.yaml anew. The machine runs unless the settings say another state; its disks stand before those of the settings.
func (m *Machine) WriteSettings(settings Settings) {
	m.tenant.Helper()
	all := Settings{"name": m.Name, "state": "running"}
	maps.Copy(all, settings)
	m.idle = all["state"] != "running"
	var disks []any
	for _, disk := range m.Disks {
		disks = append(disks, map[string]any{"path": disk.File})
	}
	more, _ := settings["disks"].([]any)
	all["disks"] = append(disks, more...)
	text, err := yaml.Marshal(all)
	m.tenant.ok(err, "write vm.yaml")
	// Renamed into place, so that the host never reads half a file.
	m.tenant.ok(os.WriteFile(m.Path(".vm.yaml"), text, 0o644), "write vm.yaml")
	m.tenant.ok(os.Rename(m.Path(".vm.yaml"), m.Path("vm.yaml")), "write vm.yaml")
}

// Path is the path of a file in the machine's folder.
func (m *Machine) Path(name string) string { return filepath.Join(m.dir, name) }

// attach connects guests to the disks of a running machine.
func (m *Machine) attach() {
	m.tenant.Helper()
	for _, disk := range m.Disks {
		if m.idle || disk.Guest != nil {
			continue
		}
		socket := m.Path(disk.File + ".nbd")
		m.tenant.Await(socket+" is served", func() bool { _, err := os.Stat(socket); return err == nil })
		attached, err := guest.Attach(socket, disk.Shadow)
		m.tenant.ok(err, "attach a guest")
		disk.Guest = attached
	}
}

// Detach disconnects the guests, as before the machine is removed or its host dies.
func (m *Machine) Detach() {
	for _, disk := range m.Disks {
		if disk.Guest != nil {
			_ = disk.Guest.Detach() // the host may be gone
			disk.Guest = nil
		}
	}
}

// Attach connects the guests again after Detach.
func (m *Machine) Attach() { m.tenant.Helper(); m.attach() }

func (x *Tenant) detachGuests() {
	for _, m := range x.machines {
		m.Detach()
	}
}

// Destroy removes the machine and all its disks from the host, as an administrator may by mistake.
func (m *Machine) Destroy() {
	m.tenant.Helper()
	m.Detach()
	m.tenant.ok(os.RemoveAll(m.dir), "remove the machine")
}

// Leftovers lists files of checkpoints in the host's folder.
func (x *Tenant) Leftovers() []string {
	x.Helper()
	found, err := filepath.Glob(filepath.Join(x.Host.Dir, "*", "*.avhdx"))
	x.ok(err, "look for leftovers")
	return found
}

// Freeze copies the shadow of each disk: what a backup that is taken now must give back.
func (m *Machine) Freeze(moment string) []string {
	m.tenant.Helper()
	var frozen []string
	for i, disk := range m.Disks {
		path := filepath.Join(m.tenant.Dir, fmt.Sprintf("%s.%d.%s.raw", m.Name, i, moment))
		m.tenant.ok(disk.Guest.Freeze(m.tenant.Context(), path), "keep the shadow")
		frozen = append(frozen, path)
	}
	return frozen
}

// Raw makes a sparse raw disk of size bytes, with random data of each given length at the given offset.
func (x *Tenant) Raw(name string, size int64, data map[int64]int64) string {
	x.Helper()
	path := filepath.Join(x.Dir, name+".raw")
	file, err := os.Create(path)
	x.ok(err, "make a disk")
	defer file.Close()
	x.ok(file.Truncate(size), "make a disk")
	for _, offset := range slices.Sorted(maps.Keys(data)) {
		_, err := file.WriteAt(Random(data[offset]), offset)
		x.ok(err, "make a disk")
	}
	return path
}

// Random returns n random bytes.
func Random(n int64) []byte {
	p := make([]byte, n)
	_, _ = rand.Read(p) // never fails
	return p
}

// HostPath is the file behind a path of the host's drives C: and D:.
func (x *Tenant) HostPath(windows string) string {
	x.Helper()
	slashed := strings.ReplaceAll(windows, `\`, "/")
	if below, isVM := strings.CutPrefix(slashed, "D:/VMs/"); isVM {
		return filepath.Join(x.Host.Dir, below)
	}
	if len(slashed) < 3 || slashed[1:3] != ":/" {
		x.Fatalf("%s is no path of a host", windows)
	}
	return filepath.Join(x.Host.Dir, ".volumes", slashed[:1], slashed[3:])
}
