package emulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/client"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// testTimeout bounds every wait of a test; a busy machine is slow, a stuck test is a failure.
const testTimeout = 60 * time.Second

// world is a host as a test sees it: in process or through a socket.
type world struct {
	t       *testing.T
	ctx     context.Context
	dir     string
	session wmi.Session // root\virtualization\v2
	cim     wmi.Session // root\cimv2
	cluster wmi.Session // root\MSCluster
	disks   virtdisk.Service
	files   hostfs.FS
}

// tempDir is short, so that the sockets in it have short paths.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// startHost opens a host in process.
func startHost(t *testing.T, dir string) *Host {
	t.Helper()
	h, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Errorf("close the host: %v", err)
		}
	})
	return h
}

// openHost opens a host in process and a world that calls it directly.
func openHost(t *testing.T, dir string) (*Host, *world) {
	t.Helper()
	h := startHost(t, dir)
	return h, &world{
		t: t, ctx: testContext(t), dir: dir, session: h.Session(wmi.NamespaceVirtualization), cim: h.Session(wmi.NamespaceCIMv2),
		cluster: h.Session(wmi.NamespaceCluster), disks: h.Disks(), files: h.Files(),
	}
}

// connect makes a world that calls a host through its socket.
func connect(t *testing.T, dir string) (*client.Client, *world) {
	t.Helper()
	c := client.Dial(SocketPath(dir))
	t.Cleanup(func() { c.Close() })
	return c, &world{
		t: t, ctx: testContext(t), dir: dir, session: c.Session(wmi.NamespaceVirtualization), cim: c.Session(wmi.NamespaceCIMv2),
		cluster: c.Session(wmi.NamespaceCluster), disks: c.Disks(), files: c.Files(),
	}
}

// eachWay runs a test against a host in process and through its socket: both must behave the same.
func eachWay(t *testing.T, prepare func(t *testing.T, dir string), run func(t *testing.T, h *Host, w *world)) {
	t.Parallel()
	t.Run("in process", func(t *testing.T) {
		dir := tempDir(t)
		prepare(t, dir)
		h, w := openHost(t, dir)
		run(t, h, w)
	})
	t.Run("through the socket", func(t *testing.T) {
		dir := tempDir(t)
		prepare(t, dir)
		h := startHost(t, dir)
		serve(t, h)
		_, w := connect(t, dir)
		run(t, h, w)
	})
}

func serve(t *testing.T, h *Host) {
	t.Helper()
	l, err := h.Listen(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- h.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// tool runs a program of the machine. A machine without it skips the test and says so.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (packages qemu-utils and libnbd-bin)", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func createDisk(t *testing.T, path, size string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	tool(t, "qemu-img", "create", "-q", "-f", "vhdx", path, size)
}

// addVM makes a running VM with one disk of 64 MiB.
func addVM(t *testing.T, dir, name, more string) {
	t.Helper()
	createDisk(t, filepath.Join(dir, name, "system.vhdx"), "64M")
	write(t, filepath.Join(dir, name, "vm.yaml"), "state: running\ndisks:\n- path: system.vhdx\n"+more)
}

func (w *world) query(format string, args ...any) []wmi.Instance {
	w.t.Helper()
	out, err := w.session.Query(w.ctx, fmt.Sprintf(format, args...))
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) one(format string, args ...any) wmi.Instance {
	w.t.Helper()
	all := w.query(format, args...)
	if len(all) != 1 {
		w.t.Fatalf("%s returned %d instances", fmt.Sprintf(format, args...), len(all))
	}
	return all[0]
}

func (w *world) vm(name string) wmi.Instance {
	w.t.Helper()
	return w.one("SELECT * FROM Msvm_ComputerSystem WHERE ElementName = '%s'", name)
}

func (w *world) associated(path, association, class string) []wmi.Instance {
	w.t.Helper()
	out, err := w.session.Associators(w.ctx, path, association, class)
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

// invoke calls a method of a service.
func (w *world) invoke(class, method string, in wmi.Params) wmi.Result {
	w.t.Helper()
	result, err := w.session.Invoke(w.ctx, w.one("SELECT * FROM %s", class).Path, method, in)
	if err != nil {
		w.t.Fatalf("%s: %v", method, err)
	}
	return result
}

// job waits for the job of a call and returns it.
func (w *world) job(result wmi.Result) wmi.Instance {
	w.t.Helper()
	if result.ReturnValue != codeJobStarted {
		w.t.Fatalf("the call returned %d, not a job", result.ReturnValue)
	}
	path := result.Out["Job"].(string)
	var job wmi.Instance
	w.eventually("the job to end", func() bool {
		var err error
		if job, err = w.session.Get(w.ctx, path); err != nil {
			w.t.Fatal(err)
		}
		return job.Properties["JobState"] != int64(jobRunning)
	})
	return job
}

// done waits for a job that must succeed.
func (w *world) done(result wmi.Result) wmi.Instance {
	w.t.Helper()
	job := w.job(result)
	if job.Properties["JobState"] != int64(jobCompleted) {
		w.t.Fatalf("the job ended in state %v: %v", job.Properties["JobState"], job.Properties["ErrorDescription"])
	}
	return job
}

func (w *world) eventually(what string, condition func() bool) {
	w.t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-w.ctx.Done():
			w.t.Fatalf("waited in vain for %s", what)
		case <-ticker.C:
		}
	}
}

