package emulator

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
)

// attachedFolder holds, in privateFolder, the raw content of what is attached. A HANDLE of virtdisk.dll is a HANDLE of a file there.
const attachedFolder = "attached"

// physicalDrives is how many disks can be attached AsDisk at once. \\.\PhysicalDrive0 is the host's own.
const physicalDrives = 16

// DiskAccess is what a virtual disk is opened for (OPEN_VIRTUAL_DISK_PARAMETERS version 2).
type DiskAccess int

// The kinds of access.
const (
	DiskInfo  DiskAccess = iota // GetInfoOnly
	DiskRead                    // ReadOnly
	DiskWrite                   // neither
)

// diskHandles are the virtual disks that are open.
type diskHandles struct {
	mu   sync.Mutex
	last uint64
	open map[uint64]*DiskHandle
}

// DiskHandle is an open virtual disk. It stays open until Close, or until its file, if it has one, is deleted: that is how the end of a process shows that
// had it open under Wine.
type DiskHandle struct {
	host   *Host
	number uint64
	path   string
	access DiskAccess

	// Guarded by diskHandles.mu.
	placed   bool
	attached virtdisk.Way // "" when it is not
	drive    int          // the number of the disk of an attached one AsDisk
	chain    chain        // of an attached one
}

// OpenVirtualDisk opens a disk file. A data open of the file that a running VM writes is a sharing violation.
func (h *Host) OpenVirtualDisk(ctx context.Context, path string, access DiskAccess) (*DiskHandle, error) {
	if err := h.faults.disk("OpenVirtualDisk"); err != nil {
		return nil, err
	}
	m, err := (diskService{h}).open(ctx, path)
	if err != nil {
		return nil, err
	}
	if err := m.close(); err != nil {
		return nil, err
	}
	if h.held(path, access) {
		return nil, &virtdisk.Error{Function: "OpenVirtualDisk", Code: virtdisk.CodeSharingViolation}
	}
	t := &h.handles
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last++
	d := &DiskHandle{host: h, number: t.last, path: path, access: access}
	t.open[d.number] = d
	return d, nil
}

// held says whether a running VM keeps others from opening the file that it writes. Whether Windows lets them open it for writing, to switch change tracking on,
// is not documented.
func (h *Host) held(path string, access DiskAccess) bool {
	use, ok := h.use(path)
	if !ok || !use.leaf {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return use.vm.running && (access == DiskRead || access == DiskWrite && use.vm.has(troubleLiveFilesHeld))
}

// DiskHandles lists the paths of the virtual disks that are open now, in order, each as often as it is open.
func (h *Host) DiskHandles() []string {
	t := &h.handles
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep()
	var out []string
	for _, d := range t.open {
		out = append(out, d.path)
	}
	slices.Sort(out)
	return out
}

// DiskHandle finds an open one by the name of its file.
func (h *Host) DiskHandle(name string) (*DiskHandle, error) {
	number, err := strconv.ParseUint(name, 10, 64)
	t := &h.handles
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep()
	if d := t.open[number]; err == nil && d != nil && d.placed {
		return d, nil
	}
	return nil, &virtdisk.Error{Function: "CloseHandle", Code: virtdisk.CodeInvalidHandle}
}

// start forgets what a killed emulator had open.
func (t *diskHandles) start(dir string) error {
	t.open = make(map[uint64]*DiskHandle)
	return os.RemoveAll(filepath.Join(dir, privateFolder, attachedFolder))
}

// stop closes what is still open.
func (t *diskHandles) stop() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var errs []error
	for _, d := range t.open {
		errs = append(errs, d.close())
	}
	return errors.Join(errs...)
}

// sweep closes the handles whose files are gone. The caller holds mu.
func (t *diskHandles) sweep() {
	for _, d := range t.open {
		if !d.placed {
			continue
		}
		if _, err := os.Stat(d.file()); errors.Is(err, fs.ErrNotExist) {
			_ = d.close() // as the end of its process does
		}
	}
}

// file is where the handle's own file lies.
func (d *DiskHandle) file() string {
	return filepath.Join(d.host.dir, privateFolder, attachedFolder, strconv.FormatUint(d.number, 10))
}

// Place gives the handle a file, through which another process holds it, and returns its Windows path. The file is empty until the disk is attached.
func (d *DiskHandle) Place() (string, error) {
	t := &d.host.handles
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := os.MkdirAll(filepath.Dir(d.file()), 0o755); err != nil {
		return "", err
	}
	f, err := os.OpenFile(d.file(), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return "", err
	}
	d.placed = true
	return windowsAttached(filepath.Base(d.file())), f.Close()
}

// windowsAttached is the Windows path of a file in attachedFolder.
func windowsAttached(name string) string {
	return strings.Join([]string{vmVolume, privateFolder, attachedFolder, name}, `\`)
}

// Close gives up the handle, and detaches what it had attached. A second call does nothing.
func (d *DiskHandle) Close() error {
	t := &d.host.handles
	t.mu.Lock()
	defer t.mu.Unlock()
	return d.close()
}

// close does what Close does for a caller that holds mu.
func (d *DiskHandle) close() error {
	if d.host.handles.open[d.number] != d {
		return nil
	}
	delete(d.host.handles.open, d.number)
	err := d.detach()
	if d.placed {
		if gone := os.Remove(d.file()); !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	return err
}

// Information is what GetVirtualDiskInformation tells.
func (d *DiskHandle) Information(ctx context.Context) (virtdisk.Info, error) {
	if err := d.host.faults.disk("GetVirtualDiskInformation"); err != nil {
		return virtdisk.Info{}, err
	}
	return diskService{d.host}.info(ctx, d.path)
}

// EnableChangeTracking is SetVirtualDiskInformation with version 6.
func (d *DiskHandle) EnableChangeTracking(ctx context.Context) error {
	const function = "SetVirtualDiskInformation"
	if err := d.host.faults.disk(function); err != nil {
		return err
	}
	if d.access != DiskWrite {
		return &virtdisk.Error{Function: function, Code: virtdisk.CodeAccessDenied}
	}
	return diskService{d.host}.track(ctx, d.path)
}

// QueryChanges is QueryChangesVirtualDisk with room for at most n ranges. The fault virtdisk.CodeMoreData comes with an answer, as the real one may.
func (d *DiskHandle) QueryChanges(ctx context.Context, id string, window extent.Extent, n int) ([]extent.Extent, int64, error) {
	fault := d.host.faults.disk("QueryChangesVirtualDisk")
	if fault != nil && virtdisk.Code(fault) != virtdisk.CodeMoreData {
		return nil, 0, fault
	}
	changed, processed, err := diskService{d.host}.changes(ctx, d.path, id, window, d.host.faults.changes(n))
	return changed, processed, errors.Join(err, fault)
}
