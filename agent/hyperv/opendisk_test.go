package hyperv_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// lostTable moves the first sector of a disk's block allocation table from its place into the log, as a host leaves a file that it did not close ([MS-VHDX]
// 2.3). Whoever ignores the log reads zeros.
func (l *lab) lostTable(path string) {
	l.Helper()
	const logAt, tableAt, sector = 1 << 20, 3 << 20, 4096 // where vhdx.Create lays them
	le, id := binary.LittleEndian, bytes.Repeat([]byte{0xAB}, 16)
	seal := func(b []byte) {
		clear(b[4:8])
		le.PutUint32(b[4:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	}
	file, err := os.ReadFile(path)
	l.Expect(err).NotTo(HaveOccurred())
	table := bytes.Clone(file[tableAt : tableAt+sector])
	clear(file[tableAt : tableAt+sector])
	entry := file[logAt : logAt+2*sector]
	clear(entry)
	copy(entry, "loge")
	le.PutUint32(entry[8:], 2*sector)
	le.PutUint64(entry[16:], 1) // sequence number
	le.PutUint32(entry[24:], 1) // descriptors
	copy(entry[32:], id)
	le.PutUint64(entry[48:], uint64(len(file))) // flushed size
	le.PutUint64(entry[56:], uint64(len(file))) // last size
	copy(entry[64:], "desc")
	copy(entry[68:72], table[4092:])
	copy(entry[72:80], table[:8])
	le.PutUint64(entry[80:], tableAt)
	le.PutUint64(entry[88:], 1)
	copy(entry[sector:], "data")
	copy(entry[sector+8:sector+4092], table[8:4092])
	le.PutUint32(entry[sector+4092:], 1)
	seal(entry)
	for _, at := range []int{64 << 10, 128 << 10} {
		copy(file[at+48:], id)
		seal(file[at : at+sector])
	}
	l.Expect(os.WriteFile(path, file, 0o644)).To(Succeed())
}

// deniedFiles are files of a host that nobody may open.
type deniedFiles struct{ hostfs.FS }

func (deniedFiles) Open(context.Context, string) (hostfs.File, error) { return nil, fs.ErrPermission }

// shrunk attaches disks that are smaller than they should be.
type shrunk struct{ virtdisk.Attacher }

func (s shrunk) Attach(ctx context.Context, path string, way virtdisk.Way) (virtdisk.Content, error) {
	c, err := s.Attacher.Attach(ctx, path, way)
	return shrunkContent{c}, err
}

type shrunkContent struct{ virtdisk.Content }

func (shrunkContent) Size() int64 { return diskSize - 512 }

func TestReadPathOfAFrozenDisk(t *testing.T) {
	const attach = "AttachVirtualDisk"
	fault := func(l *lab, codes ...uint32) {
		for _, code := range codes {
			l.host.Faults().FailNext(emulator.Fault{Method: attach, ReturnValue: code})
		}
	}
	first := extent.List{{Offset: 0, Length: mib}} // all that lab.makeDisk fills
	whole := extent.List{{Offset: 0, Length: diskSize}}
	for name, c := range map[string]struct {
		disk    func(l *lab, path string)
		seams   func(l *lab, s *hyperv.Seams)
		path    hyperv.ReadPath
		reason  string
		message string
		data    extent.List
		err     error
	}{
		"whole files are read as they are": {
			path: hyperv.ReadFiles, reason: hyperv.ChainClean, data: first,
		},
		"what is in a log is the host's to know, and the tables say what is allocated": {
			disk: (*lab).lostTable,
			path: hyperv.ReadHandle, reason: hyperv.ChainLogged, data: first,
		},
		"a log that the host cannot read is replayed in memory": {
			disk:  (*lab).lostTable,
			seams: func(l *lab, _ *hyperv.Seams) { fault(l, virtdisk.CodeLimitation) },
			path:  hyperv.ReadFiles, reason: hyperv.LogReplayed, message: "error 665", data: first,
		},
		"a log is replayed in memory where nothing can be attached": {
			disk:  (*lab).lostTable,
			seams: func(_ *lab, s *hyperv.Seams) { s.Attacher = nil },
			path:  hyperv.ReadFiles, reason: hyperv.LogReplayed, message: "dirty.vhdx", data: first,
		},
		"files that may not be read are attached": {
			seams: func(_ *lab, s *hyperv.Seams) { s.Files = deniedFiles{s.Files} },
			path:  hyperv.ReadHandle, reason: hyperv.ChainUnreadable, message: "permission denied", data: whole,
		},
		"what has no handle to read is attached as a disk": {
			seams: func(l *lab, s *hyperv.Seams) {
				s.Files = deniedFiles{s.Files}
				fault(l, virtdisk.CodeNotSupported)
			},
			path: hyperv.ReadDisk, reason: hyperv.ChainUnreadable, message: "error 50", data: whole,
		},
		"a disk that nothing can read is an error": {
			seams: func(l *lab, s *hyperv.Seams) {
				s.Files = deniedFiles{s.Files}
				fault(l, virtdisk.CodeLimitation, virtdisk.CodeLimitation)
			},
			err: virtdisk.ErrLimitation,
		},
		"a host that went away is asked no further": {
			seams: func(l *lab, s *hyperv.Seams) {
				s.Files = deniedFiles{s.Files}
				fault(l, virtdisk.CodeServerUnavailable)
			},
			err: virtdisk.ErrDisconnected,
		},
		"a disk that was attached and has another size is not read": {
			seams: func(_ *lab, s *hyperv.Seams) { s.Files, s.Attacher = deniedFiles{s.Files}, shrunk{s.Attacher} },
			err:   hyperv.ErrDiskMismatch,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, oneVM())
			local := filepath.Join(l.dir, "crm", "dirty.vhdx")
			l.makeDisk(local, 7)
			if c.disk != nil {
				c.disk(l, local)
			}
			seams := hyperv.Seams{CIM: l.host.Session(wmi.NamespaceCIMv2), Files: l.host.Files(), Disks: l.host.Disks(), Attacher: l.host.Attacher()}
			if c.seams != nil {
				c.seams(l, &seams)
			}
			open, err := hyperv.New(seams).OpenDisk(t.Context(), hyperv.FrozenDisk{Key: "SCSI-0-0", Path: `D:\VMs\crm\dirty.vhdx`, VirtualSize: diskSize})
			if c.err != nil {
				l.Expect(err).To(MatchError(c.err))
			} else {
				l.Expect(err).NotTo(HaveOccurred())
				l.Expect(open.Choice).To(And(HaveField("Path", c.path), HaveField("Reason", c.reason), HaveField("Message", ContainSubstring(c.message))))
				l.checkContent(open, c.data)
				l.Expect(errors.Join(open.Close(), open.Close())).To(Succeed())
			}
			l.Expect(l.host.DiskHandles()).To(BeEmpty(), "everything is detached")
		})
	}
}

