package emulator

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gofrs/flock"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/schema"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// scanInterval is how often the folder is looked at for what people changed. Every query looks too.
const scanInterval = time.Second

// ErrInUse means that another emulator serves the folder.
var ErrInUse = errors.New("another emulator serves this folder")

// Options of a Host. The zero value is fine.
type Options struct {
	// Log gets what happens behind the calls, such as a merge that failed. Default: nothing is logged.
	Log *slog.Logger
	// Now is the host's clock, for the times that objects carry. Default time.Now.
	Now func() time.Time
}

// Host is an emulated Hyper-V host over a folder. It is safe for concurrent use.
type Host struct {
	dir    string
	config hostConfig
	files  *hostfs.Local
	schema *schema.Schema
	log    *slog.Logger
	now    func() time.Time
	lock   *flock.Flock
	jobs   *jobTable
	faults *Faults
	usage  Usage
	vss    shadowService

	handles diskHandles

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	scanning sync.Mutex // one scan of the folder at a time

	// mu guards the VMs and their records. It is held for moments, never during I/O on disks.
	mu       sync.Mutex
	closed   bool
	vms      map[string]*vm  // by folder
	services map[string]bool // Windows services that run, by name
	disabled map[string]bool // those that cannot be started
	booted   time.Time
	quiesced int
	// truncated counts how often their applications truncated their logs.
	truncated int
	cluster   *cluster // nil outside of failover clusters; used by the scan
}

// Open starts the host over dir: VMs whose vm.yaml says running run when it returns. ErrInUse when another emulator does so already.
func Open(dir string, o Options) (*Host, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("open the emulated host: %w", err)
	}
	h := &Host{dir: dir, log: o.Log, now: o.Now, vms: make(map[string]*vm)}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	if h.now == nil {
		h.now = time.Now
	}
	if err := h.open(); err != nil {
		return nil, fmt.Errorf("open the emulated host in %s: %w", dir, err)
	}
	h.run(h.watch)
	return h, nil
}

func (h *Host) open() (err error) {
	if h.config, err = loadHostConfig(h.dir); err != nil {
		return err
	}
	all, err := schema.Load()
	if err != nil {
		return err
	}
	h.schema = all.At(h.config.build())
	if err := os.MkdirAll(filepath.Join(h.dir, privateFolder), 0o755); err != nil {
		return err
	}
	folders := h.config.letters()
	for folder := range h.config.Mounts {
		folders = append(folders, mountFolder(folder))
	}
	for _, folder := range folders {
		if err := os.MkdirAll(filepath.Join(h.dir, volumesFolder, folder), 0o755); err != nil {
			return err
		}
	}
	h.lock = flock.New(filepath.Join(h.dir, privateFolder, "lock"))
	if locked, err := h.lock.TryLock(); err != nil || !locked {
		return errors.Join(ErrInUse, err)
	}
	if h.files, err = hostfs.NewLocal(h.config.mapping(h.dir)); err != nil {
		return errors.Join(err, h.lock.Unlock())
	}
	if err := h.joinCluster(); err != nil {
		return errors.Join(err, h.files.Close(), h.lock.Unlock())
	}
	if err := h.handles.start(h.dir); err != nil {
		return errors.Join(err, h.files.Close(), h.lock.Unlock())
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	h.booted = h.now()
	h.services = map[string]bool{"vmms": true, "VSS": false, "Winmgmt": true}
	h.disabled = map[string]bool{}
	if h.config.FailoverClustering || h.cluster != nil {
		h.services[clusterService], h.disabled[clusterService] = h.cluster != nil, h.cluster == nil
	}
	h.faults = newFaults(h)
	h.jobs = newJobTable(h)
	if err := errors.Join(h.vss.open(h), h.loadPlanned()); err != nil {
		return errors.Join(err, h.files.Close(), h.lock.Unlock())
	}
	h.scan()
	return nil
}

// Close stops the guests' disks and everything that runs, and leaves the folder as it is: the next Open goes on from there. A second
// call does nothing.
func (h *Host) Close() error {
	h.mu.Lock()
	again := h.closed
	h.closed = true
	h.mu.Unlock()
	if again {
		return nil
	}
	h.cancel()
	h.wg.Wait()
	h.scanning.Lock()
	defer h.scanning.Unlock()
	var errs []error
	for _, v := range h.allVMs() {
		v.op.Lock()
		errs = append(errs, v.stop())
		v.op.Unlock()
	}
	return errors.Join(append(errs, h.handles.stop(), h.cluster.leave(), h.files.Close(), h.lock.Unlock())...)
}

// Session connects to a WMI namespace. wmi.ErrInvalidNamespace is told by its calls.
func (h *Host) Session(namespace string) wmi.Session { return &session{host: h, namespace: namespace} }

// Attacher shows the content of the host's disks.
func (h *Host) Attacher() virtdisk.Attacher { return diskService{h} }

// Disks is the host's virtual-disk service.
func (h *Host) Disks() virtdisk.Service { return diskService{h} }

// Files is the host's volumes.
func (h *Host) Files() hostfs.FS { return h.files }

// Mapping says where the volumes lie, for a client that reaches the files itself.
func (h *Host) Mapping() hostfs.Mapping { return h.files.Mapping() }

// Schema is the classes of the host.
func (h *Host) Schema() *schema.Schema { return h.schema }

// Usage counts what is done with the host.
func (h *Host) Usage() *Usage { return &h.usage }

// Faults makes calls fail on purpose.
func (h *Host) Faults() *Faults { return h.faults }

// QuiesceCalls counts how often a guest was asked to quiesce.
func (h *Host) QuiesceCalls() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.quiesced
}

