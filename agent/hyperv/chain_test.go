package hyperv_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// parentedDisks says of some files that their parent is another.
type parentedDisks struct {
	virtdisk.Service
	parent func(path string) (string, bool)
}

func (p parentedDisks) Info(ctx context.Context, path string) (virtdisk.Info, error) {
	if parent, known := p.parent(path); known {
		return virtdisk.Info{ParentPath: parent}, nil
	}
	return p.Service.Info(ctx, path)
}

// A disk names its parent. Where that leads is checked before anything is opened: only files on the host itself are read (NW-16).
func TestOpenDiskFollowsNoChainOutOfTheHost(t *testing.T) {
	tests := map[string]func(path string) (string, bool){
		"a parent on a file server":          func(string) (string, bool) { return `\\evil\share\a.vhdx`, true },
		"a parent that is no disk":           func(string) (string, bool) { return `C:\Windows\System32\config\SAM`, true },
		"a parent that climbs":               func(string) (string, bool) { return `D:\VMs\crm\..\web\a.vhdx`, true },
		"a parent on a volume of its own":    func(string) (string, bool) { return `Z:\a.vhdx`, true },
		"a chain that comes back":            func(path string) (string, bool) { return path, true },
		"a chain that comes back in capital": func(string) (string, bool) { return `D:\VMS\CRM\DATA.VHDX`, true },
		"a chain without end":                func(path string) (string, bool) { return fmt.Sprintf(`D:\%d.vhdx`, len(path)) + path[2:], true },
	}
	for name, parent := range tests {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM())
			h := hyperv.New(hyperv.Seams{
				CIM: l.host.Session(wmi.NamespaceCIMv2), Files: l.host.Files(), Disks: parentedDisks{l.host.Disks(), parent},
			})
			_, err := h.OpenDisk(t.Context(), hyperv.FrozenDisk{Key: "SCSI-0-1", Path: `D:\VMs\crm\data.vhdx`})
			l.Expect(err).To(MatchError(hyperv.ErrPath))
		})
	}
}

func TestOpenDiskRefusesWhatIsNotADisk(t *testing.T) {
	l := newLab(t, oneVM())
	l.Expect(os.WriteFile(filepath.Join(l.dir, "crm", "torn.vhdx"), make([]byte, 4096), 0o644)).To(Succeed())
	_, err := l.OpenDisk(t.Context(), hyperv.FrozenDisk{Path: `D:\VMs\crm\torn.vhdx`})
	l.Expect(err).To(MatchError(virtdisk.ErrNotVirtualDisk))
	_, err = l.OpenDisk(t.Context(), hyperv.FrozenDisk{Path: `D:\VMs\crm\none.vhdx`})
	l.Expect(err).To(MatchError(virtdisk.ErrFileNotFound))
}

// The host's word finds the parent; the disk's own word must agree.
func TestOpenDiskRefusesAParentThatIsNotTheDisksOwn(t *testing.T) {
	l := newLab(t, oneVM())
	l.snapshot(2)
	frozen := l.frozen(l.mustCheckpoint("task-1", hyperv.Crash))
	h := hyperv.New(hyperv.Seams{
		CIM: l.host.Session(wmi.NamespaceCIMv2), Files: l.host.Files(),
		Disks: parentedDisks{l.host.Disks(), func(path string) (string, bool) { return frozen[0].Path, path == frozen[1].Path }},
	})
	_, err := h.OpenDisk(t.Context(), frozen[1])
	l.Expect(err).To(MatchError(vhdx.ErrParentMismatch))
}

func TestFreeSpaceOfAVolume(t *testing.T) {
	l := newLab(t, machines{"host.yaml": "volumes: {E: {sizeBytes: 1073741824}}\n"})
	space, err := l.Space(t.Context(), `E:\not\there\yet`)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(space.Volume).To(Equal(`E:\`))
	l.Expect(space.Free).To(And(BeNumerically(">", 0), BeNumerically("<=", 1<<30)))
}
