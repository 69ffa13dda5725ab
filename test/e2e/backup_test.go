package e2e

import (
	"os"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/filesystem"
	"github.com/hyperkeep/hyperkeep/test/qemu"
	"github.com/hyperkeep/hyperkeep/test/tenant"
	"github.com/hyperkeep/hyperkeep/test/tool"
)

const mib = int64(1 << 20)

// passThrough is a physical drive that a machine uses besides its files.
var passThrough = tenant.Settings{"disks": []any{map[string]any{"passThrough": 2, "sizeBytes": 100 << 30}}}

// fileSystem makes a raw disk with a file system and one file in it.
func fileSystem(x *tenant.Tenant, kind filesystem.Kind, name string) string {
	x.Helper()
	content := filepath.Join(x.Dir, name+".content")
	g := NewWithT(x)
	g.Expect(os.MkdirAll(content, 0o755)).To(Succeed())
	g.Expect(os.WriteFile(filepath.Join(content, "first.txt"), tenant.Random(3*mib), 0o644)).To(Succeed())
	raw := filepath.Join(x.Dir, name+".raw")
	g.Expect(filesystem.Make(x.Context(), kind, raw, 64*mib, content)).To(Succeed())
	return raw
}

// TestPolicyProtectsAllMachines is the main job: a policy that selects all, run now, makes a full and then an incremental image of every machine, and
// each gives back what its guest had. AC-02, EZ-05, EZ-09, EZ-22, NW-01, NW-11, NW-13, NW-17, NW-20, DR-01, DR-23.
func TestPolicyProtectsAllMachines(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	machines := map[string]*tenant.Machine{
		"linux":   x.AddMachine("linux", passThrough, fileSystem(x, filesystem.Ext4, "linux-system"), fileSystem(x, filesystem.Ext4, "linux-data")),
		"windows": x.AddMachine("windows", nil, fileSystem(x, filesystem.NTFS, "windows")),
	}
	x.UseRepository()
	x.Start()
	policy := newPolicy(x, "all", "one")
	policy.Spec.Objectives = &v1alpha1.Objectives{RPO: "26h"}
	one := map[string][]string{}
	for name, m := range machines {
		one[name] = m.Freeze("one")
	}
	x.Create(policy)
	first := awaitRun(x, "one", machines)
	for name, job := range first {
		g.Expect(job.Status.Image.Type).To(Equal(v1alpha1.ImageFull), name)
		g.Expect(job.Status.Image.Consistency).To(Equal(v1alpha1.ConsistencyApplication), name)
		g.Expect(stepsOf(job)).To(Equal([]string{"Claim", "Prepare", "Checkpoint", "Decide", "Transfer", "Publish", "Convert", "Release"}), name)
	}
	complete := x.AwaitCondition(first["linux"], v1alpha1.ConditionComplete, metav1.ConditionFalse)
	g.Expect(complete.Reason).To(Equal(v1alpha1.ReasonDisksExcluded))
	g.Expect(first["linux"].Status.Warnings).NotTo(BeEmpty(), "EZ-22: a warning names the disk")
	x.AwaitCondition(first["windows"], v1alpha1.ConditionComplete, metav1.ConditionTrue)

	two := map[string][]string{}
	for name, m := range machines {
		changeFile(x, m.Disks[0], map[string]filesystem.Kind{"linux": filesystem.Ext4, "windows": filesystem.NTFS}[name])
		two[name] = m.Freeze("two")
	}
	x.Change(policy, func() { policy.Spec.RunNow.Token = "two" })
	second := awaitRun(x, "two", machines)
	for name, job := range second {
		image := job.Status.Image
		g.Expect(image.Type).To(Equal(v1alpha1.ImageIncremental), name)
		g.Expect(image.ReadBytes).To(BeNumerically("<", first[name].Status.Image.ReadBytes), name)
	}
	for name := range machines {
		x.ExpectRestores(first[name].Status.ImageRef.Name, name+"-one", one[name])
		x.ExpectRestores(second[name].Status.ImageRef.Name, name+"-two", two[name])
	}
	x.AwaitCondition(x.Object("windows"), v1alpha1.ConditionRPOMet, metav1.ConditionTrue)
}

