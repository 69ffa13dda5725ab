package hyperv

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// ReadPath is how the content of a frozen disk is reached.
type ReadPath string

// The read paths, in the order in which they are preferred.
const (
	// ReadFiles reads the VHDX files of the chain ourselves. Nothing is attached, and only what is allocated is read.
	ReadFiles ReadPath = "Files"
	// ReadHandle lets the host attach the disk for itself alone, and reads the handle.
	ReadHandle ReadPath = "Handle"
	// ReadDisk lets the host attach the disk as one of its own, which others see come and go.
	ReadDisk ReadPath = "Disk"
)

// ReadChoice says why a disk is read as it is.
type ReadChoice struct {
	Path ReadPath
	// Reason is one of the constants below; Message explains it.
	Reason, Message string
}

// Reasons of a ReadChoice.
const (
	// ChainClean: the files belong together, and nothing is left in a log.
	ChainClean = "ChainClean"
	// ChainLogged: a file was not closed in an orderly way. The host knows best what its log means.
	ChainLogged = "ChainLogged"
	// LogReplayed: as ChainLogged, but the host could not attach the disk; every entry of the log has passed its checksums.
	LogReplayed = "LogReplayed"
	// ChainUnreadable: we cannot read the files ourselves.
	ChainUnreadable = "ChainUnreadable"
)

// content is what a guest sees of a disk.
type content interface {
	io.ReaderAt
	Size() int64
	// Data streams the extents within window that may hold something else than zeros.
	Data(window extent.Extent) extent.Seq
}

// OpenDisk is the content of a frozen disk, open for reading. Both ways of reading may be used by several goroutines at once.
type OpenDisk struct {
	content
	// Choice says how it is read.
	Choice ReadChoice
	// PhysicalSectorSize of the disk, in bytes; zero when the host does not tell.
	PhysicalSectorSize int64

	members []*vhdx.File
	closers []io.Closer
}

// Members are the files of the chain, topmost first; none when we do not read them.
func (d *OpenDisk) Members() []*vhdx.File { return d.members }

// Close closes all files, and detaches what was attached. The disk cannot be read afterwards. A second call does nothing.
func (d *OpenDisk) Close() error {
	var errs []error
	for _, c := range d.closers {
		errs = append(errs, c.Close())
	}
	d.closers = nil
	return errors.Join(errs...)
}

// OpenDisk opens a frozen disk as the guest saw it, by the first read path that leads to what is certainly right. Our own reading of the files comes first; the
// host attaches what it alone can read. A disk of a shadow copy is always read from its files: no other may be looked at.
//
// The files of the chain are found by asking the host for the parent of each; what a file itself says about its parent is only compared. ErrPath when the chain
// leaves the host's fixed volumes, loops or is too deep; vhdx.ErrCorrupt and its kin when the files do not belong together, and the host cannot attach them
// either.
func (h *Host) OpenDisk(ctx context.Context, d FrozenDisk) (*OpenDisk, error) {
	chain, err := h.chainOf(ctx, d)
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", d.Key, err)
	}
	files, err := h.openFiles(ctx, chain)
	attachable := h.attacher != nil && len(d.Chain) == 0
	switch {
	case err == nil && (files.Choice.Reason == ChainClean || !attachable):
		return files, nil
	case err == nil:
		return h.preferAttached(ctx, d, files)
	case !attachable, unreachable(ctx, err):
		return nil, fmt.Errorf("open disk %s: %w", d.Key, err)
	}
	why := ReadChoice{Reason: ChainUnreadable, Message: fmt.Sprintf("the files of the disk cannot be read as they are (%v)", err)}
	open, attachErr := h.attachAnyway(ctx, d, why)
	if attachErr != nil {
		return nil, fmt.Errorf("open disk %s: %w", d.Key, errors.Join(err, attachErr))
	}
	return open, nil
}

// OpenFiles is OpenDisk by the path ReadFiles alone, for who compares the paths.
func (h *Host) OpenFiles(ctx context.Context, d FrozenDisk) (*OpenDisk, error) {
	chain, err := h.chainOf(ctx, d)
	var files *OpenDisk
	if err == nil {
		files, err = h.openFiles(ctx, chain)
	}
	if err != nil {
		return nil, fmt.Errorf("open disk %s: %w", d.Key, err)
	}
	return files, nil
}

// chainOf lists the files of a frozen disk, topmost first.
func (h *Host) chainOf(ctx context.Context, d FrozenDisk) ([]string, error) {
	if len(d.Chain) > 0 {
		return d.Chain, nil
	}
	return h.chain(ctx, d.Path)
}

