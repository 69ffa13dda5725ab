package hyperv_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

const (
	mib      = 1 << 20
	diskSize = 16 * mib
	crmID    = "11111111-1111-4111-8111-111111111111"
	webID    = "22222222-2222-4222-8222-222222222222"
)

// lab is an emulated host with VMs.
type lab struct {
	*testing.T
	*WithT
	dir  string
	host *emulator.Host
	*hyperv.Host
	// wire is between the Host and the emulated one.
	wire *wire
}

// machines are files to lay out before the host starts: text ending in .yaml is written, the others become disks.
type machines map[string]string

const crm = `
id: ` + crmID + `
name: crm
state: running
disks:
- path: system.vhdx
- path: data.vhdx
networkAdapters:
- name: Network Adapter
  switch: LAN
  mac: 00155D010203
`

// oneVM is a running VM with two disks.
func oneVM() machines {
	return machines{"crm/vm.yaml": crm, "crm/system.vhdx": "", "crm/data.vhdx": ""}
}

// with changes the text of the VM.
func (m machines) with(old, replacement string) machines {
	m["crm/vm.yaml"] = strings.Replace(m["crm/vm.yaml"], old, replacement, 1)
	return m
}

// on sets what the host is.
func (m machines) on(host string) machines {
	m["host.yaml"] = host
	return m
}

func newLab(t *testing.T, files machines) *lab {
	t.Helper()
	l := &lab{T: t, WithT: NewWithT(t)}
	var err error
	l.dir, err = os.MkdirTemp(memory(), "hv") // short: the path of a socket has at most 108 bytes
	l.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = os.RemoveAll(l.dir) })
	if files["host.yaml"] == "" {
		files["host.yaml"] = "jobMillis: 1\n"
	}
	for name, text := range files {
		path := filepath.Join(l.dir, name)
		l.Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
		if strings.HasSuffix(name, ".yaml") {
			l.Expect(os.WriteFile(path, []byte(text), 0o644)).To(Succeed())
			continue
		}
		l.makeDisk(path, 0)
	}
	l.host, err = emulator.Open(l.dir, emulator.Options{})
	l.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = l.host.Close() })
	l.wire = &wire{Session: l.host.Session(wmi.NamespaceVirtualization), methods: map[string]int{}}
	l.Host = hyperv.New(hyperv.Seams{
		Virtualization: l.wire, CIM: l.host.Session(wmi.NamespaceCIMv2), Cluster: l.host.Session(wmi.NamespaceCluster),
		Disks: l.host.Disks(), Files: l.host.Files(), Shadows: l.host.VSS(), Clock: hurried{},
	})
	return l
}

// memory is a folder in memory where the system has one: the emulated host makes everything durable, and hundreds of hosts wait for the disk otherwise.
func memory() string {
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		return "/dev/shm"
	}
	return ""
}

// makeDisk creates a dynamic disk whose first MiB is filled.
func (l *lab) makeDisk(path string, fill byte) {
	l.Helper()
	f, err := os.Create(path)
	l.Expect(err).NotTo(HaveOccurred())
	defer f.Close()
	size, err := vhdx.Create(f, vhdx.Options{VirtualSize: diskSize, BlockSize: mib})
	l.Expect(err).NotTo(HaveOccurred())
	if fill == 0 {
		return
	}
	w, err := vhdx.OpenWriter(f, size, nil)
	l.Expect(err).NotTo(HaveOccurred())
	_, err = w.WriteAt(filled(mib, fill), 0)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(w.Sync()).To(Succeed())
}

func filled(n int, b byte) []byte { return []byte(strings.Repeat(string(rune(b)), n)) }

// hurried is a clock on which waiting takes a hundredth of the time.
type hurried struct{}

func (hurried) Now() time.Time                         { return time.Now() }
func (hurried) After(d time.Duration) <-chan time.Time { return time.After(d / 100) }

// called is how often the host ran a method.
func (l *lab) called(method string) int {
	l.wire.mu.Lock()
	defer l.wire.mu.Unlock()
	return l.wire.methods[method]
}

// refuse makes a method return a code, until the function returned is called.
func (l *lab) refuse(method string, code uint32) (stop func()) {
	l.wire.mu.Lock()
	defer l.wire.mu.Unlock()
	l.wire.refuse = map[string]uint32{method: code}
	return func() {
		l.wire.mu.Lock()
		defer l.wire.mu.Unlock()
		l.wire.refuse = nil
	}
}

// patient repeats what the host is too busy for, as the runner does.
func patient[T any](l *lab, call func() (T, error)) (T, error) {
	l.Helper()
	var out T
	var err error
	l.Eventually(func() error {
		out, err = call()
		if errors.Is(err, hyperv.ErrBusy) {
			return err
		}
		return nil
	}, 10*time.Second, 2*time.Millisecond).Should(Succeed())
	return out, err
}

// crashTest is an operation that must survive the death of the agent anywhere.
type crashTest struct {
	files func() machines
	// effects interrupts it after calls of methods only: reading leaves nothing behind.
	effects bool
	// prepare runs before the operation and is not interrupted.
	prepare func(*lab)
	// operation is interrupted, and then repeated as a restarted agent does.
	operation func(*lab) error
	// check looks at the world afterwards.
	check func(*lab)
}