// checkpoint makes a recovery checkpoint and returns its settings object.
func (w *world) checkpoint(vm string, consistency int64) wmi.Instance {
	w.t.Helper()
	job := w.done(w.createSnapshot(vm, consistency))
	for _, s := range w.associated(job.Path, "Msvm_AffectedJobElement", "Msvm_VirtualSystemSettingData") {
		if s.Properties["VirtualSystemType"] == typeRecoverySnapshot {
			return s
		}
	}
	w.t.Fatal("the job made no recovery checkpoint")
	return wmi.Instance{}
}

func (w *world) createSnapshot(vm string, consistency int64) wmi.Result {
	w.t.Helper()
	return w.invoke("Msvm_VirtualSystemSnapshotService", "CreateSnapshot", wmi.Params{
		"AffectedSystem": w.vm(vm).Path, "SnapshotType": int64(snapshotRecovery),
		"SnapshotSettings": wmi.Object{Class: "Msvm_VirtualSystemSnapshotSettingData", Properties: map[string]any{
			"ConsistencyLevel": consistency, "IgnoreNonSnapshottableDisks": true, "GuestBackupType": int64(2),
		}},
	})
}

// convert turns a checkpoint into a reference point.
func (w *world) convert(snapshot wmi.Instance) wmi.Instance {
	w.t.Helper()
	job := w.done(w.invoke("Msvm_VirtualSystemSnapshotService", "ConvertToReferencePoint", wmi.Params{"AffectedSnapshot": snapshot.Path}))
	points := w.associated(job.Path, "Msvm_AffectedJobElement", "Msvm_VirtualSystemReferencePoint")
	if len(points) != 1 {
		w.t.Fatalf("the job made %d reference points", len(points))
	}
	return points[0]
}

func (w *world) destroy(snapshot wmi.Instance) {
	w.t.Helper()
	w.done(w.invoke("Msvm_VirtualSystemSnapshotService", "DestroySnapshot", wmi.Params{"AffectedSnapshot": snapshot.Path}))
}

// diskFiles returns the disk files of a settings object, by the order of their slots.
func (w *world) diskFiles(settings wmi.Instance) []string {
	w.t.Helper()
	var out []string
	for _, d := range w.associated(settings.Path, "Msvm_VirtualSystemSettingDataComponent", "Msvm_StorageAllocationSettingData") {
		out = append(out, d.Properties["HostResource"].([]string)...)
	}
	return out
}

// active is the settings object of a VM itself.
func (w *world) active(vm string) wmi.Instance {
	w.t.Helper()
	all := w.associated(w.vm(vm).Path, "Msvm_SettingsDefineState", "Msvm_VirtualSystemSettingData")
	if len(all) != 1 {
		w.t.Fatalf("%s has %d settings objects", vm, len(all))
	}
	return all[0]
}

func (w *world) merged(vm string) {
	w.t.Helper()
	w.eventually("the merge to end", func() bool {
		status := w.vm(vm).Properties["OperationalStatus"].([]int64)
		return len(status) == 1 && !strings.Contains(strings.Join(w.diskFiles(w.active(vm)), " "), ".avhdx")
	})
}

func (w *world) socket(vm, disk string) string {
	return "nbd+unix:///?socket=" + filepath.Join(w.dir, vm, disk+".nbd")
}

// guestWrites lets a real NBD client write a pattern, and the same into a raw shadow file.
func (w *world) guestWrites(vm, disk, shadow string, pattern byte, offset, length int64) {
	w.t.Helper()
	tool(w.t, "qemu-io", "-f", "raw", "-c", fmt.Sprintf("write -P %d %d %d", pattern, offset, length), "-c", "flush", w.socket(vm, disk))
	f, err := os.OpenFile(shadow, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(bytes.Repeat([]byte{pattern}, int(length)), offset)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func newShadow(t *testing.T, path string, size int64) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = f.Truncate(size)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}