// unreachable says that the host could not be asked, so that another way would tell nothing either.
func unreachable(ctx context.Context, err error) bool {
	return ctx.Err() != nil || errors.Is(err, wmi.ErrDisconnected) || errors.Is(err, virtdisk.ErrDisconnected) || errors.Is(err, ErrPath)
}

// openFiles opens the members of a chain, topmost first, and checks that they belong together.
func (h *Host) openFiles(ctx context.Context, chain []string) (*OpenDisk, error) {
	open := &OpenDisk{Choice: ReadChoice{ReadFiles, ChainClean, "the disk's files belong together and their logs are empty"}}
	for _, path := range chain {
		member, err := h.openMember(ctx, open, path)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", path, err), open.Close())
		}
		if member.HasDirtyLog() {
			open.Choice = ReadChoice{ReadFiles, LogReplayed, "the log of " + path + " has changes that are not in the file; its checksums are right, and it was replayed in memory"}
		}
		open.members = append(open.members, member)
	}
	disk, err := vhdx.NewDisk(open.members...)
	if err != nil {
		return nil, errors.Join(err, open.Close())
	}
	open.content, open.PhysicalSectorSize = disk, open.members[0].PhysicalSectorSize()
	return open, nil
}

func (h *Host) openMember(ctx context.Context, open *OpenDisk, path string) (*vhdx.File, error) {
	file, err := h.files.Open(ctx, path)
	if err != nil {
		return nil, err
	}
	open.closers = append(open.closers, file)
	size, err := file.Size()
	if err != nil {
		return nil, err
	}
	return vhdx.Open(file, size)
}

// preferAttached lets the host read what has changes in a log, and asks our own reading of the files what is allocated. When the host cannot, that reading is right,
// too.
func (h *Host) preferAttached(ctx context.Context, d FrozenDisk, files *OpenDisk) (*OpenDisk, error) {
	attached, err := h.attachDisk(ctx, d, virtdisk.ByHandle)
	if err != nil {
		files.Choice.Message += fmt.Sprintf(", because the host cannot attach the disk: %v", err)
		return files, nil
	}
	return &OpenDisk{
		content: mapped{attached, files.content}, PhysicalSectorSize: files.PhysicalSectorSize, closers: append(files.closers, attached),
		Choice: ReadChoice{ReadHandle, ChainLogged, "a log of the disk's files has changes that are not in the file, which the host takes into account"},
	}, nil
}

// attachAnyway lets the host attach what we cannot read, for itself alone if it can. All of the disk is data then.
func (h *Host) attachAnyway(ctx context.Context, d FrozenDisk, why ReadChoice) (*OpenDisk, error) {
	info, err := h.disks.Info(ctx, d.Path)
	if err != nil {
		return nil, err
	}
	open := &OpenDisk{Choice: why, PhysicalSectorSize: info.PhysicalSectorSize}
	open.Choice.Path = ReadHandle
	attached, err := h.attachDisk(ctx, d, virtdisk.ByHandle)
	if err != nil {
		if unreachable(ctx, err) {
			return nil, err
		}
		open.Choice.Path = ReadDisk
		open.Choice.Message += fmt.Sprintf("; nor by a handle of the disk (%v)", err)
		var again error
		if attached, again = h.attachDisk(ctx, d, virtdisk.AsDisk); again != nil {
			return nil, errors.Join(err, again)
		}
	}
	open.content, open.closers = mapped{attached, allOf{attached}}, []io.Closer{attached}
	return open, nil
}

// attachDisk attaches a disk and compares its size, the one thing about its content that is known.
func (h *Host) attachDisk(ctx context.Context, d FrozenDisk, way virtdisk.Way) (virtdisk.Content, error) {
	attached, err := h.attacher.Attach(ctx, d.Path, way)
	if err != nil {
		return nil, err
	}
	if attached.Size() != d.VirtualSize {
		return nil, errors.Join(fmt.Errorf("%w: attached, %s has %d bytes, not %d", ErrDiskMismatch, d.Path, attached.Size(), d.VirtualSize), attached.Close())
	}
	return attached, nil
}

// mapped reads an attached disk, of which something else knows what is allocated.
type mapped struct {
	virtdisk.Content
	allocation interface {
		Data(window extent.Extent) extent.Seq
	}
}

// Data implements content.
func (m mapped) Data(window extent.Extent) extent.Seq { return m.allocation.Data(window) }

// allOf is the allocation of a disk about which nothing is known.
type allOf struct{ virtdisk.Content }

// Data is all of the window that lies on the disk.
func (a allOf) Data(window extent.Extent) extent.Seq {
	return extent.Of(window.Clip(extent.Extent{Length: a.Size()}))
}
