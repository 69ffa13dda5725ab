package e2e

import (
	"path/filepath"
	"slices"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/tenant"
)

// TestShadowCopyMethod backs a running machine up by shadow copies, twice. Its guest writes before the snapshot, and goes on while the frozen disks are
// read: what it wrote later is in no image of that snapshot, and stays in the machine. NV-05, NV-09, NV-11.
func TestShadowCopyMethod(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	m := x.AddMachine("vm", nil, x.Raw("system", 96*mib, map[int64]int64{0: 24 * mib}), x.Raw("data", 32*mib, map[int64]int64{8 * mib: 8 * mib}))
	x.UseRepository()
	x.Start()
	for _, name := range []string{"one", "two"} {
		for _, disk := range m.Disks {
			g.Expect(disk.Guest.Write(tenant.Random(mib), 3*mib)).To(Succeed())
		}
		frozen := m.Freeze(name)
		job := x.Job(m, name, func(spec *v1alpha1.BackupJobSpec) {
			spec.Method, spec.OnMethodIneligible = v1alpha1.MethodChoiceVSS, v1alpha1.MethodIneligibleFail
		})
		x.Await("job "+name+" has its snapshot", func() bool {
			x.Get(job)
			return slices.Contains(stepsOf(job), "Transfer") || tenant.Decided(job.Status.Conditions)
		})
		for _, disk := range m.Disks {
			g.Expect(disk.Guest.Write(tenant.Random(2*mib), 2*mib)).To(Succeed())
		}
		x.AwaitJob(job)
		g.Expect(tenant.Verdict(job.Status.Conditions)).To(ContainSubstring("Succeeded=True"))
		g.Expect(job.Status.Image.Method).To(Equal(v1alpha1.MethodVSS))
		g.Expect(job.Status.Image.Consistency).To(Equal(v1alpha1.ConsistencyApplication))
		g.Expect(shadowCopies(x)).To(BeEmpty())
		g.Expect(x.Leftovers()).To(BeEmpty())
		x.ExpectRestores(job.Status.ImageRef.Name, "again-"+name, frozen)
	}
	g.Expect(x.Object("vm").Status.Facts.State).To(Equal(v1alpha1.StateRunning))
	now := m.Freeze("now")
	m.Detach()
	var disks []string
	for _, disk := range m.Disks {
		disks = append(disks, m.Path(disk.File))
	}
	m.WriteSettings(tenant.Settings{"state": "off"})
	x.Await("the machine is off", func() bool { return x.Object("vm").Status.Facts.State == v1alpha1.StateOff })
	x.ExpectEqual(disks, now)
}

// shadowCopies lists those on the emulated host.
func shadowCopies(x *tenant.Tenant) []string {
	x.Helper()
	found, err := filepath.Glob(filepath.Join(x.Host.Dir, ".hyperv", "shadows", "*"))
	NewWithT(x).Expect(err).NotTo(HaveOccurred())
	return found
}
