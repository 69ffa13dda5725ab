package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/client"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/filesystem"
	"github.com/hyperkeep/hyperkeep/test/nbd"
	"github.com/hyperkeep/hyperkeep/test/tenant"
)

// administrator works on the tenant's host by hand.
type administrator struct {
	*tenant.Tenant
	*WithT
	host wmi.Session
}

// States of Msvm_ComputerSystem.RequestStateChange.
const (
	running = int64(2)
	off     = int64(3)
)

func administer(x *tenant.Tenant) administrator {
	x.Helper()
	host := client.Dial(x.Host.Socket())
	x.Cleanup(func() { _ = host.Close() })
	return administrator{x, NewWithT(x), host.Session(wmi.NamespaceVirtualization)}
}

// path is that of the one object of a query.
func (a administrator) path(query string) string {
	a.Helper()
	found, err := a.host.Query(a.Context(), "SELECT * FROM "+query)
	a.Expect(err).NotTo(HaveOccurred())
	a.Expect(found).To(HaveLen(1), query)
	return found[0].Path
}

func (a administrator) call(path, method string, in wmi.Params) {
	a.Helper()
	_, err := wmi.Call(a.Context(), a.host, clock.RealClock{}, path, method, in)
	a.Expect(err).NotTo(HaveOccurred())
}

func (a administrator) machine(name string) string {
	a.Helper()
	return a.path("Msvm_ComputerSystem WHERE ElementName='" + name + "'")
}

func (a administrator) bring(machine string, state int64) {
	a.Helper()
	a.call(a.machine(machine), "RequestStateChange", wmi.Params{"RequestedState": state})
}

// checkpoint makes a checkpoint, which gets a name.
func (a administrator) checkpoint(machine, name string) {
	a.Helper()
	a.call(a.path("Msvm_VirtualSystemSnapshotService"), "CreateSnapshot", wmi.Params{"AffectedSystem": a.machine(machine), "SnapshotType": int64(2)})
	made := a.path("Msvm_VirtualSystemSettingData WHERE VirtualSystemType='Microsoft:Hyper-V:Snapshot:Realized' AND ElementName='" + machine + "'")
	a.call(a.path("Msvm_VirtualSystemManagementService"), "ModifySystemSettings", wmi.Params{
		"SystemSettings": wmi.Object{Class: "Msvm_VirtualSystemSettingData", Path: made, Properties: map[string]any{"ElementName": name}},
	})
}

// apply takes a machine back to one of its checkpoints.
func (a administrator) apply(machine, name string) {
	a.Helper()
	all, err := a.host.Associators(a.Context(), a.machine(machine), "Msvm_SnapshotOfVirtualSystem", "Msvm_VirtualSystemSettingData")
	a.Expect(err).NotTo(HaveOccurred())
	for _, s := range all {
		if s.Properties["ElementName"] == name {
			a.call(a.path("Msvm_VirtualSystemSnapshotService"), "ApplySnapshot", wmi.Params{"Snapshot": s.Path})
			return
		}
	}
	a.Fatalf("%s has no checkpoint %s", machine, name)
}

// expectDisk runs a machine, compares what its guest reads with a raw file, and switches it off.
func (a administrator) expectDisk(machine, frozen, why string) {
	a.Helper()
	a.bring(machine, running)
	disk, err := nbd.Dial(filepath.Join(a.Host.Dir, machine, "disk0.vhdx.nbd"))
	a.Expect(err).NotTo(HaveOccurred())
	content := make([]byte, disk.Size())
	_, err = disk.ReadAt(content, 0)
	a.Expect(err).NotTo(HaveOccurred())
	a.Expect(disk.Close()).To(Succeed())
	want, err := os.ReadFile(frozen)
	a.Expect(err).NotTo(HaveOccurred())
	a.Expect(bytes.Equal(content, want)).To(BeTrue(), why)
	a.bring(machine, off)
}

// TestShadowCopyMethodKeepsCheckpoints backs up a machine whose user goes back and forth between checkpoints, and restores it with all of them: EZ-06, EZ-07.
func TestShadowCopyMethodKeepsCheckpoints(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	m := x.AddMachine("vm", tenant.Settings{"checkpoints": "standard"}, x.Raw("system", 32*mib, map[int64]int64{0: 4 * mib}))
	x.UseRepository()
	x.Start()
	admin, frozen, disk := administer(x), map[string]string{}, m.Disks[0]
	write := func(moment string) {
		t.Helper()
		g.Expect(disk.Guest.Write(tenant.Random(mib), 3*mib)).To(Succeed())
		frozen[moment] = m.Freeze(moment)[0]
	}
	for _, name := range []string{"a", "b"} {
		write(name)
		admin.checkpoint("vm", name)
	}
	m.Detach()
	admin.apply("vm", "a")
	disk.Shadow = filepath.Join(x.Dir, "again.raw") // what it has again
	g.Expect(filesystem.Copy(t.Context(), frozen["a"], disk.Shadow)).To(Succeed())
	admin.bring("vm", running)
	m.Attach()
	write("c")
	admin.checkpoint("vm", "c")
	write("now")
	job := x.Job(m, "tree", func(spec *v1alpha1.BackupJobSpec) {
		spec.Method, spec.OnMethodIneligible = v1alpha1.MethodChoiceVSS, v1alpha1.MethodIneligibleFail
		spec.Consistency.Level = v1alpha1.LevelCrash
	})
	x.AwaitJob(job)
	g.Expect(tenant.Verdict(job.Status.Conditions)).To(ContainSubstring("Succeeded=True"))
	restore := x.RestoreJob(job.Status.ImageRef.Name, "again", nil)
	x.AwaitRestore(restore)
	g.Expect(tenant.Verdict(restore.Status.Conditions)).To(ContainSubstring("Succeeded=True"))
	g.Expect(restore.Status.Restored.Checkpoints).To(Equal(&v1alpha1.RestoredCheckpoints{Restored: 3, InImage: 3}))
	admin.expectDisk("again", frozen["now"], "where the machine was")
	for _, name := range []string{"b", "c", "a"} {
		admin.apply("again", name)
		admin.expectDisk("again", frozen[name], "EZ-07: checkpoint "+name)
	}
}
