package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/qemu"
	"github.com/hyperkeep/hyperkeep/test/tenant"
	"github.com/hyperkeep/hyperkeep/test/tool"
)

// TestIncrementFollowsTheChange counts, by the operating system's count, what the agent reads and writes for a small change on a large disk. NW-13, AC-05.
func TestIncrementFollowsTheChange(t *testing.T) {
	const gib = int64(1 << 30)
	for name, size := range map[string]int64{"64 GiB": 64 * gib, "1 TiB": 1024 * gib} {
		t.Run(name, func(t *testing.T) {
			x := newTenant(t)
			g := NewWithT(t)
			m := x.AddMachine("vm", nil, x.Raw("disk", size, map[int64]int64{0: 64 * mib, size - 8*mib: 8 * mib}))
			x.UseRepository()
			x.Start()
			full := x.Backup(m, "full", nil)
			g.Expect(full.Status.Image.ReadBytes).To(BeNumerically("<=", 200*mib), "a full backup reads what is allocated")

			const changes, changed = 4, int64(64 << 10)
			guest := m.Disks[0].Guest
			for i := range int64(changes) {
				g.Expect(guest.Write(tenant.Random(changed), i*size/changes+5*mib)).To(Succeed())
			}
			before := bytesOf(t, x.Host.Agent.PID())
			increment := x.Backup(m, "increment", nil)
			after := bytesOf(t, x.Host.Agent.PID())
			image := increment.Status.Image
			g.Expect(image.Type).To(Equal(v1alpha1.ImageIncremental))
			g.Expect(image.ReadBytes).To(BeNumerically("<=", 2*changes*mib), "leaves of 1 MiB around each change")
			// Besides the disk the agent reads the tables of its files, the repository's indexes, and talks to the API server.
			const overhead = 40 * mib
			g.Expect(after.read-before.read).To(BeNumerically("<", 2*changes*mib+overhead), "bytes read by the process")
			g.Expect(after.written-before.written).To(BeNumerically("<", 2*changes*mib+overhead), "bytes written by the process")
			t.Logf("%s: changed %d KiB; the image says it read %d KiB; the process read %d KiB and wrote %d KiB", name,
				changes*changed>>10, image.ReadBytes>>10, (after.read-before.read)>>10, (after.written-before.written)>>10)

			restored := x.Restore(increment.Status.ImageRef.Name, "again", nil)
			// qemu-img compare would read all the zeros, for minutes.
			for i := range int64(changes) {
				expectSameRange(x, restored[0], m.Disks[0].Shadow, i*size/changes, 16*mib)
			}
			expectSameRange(x, restored[0], m.Disks[0].Shadow, size-16*mib, 16*mib)
		})
	}
}

// expectSameRange compares a part of a VHDX file, as QEMU reads it, with the same part of a raw file.
func expectSameRange(x *tenant.Tenant, vhdx, raw string, offset, length int64) {
	x.Helper()
	g := NewWithT(x)
	part := filepath.Join(x.Dir, fmt.Sprintf("part-%d", offset))
	_, err := tool.Run(x.Context(), "qemu-img", "dd", "-f", "vhdx", "-O", "raw", "bs=1M",
		fmt.Sprintf("skip=%d", offset/mib), fmt.Sprintf("count=%d", (offset+length)/mib), "if="+vhdx, "of="+part)
	g.Expect(err).NotTo(HaveOccurred())
	got, err := os.ReadFile(part)
	g.Expect(err).NotTo(HaveOccurred())
	file, err := os.Open(raw)
	g.Expect(err).NotTo(HaveOccurred())
	defer file.Close()
	want := make([]byte, length)
	_, err = file.ReadAt(want, offset)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(got) == string(want)).To(BeTrue(), "%d bytes at %d of %s", length, offset, vhdx)
	g.Expect(os.Remove(part)).To(Succeed())
}

// counts of proc_pid_io(5): all bytes that went through read and write calls, whether a disk was touched or not.
type counts struct{ read, written int64 }

func bytesOf(t *testing.T, pid int) counts {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		t.Fatal(err)
	}
	field := func(name string) int64 {
		_, after, _ := strings.Cut(string(text), name+": ")
		value, _, _ := strings.Cut(after, "\n")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			t.Fatalf("%s of process %d: %v", name, pid, err)
		}
		return n
	}
	return counts{field("rchar"), field("wchar")}
}

// TestDisksOfOtherTools backs up VHDX files of every kind that qemu-img makes, dropped into a host's folder.
func TestDisksOfOtherTools(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	variants := map[string][]string{
		"fixed":       {"subformat=fixed"},
		"dynamic1":    {"subformat=dynamic", "block_size=1M"},
		"dynamic8":    {"subformat=dynamic", "block_size=8M"},
		"dynamic256":  {"subformat=dynamic", "block_size=256M"},
		"largelog":    {"log_size=16M"},
		"zeroesasbat": {"subformat=dynamic", "block_state_zero=off"},
	}
	machines := map[string]*tenant.Machine{}
	for name, options := range variants {
		m := x.AddMachine(name, tenant.Settings{"state": "off"}, x.Raw(name, 33*mib, map[int64]int64{0: mib, 20*mib + 512: 3 * mib}))
		vhdx := m.Path(m.Disks[0].File)
		g.Expect(os.Remove(vhdx)).To(Succeed())
		g.Expect(qemu.Convert(t.Context(), m.Disks[0].Shadow, vhdx, options...)).To(Succeed())
		machines[name] = m
	}
	x.UseRepository()
	x.Start()
	for name, m := range machines {
		job := x.Backup(m, name, nil)
		x.ExpectRestores(job.Status.ImageRef.Name, name+"-again", []string{m.Disks[0].Shadow})
	}
}