// LogTruncations counts how often the applications in a guest truncated their logs.
func (h *Host) LogTruncations() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.truncated
}

// run starts work that Close waits for, unless the host is closing.
func (h *Host) run(work func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.wg.Go(work)
	return true
}

func (h *Host) watch() {
	ticker := time.NewTicker(scanInterval)
	defer ticker.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-ticker.C:
			h.scan()
			h.jobs.expire()
		}
	}
}

// scan takes up what people changed in the folder. A VM with an operation under way is looked at the next time.
func (h *Host) scan() {
	h.scanning.Lock()
	defer h.scanning.Unlock()
	if h.ctx.Err() != nil {
		return
	}
	entries, err := os.ReadDir(h.dir)
	if err != nil {
		h.log.Error("cannot list the VMs", "error", err)
		return
	}
	found := make(map[string]bool)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if _, err := os.Lstat(filepath.Join(h.dir, e.Name(), "vm.yaml")); !errors.Is(err, fs.ErrNotExist) && err == nil {
			found[e.Name()] = true
			h.refresh(e.Name())
		}
	}
	if h.cluster != nil {
		mine, err := h.cluster.take(h.config.Name)
		if err != nil {
			h.log.Error("cannot list the cluster's VMs", "error", err)
			return
		}
		for _, folder := range mine {
			found[folder] = true
			h.refresh(folder)
		}
	}
	for _, v := range h.allVMs() {
		if !v.planned && !found[v.folder] && v.op.TryLock() {
			h.drop(v)
			v.op.Unlock()
		}
	}
}

// drop is forget for a VM that another node may be waiting for: it goes when nothing uses its files any more. The caller holds v.op.
func (h *Host) drop(v *vm) {
	folder, clustered := strings.CutPrefix(v.folder, sharedPrefix)
	if !clustered {
		h.forget(v)
		return
	}
	h.mu.Lock()
	v.leaving = true
	busy := v.merging || v.busy != opNone
	h.mu.Unlock()
	if busy {
		return
	}
	h.forget(v)
	if err := h.cluster.letGo(folder); err != nil {
		h.log.Warn("let a clustered VM go", "vm", v.folder, "error", err)
	}
}

func (h *Host) refresh(folder string) {
	h.mu.Lock()
	v := h.vms[folder]
	if v == nil {
		v = &vm{host: h, folder: folder, dir: h.folderOf(folder), problem: errors.New("vm.yaml was not read yet")}
		h.vms[folder] = v
	}
	h.mu.Unlock()
	if v.op.TryLock() {
		h.mu.Lock()
		v.leaving = false // if it was, it is to stay after all
		h.mu.Unlock()
		v.refresh(h.ctx)
		v.op.Unlock()
	}
}

// folderOf is the local folder of a VM by its key.
func (h *Host) folderOf(key string) string {
	if folder, clustered := strings.CutPrefix(key, sharedPrefix); clustered {
		return filepath.Join(h.cluster.dir, folder)
	}
	return filepath.Join(h.dir, key)
}

// forget drops a VM whose folder, or vm.yaml, is gone. The caller holds v.op.
func (h *Host) forget(v *vm) {
	h.mu.Lock()
	delete(h.vms, v.folder)
	h.mu.Unlock()
	v.gone = true
	if err := v.stop(); err != nil {
		h.log.Warn("a VM was removed", "vm", v.folder, "error", err)
	}
}

// allVMs lists the VMs in order of their folders.
func (h *Host) allVMs() []*vm {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sortedVMs()
}

// sortedVMs is allVMs for a caller that holds h.mu.
func (h *Host) sortedVMs() []*vm {
	out := make([]*vm, 0, len(h.vms))
	for _, v := range h.vms {
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b *vm) int { return strings.Compare(a.folder, b.folder) })
	return out
}
