// Package virtdisktest has the tests that every implementation of virtdisk.Service and virtdisk.Attacher passes, and the disks that they are run on.
package virtdisktest

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// Fixture is what there is on the host: a running VM whose disk stands on another, was frozen twice, and was written since. It can be sent to another process as JSON.
type Fixture struct {
	// Frozen is the file of the second checkpoint, which stands on Base. Live is what the VM writes.
	Frozen, Base, Live string
	// DiskID is the virtual disk id of all three.
	DiskID string
	// RCTID is the tracking id of the first checkpoint, and Changed what the guest wrote between the two.
	RCTID   string
	Changed []extent.Extent
	// Content is what the guest had written when the disk was frozen for the second time; the rest of the Size bytes is zeros.
	Size    int64
	Content []Write
	// NoDisk is a file that is no virtual disk.
	NoDisk string
}

// Write is a run of one byte.
type Write struct {
	extent.Extent
	Byte byte
}

const (
	vmID     = "33333333-3333-4333-8333-333333333333"
	vmFolder = "disks"
	diskFile = "system.vhdx"
	baseFile = "base.vhdx"
	diskSize = 24 << 20
	unit     = 64 << 10 // of the emulated change tracking
)

// Guest writes, durably, to a disk that is served over NBD at a socket.
type Guest func(socket string, p []byte, offset int64) error

// Layout writes the VM of the fixture into the folder of an emulated host, which is not open yet.
func Layout(tb testing.TB, dir string) {
	tb.Helper()
	folder := filepath.Join(dir, vmFolder)
	text := "id: " + vmID + "\nname: disks\nstate: running\ndisks:\n- path: " + diskFile + "\n"
	err := os.MkdirAll(folder, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(folder, "vm.yaml"), []byte(text), 0o644)
	}
	if err != nil {
		tb.Fatal(err)
	}
	if err := layDisks(folder); err != nil {
		tb.Fatal(err)
	}
}

// layDisks makes an empty disk that stands on another.
func layDisks(folder string) error {
	whole := vhdx.Options{VirtualSize: diskSize, BlockSize: 1 << 20}
	base, err := create(filepath.Join(folder, baseFile), whole)
	if err != nil {
		return err
	}
	child := whole
	child.VirtualDiskID = base.VirtualDiskID
	child.Parent = &vhdx.ParentRef{DataWriteID: base.DataWriteID, RelativePath: `.\` + baseFile}
	_, err = create(filepath.Join(folder, diskFile), child)
	return err
}

func create(path string, o vhdx.Options) (vhdx.Info, error) {
	f, err := os.Create(path)
	if err != nil {
		return vhdx.Info{}, err
	}
	defer f.Close() //nolint:errcheck // vhdx.Create has made it durable
	size, err := vhdx.Create(f, o)
	if err != nil {
		return vhdx.Info{}, err
	}
	made, err := vhdx.Open(f, size)
	if err != nil {
		return vhdx.Info{}, err
	}
	return made.Info(), nil
}

// NewFixture makes the checkpoints of the fixture on a host over dir.
func NewFixture(tb testing.TB, dir string, host *emulator.Host, clock wmi.Clock, guest Guest) Fixture {
	tb.Helper()
	b := builder{TB: tb, clock: clock, hypervisor: hyperv.New(hyperv.Seams{
		Virtualization: host.Session(wmi.NamespaceVirtualization), CIM: host.Session(wmi.NamespaceCIMv2), Cluster: host.Session(wmi.NamespaceCluster),
		Disks: host.Disks(), Files: host.Files(), Clock: clock,
	})}
	b.write = func(w Write) {
		b.Helper()
		if err := guest(filepath.Join(dir, vmFolder, diskFile+".nbd"), bytes.Repeat([]byte{w.Byte}, int(w.Length)), w.Offset); err != nil {
			b.Fatal(err)
		}
	}
	return b.build()
}

type builder struct {
	testing.TB
	hypervisor *hyperv.Host
	clock      wmi.Clock
	write      func(Write)
}

func (b builder) build() Fixture {
	b.Helper()
	path := `D:\VMs\` + vmFolder + `\` + diskFile
	if err := b.hypervisor.EnableTracking(b.Context(), path); err != nil {
		b.Fatal(err)
	}
	f := Fixture{NoDisk: `D:\VMs\` + vmFolder + `\vm.yaml`, Size: diskSize}
	first := Write{extent.Extent{Offset: unit, Length: 4 * unit}, 1}
	b.write(first)
	f.Content = append(f.Content, first)
	checkpoint, disks := b.freeze("first")
	point, err := b.hypervisor.Convert(b.Context(), checkpoint, disks)
	if err != nil {
		b.Fatal(err)
	}
	for state := (hyperv.ReleaseState{}); !state.Done; {
		if state, err = b.hypervisor.Released(b.Context(), checkpoint, disks); err != nil {
			b.Fatal(err)
		}
		<-b.clock.After(time.Second)
	}
	f.RCTID, f.DiskID, f.Base = point.Disks[0].RCTID, disks[0].DiskID, strings.Replace(path, diskFile, baseFile, 1)
	for i := range int64(20) { // every other unit, so that none can be joined
		w := Write{extent.Extent{Offset: (2 + 2*i) * unit * 4, Length: unit}, byte(2 + i)}
		b.write(w)
		f.Content, f.Changed = append(f.Content, w), append(f.Changed, w.Extent)
	}
	_, disks = b.freeze("second")
	f.Frozen, f.Live = disks[0].Path, disks[0].LivePath
	b.write(Write{extent.Extent{Offset: 0, Length: diskSize / 2}, 99})
	return f
}

func (b builder) freeze(tag string) (hyperv.Checkpoint, []hyperv.FrozenDisk) {
	b.Helper()
	intent, err := b.hypervisor.PrepareCheckpoint(b.Context(), vmID, hyperv.Crash)
	var checkpoint hyperv.Checkpoint
	if err == nil {
		checkpoint, err = b.hypervisor.Checkpoint(b.Context(), hyperv.CheckpointRequest{VMID: vmID, Tag: tag, Level: hyperv.Crash, Intent: intent})
	}
	if err != nil {
		b.Fatal(err)
	}
	disks, _, err := b.hypervisor.Disks(b.Context(), checkpoint)
	if err != nil || len(disks) != 1 {
		b.Fatalf("%d disks are frozen, %v", len(disks), err)
	}
	return checkpoint, disks
}

// content is what a reader of the frozen disk must see.
func (f Fixture) content() []byte {
	all := make([]byte, f.Size)
	for _, w := range f.Content {
		copy(all[w.Offset:w.End()], bytes.Repeat([]byte{w.Byte}, int(w.Length)))
	}
	return all
}