// changeFile has the guest write a file into its file system.
func changeFile(x *tenant.Tenant, disk *tenant.Disk, kind filesystem.Kind) {
	x.Helper()
	g := NewWithT(x)
	file, next := filepath.Join(x.Dir, "orders.bin"), disk.Shadow+".next"
	g.Expect(os.WriteFile(file, tenant.Random(200_000), 0o644)).To(Succeed())
	g.Expect(filesystem.Copy(x.Context(), disk.Shadow, next)).To(Succeed())
	g.Expect(filesystem.Put(x.Context(), kind, next, file, "orders.bin")).To(Succeed())
	g.Expect(disk.Guest.Become(next)).To(BeNumerically(">=", 200_000))
	g.Expect(os.Remove(next)).To(Succeed())
}

// awaitRun waits until a run has a job for each machine and all have succeeded. It returns them by the machines' names.
func awaitRun(x *tenant.Tenant, token string, machines map[string]*tenant.Machine) map[string]*v1alpha1.BackupJob {
	x.Helper()
	jobs := map[string]*v1alpha1.BackupJob{}
	x.Await("the run "+token+" has its jobs", func() bool {
		list := &v1alpha1.BackupJobList{}
		NewWithT(x).Expect(x.Site.Client.List(x.Context(), list, client.InNamespace(x.Name))).To(Succeed())
		for name := range machines {
			for i, job := range list.Items {
				if job.Spec.Origin != nil && job.Spec.Origin.Name == token && job.Spec.VirtualMachineRef.Name == x.Object(name).Name {
					jobs[name] = &list.Items[i]
				}
			}
		}
		return len(jobs) == len(machines)
	})
	for _, job := range jobs {
		x.AwaitJob(job)
		NewWithT(x).Expect(tenant.Verdict(job.Status.Conditions)).To(ContainSubstring("Succeeded=True"))
		x.AwaitCondition(job, v1alpha1.ConditionCheckpointReleased, metav1.ConditionTrue)
	}
	NewWithT(x).Expect(x.Leftovers()).To(BeEmpty())
	return jobs
}

func stepsOf(job *v1alpha1.BackupJob) []string {
	var names []string
	for _, step := range job.Status.Steps {
		names = append(names, step.Name)
	}
	return names
}

// TestTrimmedRangesComeBackAsZeros: what the guest gave up must not be linked from the base.
func TestTrimmedRangesComeBackAsZeros(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	m := x.AddMachine("vm", nil, x.Raw("disk", 256*mib, map[int64]int64{0: 40 * mib, 100 * mib: 3 * mib}))
	x.UseRepository()
	x.Start()
	x.Backup(m, "full", nil)
	disk := m.Disks[0].Guest
	g.Expect(disk.Trim(32*mib, 8*mib)).To(Succeed())
	g.Expect(disk.Trim(100*mib+4096, 64<<10)).To(Succeed())
	g.Expect(disk.Write(tenant.Random(8192), 200*mib)).To(Succeed())
	frozen := m.Freeze("trimmed")
	job := x.Backup(m, "increment", nil)
	g.Expect(job.Status.Image.Type).To(Equal(v1alpha1.ImageIncremental))
	x.ExpectRestores(job.Status.ImageRef.Name, "again", frozen)
}

// TestEveryImageOfAChainRestoresAlone deletes all images of a chain but one in the middle. AC-10, AC-11, AC-13.
func TestEveryImageOfAChainRestoresAlone(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	m := x.AddMachine("vm", nil, x.Raw("disk", 128*mib, map[int64]int64{0: 20 * mib}))
	x.UseRepository()
	x.Start()
	var images []string
	var frozen [][]string
	for i, name := range []string{"a", "b", "c", "d"} {
		g.Expect(m.Disks[0].Guest.Write(tenant.Random(64<<10), int64(i)*7*mib)).To(Succeed())
		frozen = append(frozen, m.Freeze(name))
		job := x.Backup(m, name, nil)
		images = append(images, job.Status.ImageRef.Name)
	}
	const kept = 2
	for i, name := range images {
		if i == kept {
			continue
		}
		image := &v1alpha1.BackupImage{ObjectMeta: metav1.ObjectMeta{Namespace: x.Name, Name: name}}
		x.MarkForDeletion(image)
		x.Delete(image)
	}
	x.ExpectRestores(images[kept], "alone", frozen[kept])

	image := &v1alpha1.BackupImage{ObjectMeta: metav1.ObjectMeta{Namespace: x.Name, Name: images[kept]}}
	x.Change(image, func() { image.Spec.VerifyRequest = "now" })
	x.AwaitCondition(image, v1alpha1.ConditionVerified, metav1.ConditionTrue)
}