// checkContent expects a disk whose first MiB is filled with sevens.
func (l *lab) checkContent(open *hyperv.OpenDisk, data extent.List) {
	l.Helper()
	got := make([]byte, diskSize)
	_, err := open.ReadAt(got, 0)
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(bytes.Equal(got, append(filled(mib, 7), make([]byte, diskSize-mib)...))).To(BeTrue())
	listed, err := extent.Collect(open.Data(extent.Extent{Length: diskSize}))
	l.Expect(err).NotTo(HaveOccurred())
	l.Expect(listed).To(Equal(data))
	l.Expect(open.Size()).To(BeEquivalentTo(diskSize))
	l.Expect(open.PhysicalSectorSize).To(BeEquivalentTo(4096))
}

// No file is read of a shadow copy but those that the writer lists, so nobody else may follow a disk to its parent.
func TestDiskOfAShadowCopyIsNotAttached(t *testing.T) {
	l := newLab(t, oneVM())
	l.Expect(os.WriteFile(filepath.Join(l.dir, "crm", "torn.vhdx"), []byte(strings.Repeat("x", 4096)), 0o644)).To(Succeed())
	h := hyperv.New(hyperv.Seams{CIM: l.host.Session(wmi.NamespaceCIMv2), Files: l.host.Files(), Disks: l.host.Disks(), Attacher: l.host.Attacher()})
	const path = `D:\VMs\crm\torn.vhdx`
	l.host.Faults().FailNext(emulator.Fault{Method: "AttachVirtualDisk", ReturnValue: virtdisk.CodeAccessDenied})
	_, err := h.OpenDisk(t.Context(), hyperv.FrozenDisk{Path: path, Chain: []string{path}, VirtualSize: diskSize})
	l.Expect(err).To(MatchError(vhdx.ErrUnsupported))
	l.Expect(l.host.Faults().Hits("AttachVirtualDisk")).To(BeZero())
}