// run interrupts the operation after each of the calls that it makes, starting anew each time. It ends when the operation got through before
// the interruption, so it has reached every call.
func (c crashTest) run(t *testing.T) {
	for n, done := 1, false; !done && !t.Failed(); n++ {
		t.Run(fmt.Sprintf("after call %d", n), func(t *testing.T) {
			l := newLab(t, c.files())
			l.wire.effects = c.effects
			c.prepare(l)
			l.wire.cutAfter(n)
			err := c.operation(l)
			if done = err == nil; done {
				l.Expect(n).To(BeNumerically(">", 1), "there was nothing to interrupt")
			} else {
				l.Expect(err).To(MatchError(wmi.ErrDisconnected))
			}
			l.wire.mend()
			_, err = patient(l, func() (any, error) { return nil, c.operation(l) })
			l.Expect(err).NotTo(HaveOccurred())
			c.check(l)
		})
	}
}

// checkpoint takes one as the runner does, with an intent.
func (l *lab) checkpoint(tag string, level hyperv.Level) (hyperv.Checkpoint, error) {
	l.Helper()
	intent, err := l.PrepareCheckpoint(l.Context(), crmID, level)
	l.Expect(err).NotTo(HaveOccurred())
	return l.Checkpoint(l.Context(), hyperv.CheckpointRequest{VMID: crmID, Tag: tag, Level: level, Intent: intent})
}

func (l *lab) mustCheckpoint(tag string, level hyperv.Level) hyperv.Checkpoint {
	l.Helper()
	cp, err := patient(l, func() (hyperv.Checkpoint, error) { return l.checkpoint(tag, level) })
	l.Expect(err).NotTo(HaveOccurred())
	return cp
}

func (l *lab) frozen(cp hyperv.Checkpoint) []hyperv.FrozenDisk {
	l.Helper()
	disks, _, err := l.Disks(l.Context(), cp)
	l.Expect(err).NotTo(HaveOccurred())
	return disks
}

// read returns the first n bytes of a frozen disk.
func (l *lab) read(d hyperv.FrozenDisk, n int) []byte {
	l.Helper()
	open, err := l.OpenDisk(l.Context(), d)
	l.Expect(err).NotTo(HaveOccurred())
	p := make([]byte, n)
	_, err = open.ReadAt(p, 0)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(open.Close()).To(Succeed())
	return p
}

func (l *lab) changes(d hyperv.FrozenDisk, base hyperv.TrackedDisk) extent.List {
	l.Helper()
	seq, err := l.Changes(l.Context(), d, base)
	l.Expect(err).NotTo(HaveOccurred())
	list, err := extent.Collect(seq)
	l.Expect(err).NotTo(HaveOccurred())
	return list
}

func (l *lab) waitReleased(cp hyperv.Checkpoint, disks []hyperv.FrozenDisk) {
	l.Helper()
	l.Eventually(func() (hyperv.ReleaseState, error) { return l.Released(l.Context(), cp, disks) }, 10*time.Second, 2*time.Millisecond).
		Should(Equal(hyperv.ReleaseState{Done: true}))
}

// vm reads the VM, patiently.
func (l *lab) vm(id string) hyperv.VM {
	l.Helper()
	vm, err := l.VM(l.Context(), id)
	l.Expect(err).NotTo(HaveOccurred())
	return vm
}

// requestState changes a VM's state as another program does.
func (l *lab) requestState(state int64) {
	l.Helper()
	s := l.foreignSession()
	system, err := s.Query(l.Context(), "SELECT * FROM Msvm_ComputerSystem WHERE Name='"+crmID+"'")
	l.Expect(err).NotTo(HaveOccurred())
	_, err = wmi.Call(l.Context(), s, hurried{}, system[0].Path, "RequestStateChange", wmi.Params{"RequestedState": state})
	l.Expect(err).NotTo(HaveOccurred())
}

func (l *lab) foreignSession() wmi.Session { return l.host.Session(wmi.NamespaceVirtualization) }

// snapshot makes a checkpoint that is not ours: a person's (type 2) or another product's (type 32768).
func (l *lab) snapshot(kind int64) {
	l.Helper()
	s := l.foreignSession()
	service, err := s.Query(l.Context(), "SELECT * FROM Msvm_VirtualSystemSnapshotService")
	l.Expect(err).NotTo(HaveOccurred())
	system, err := s.Query(l.Context(), "SELECT * FROM Msvm_ComputerSystem WHERE Name='"+crmID+"'")
	l.Expect(err).NotTo(HaveOccurred())
	_, err = wmi.Call(l.Context(), s, hurried{}, service[0].Path, "CreateSnapshot", wmi.Params{
		"AffectedSystem": system[0].Path, "SnapshotType": kind,
		"SnapshotSettings": wmi.Object{Class: "Msvm_VirtualSystemSnapshotSettingData", Properties: map[string]any{"ConsistencyLevel": int64(2)}},
	})
	l.Expect(err).NotTo(HaveOccurred())
}

func (l *lab) writeFile(name, text string) {
	l.Helper()
	path := filepath.Join(l.dir, name)
	l.Expect(os.MkdirAll(filepath.Dir(path), 0o755)).To(Succeed())
	l.Expect(os.WriteFile(path, []byte(text), 0o644)).To(Succeed())
}

func (l *lab) copyFile(from, to string) {
	l.Helper()
	content, err := os.ReadFile(filepath.Join(l.dir, from))
	l.Expect(err).NotTo(HaveOccurred())
	l.writeFile(to, string(content))
}

// listing is what lies in a VM's folder and is neither hidden nor a socket.
func (l *lab) listing(folder string) []string {
	l.Helper()
	entries, err := os.ReadDir(filepath.Join(l.dir, folder))
	l.Expect(err).NotTo(HaveOccurred())
	var out []string
	for _, e := range entries {
		if e.Type().IsRegular() && !strings.HasPrefix(e.Name(), ".") {
			out = append(out, e.Name())
		}
	}
	return out
}