// TestRestoreInPlaceReplacesTheMachine keeps the machine's id and gives back its disks as they were.
func TestRestoreInPlaceReplacesTheMachine(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	m := x.AddMachine("vm", nil, x.Raw("disk", 64*mib, map[int64]int64{0: 5 * mib}))
	x.UseRepository()
	x.Start()
	frozen := m.Freeze("before")
	job := x.Backup(m, "full", nil)
	id := x.Object("vm").Status.Facts.ID
	g.Expect(m.Disks[0].Guest.Write(tenant.Random(mib), 0)).To(Succeed())
	m.Detach()

	restored := x.Restore(job.Status.ImageRef.Name, "back", func(spec *v1alpha1.RestoreJobSpec) {
		spec.Target, spec.Overwrite = nil, v1alpha1.OverwriteReplace
	})
	x.ExpectEqual(restored, frozen)
	g.Expect(x.Object("vm").Status.Facts.ID).To(Equal(id))
	list := &v1alpha1.VirtualMachineList{}
	g.Expect(x.Site.Client.List(t.Context(), list, client.InNamespace(x.Name))).To(Succeed())
	g.Expect(list.Items).To(HaveLen(1))
	g.Expect(restoredBy(x, "back")).To(Equal(v1alpha1.RestoreImport))
	g.Expect(x.Backup(m, "after", nil).Status.Image.Type).To(Equal(v1alpha1.ImageFull), "nothing tracked the changes of the restored disk yet")
}

// restoredBy is how a restore went.
func restoredBy(x *tenant.Tenant, name string) v1alpha1.RestoreMethod {
	x.Helper()
	job := &v1alpha1.RestoreJob{}
	NewWithT(x).Expect(x.Site.Client.Get(x.Context(), client.ObjectKey{Namespace: x.Name, Name: name}, job)).To(Succeed())
	return job.Status.Restored.Method
}

// TestMachineThatIsGoneComesBack restores after the machine was deleted with its disks, by other people's readings of the files.
func TestMachineThatIsGoneComesBack(t *testing.T) {
	x := newTenant(t)
	tool.Require(t, "vhdiinfo")
	g := NewWithT(t)
	m := x.AddMachine("vm", nil, fileSystem(x, filesystem.Ext4, "disk"))
	x.UseRepository()
	x.Start()
	frozen := m.Freeze("before")
	x.Backup(m, "full", nil)
	object := x.Object("vm")
	m.Destroy()
	x.AwaitCondition(object, v1alpha1.ConditionPresent, metav1.ConditionFalse)

	restored := x.Restore("", "back", func(spec *v1alpha1.RestoreJobSpec) {
		spec.Source = v1alpha1.RestoreSource{VirtualMachine: &v1alpha1.VirtualMachineSource{Name: object.Name}}
	})
	x.ExpectEqual(restored, frozen)
	raw := filepath.Join(x.Dir, "back.raw")
	g.Expect(qemu.Export(t.Context(), restored[0], raw)).To(Succeed())
	g.Expect(filesystem.Check(t.Context(), filesystem.Ext4, raw)).To(Succeed())
	g.Expect(tool.Run(t.Context(), "vhdiinfo", restored[0])).To(MatchRegexp(`Disk type\s*: Dynamic`))
	back := x.AwaitMachine("back")
	g.Expect(back.Status.Facts.State).To(Equal(v1alpha1.StateOff), "a restored machine is off")
	g.Expect(back.Status.Facts.ID).NotTo(Equal(object.Status.Facts.ID))
	g.Expect(restoredBy(x, "back")).To(Equal(v1alpha1.RestoreImport))
}
