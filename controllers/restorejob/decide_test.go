package restorejob

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/inventory"
)

var now = time.Date(2026, 7, 6, 12, 0, 0, 0, time.UTC)

func newImage(name string, hours int, status metav1.ConditionStatus) v1alpha1.BackupImage {
	image := v1alpha1.BackupImage{ObjectMeta: metav1.ObjectMeta{Name: name}}
	image.Spec.ImageID = name
	image.Spec.VirtualMachine = v1alpha1.ImageVirtualMachine{ID: "id-1", Name: "CRM", ObjectName: "crm", HostName: "hv01"}
	image.Spec.Summary.SnapshotTime = metav1.NewTime(now.Add(-time.Duration(hours) * time.Hour))
	meta.SetStatusCondition(&image.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: status})
	return image
}

func named(name string) *v1alpha1.RestoreJob {
	job := &v1alpha1.RestoreJob{ObjectMeta: metav1.ObjectMeta{Namespace: "sales", Name: "r1", UID: "u1"}}
	job.Spec.Source.ImageRef = &v1alpha1.ImageReference{Name: name}
	job.Spec.Overwrite = v1alpha1.OverwriteNever
	return job
}

func newest(asOfHours int) *v1alpha1.RestoreJob {
	job := named("")
	job.Spec.Source = v1alpha1.RestoreSource{VirtualMachine: &v1alpha1.VirtualMachineSource{Name: "crm"}}
	if asOfHours > 0 {
		job.Spec.Source.VirtualMachine.AsOf = &metav1.Time{Time: now.Add(-time.Duration(asOfHours) * time.Hour)}
	}
	return job
}

func TestChoose(t *testing.T) {
	images := []v1alpha1.BackupImage{newImage("old", 9, "True"), newImage("new", 2, "True"), newImage("damaged", 1, "False")}
	cases := map[string]struct {
		job        *v1alpha1.RestoreJob
		candidates []v1alpha1.BackupImage
		want       string
	}{
		"the newest that can be used":     {newest(0), images, "new"},
		"the newest of a moment":          {newest(3), images, "old"},
		"exactly of that moment":          {newest(2), images, "new"},
		"none is old enough":              {newest(10), images, ""},
		"there is none":                   {newest(0), nil, ""},
		"the named one, to be waited for": {named("damaged"), images[2:], "damaged"},
		"the named one does not exist":    {named("x"), nil, ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got := ""
			if image := choose(c.job, c.candidates); image != nil {
				got = image.Name
			}
			NewWithT(t).Expect(got).To(Equal(c.want))
		})
	}
}

func TestWhatWasChosenStaysChosen(t *testing.T) {
	job := newest(0)
	job.Status.ImageRef = &v1alpha1.ImageReference{Name: "old"}
	candidates := []v1alpha1.BackupImage{newImage("old", 9, "True")} // what observe then finds
	NewWithT(t).Expect(choose(job, candidates).Name).To(Equal("old"))
}

func newOriginal(present metav1.ConditionStatus) *v1alpha1.VirtualMachine {
	facts := v1alpha1.VirtualMachineFacts{ID: "id-1", DisplayName: "CRM"}
	machine := &v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Name: inventory.ObjectName(facts)}}
	machine.Status.HostName, machine.Status.Facts = "hv02", &facts
	meta.SetStatusCondition(&machine.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionPresent, Status: present})
	return machine
}

func newSite() delegation.Site {
	ready := []metav1.Condition{{Type: v1alpha1.ConditionReady, Status: "True"}}
	host := &v1alpha1.HyperVHost{Spec: v1alpha1.HyperVHostSpec{MaxParallelJobs: 1}}
	host.Status.Conditions = ready
	repository := &v1alpha1.BackupRepository{}
	repository.Spec.AllowedNamespaces, repository.Status.Conditions = []string{"*"}, ready
	return delegation.Site{Namespace: "sales", Host: host, Repository: repository, Credential: true}
}

func TestObstacle(t *testing.T) {
	ok, expiring, damaged := newImage("i", 1, "True"), newImage("i", 1, "False"), newImage("i", 1, "False")
	damaged.Status.Conditions[0].Reason = v1alpha1.ReasonDamaged
	replace := named("i")
	replace.Spec.Overwrite = v1alpha1.OverwriteReplace
	elsewhere := named("i")
	elsewhere.Spec.Target = &v1alpha1.RestoreTarget{HostName: "hv09"}
	hostless := newSite()
	hostless.Host = nil
	cases := map[string]struct {
		job      *v1alpha1.RestoreJob
		image    *v1alpha1.BackupImage
		original *v1alpha1.VirtualMachine
		site     delegation.Site
		reason   string
		remedy   delegation.Remedy
	}{
		"nothing is in the way":                   {job: named("i"), image: &ok, site: newSite()},
		"the named image does not exist":          {job: named("i"), site: newSite(), reason: v1alpha1.ReasonImageNotFound, remedy: delegation.Person},
		"there is no image":                       {job: newest(0), site: newSite(), reason: v1alpha1.ReasonNoImage, remedy: delegation.Person},
		"there is no image that old":              {job: newest(9), site: newSite(), reason: v1alpha1.ReasonNoImage, remedy: delegation.Person},
		"the image is not ready: it waits (C 11)": {job: named("i"), image: &expiring, site: newSite(), reason: v1alpha1.ReasonImageNotReady, remedy: delegation.Patience},
		"a damaged image does not mend itself":    {job: named("i"), image: &damaged, site: newSite(), reason: v1alpha1.ReasonDamaged, remedy: delegation.Person},
		"the image's host is gone: say where to":  {job: named("i"), image: &ok, site: hostless, reason: v1alpha1.ReasonHostNotFound, remedy: delegation.Person},
		"the named host is not there yet":         {job: elsewhere, image: &ok, site: hostless, reason: v1alpha1.ReasonHostNotFound, remedy: delegation.Patience},
		"replace what is there":                   {job: replace, image: &ok, original: newOriginal("True"), site: newSite()},
		"replace what is gone":                    {job: replace, image: &ok, original: newOriginal("False"), site: newSite(), reason: v1alpha1.ReasonVirtualMachineGone, remedy: delegation.Person},
		"replace what was never there":            {job: replace, image: &ok, site: newSite(), reason: v1alpha1.ReasonVirtualMachineGone, remedy: delegation.Person},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			o := obstacle(c.job, c.image, observation{original: c.original, site: c.site})
			if c.reason == "" {
				g.Expect(o).To(BeNil())
				return
			}
			g.Expect(o.Reason).To(Equal(c.reason))
			g.Expect(o.Remedy).To(Equal(c.remedy))
		})
	}
}

func TestTargetHost(t *testing.T) {
	g := NewWithT(t)
	image := newImage("i", 1, "True")
	replace, elsewhere := named("i"), named("i")
	replace.Spec.Overwrite = v1alpha1.OverwriteReplace
	elsewhere.Spec.Target = &v1alpha1.RestoreTarget{HostName: "hv09"}
	g.Expect(targetHost(named("i"), &image, newOriginal("True"))).To(Equal("hv01"), "where the image came from")
	g.Expect(targetHost(elsewhere, &image, nil)).To(Equal("hv09"))
	g.Expect(targetHost(replace, &image, newOriginal("True"))).To(Equal("hv02"), "where the original is now")
}

func TestNewName(t *testing.T) {
	g := NewWithT(t)
	image := newImage("i", 1, "True")
	g.Expect(newName(named("i"), &image)).To(Equal("CRM-restored"))
	image.Spec.VirtualMachine.Name = strings.Repeat("ä", 200)
	g.Expect([]rune(newName(named("i"), &image))).To(HaveLen(maxMachineName))
	job := named("i")
	job.Spec.Target = &v1alpha1.RestoreTarget{Name: "other"}
	g.Expect(newName(job, &image)).To(Equal("other"))
}

// byID is a restore of an image that no BackupImage stands for.
func byID() *v1alpha1.RestoreJob {
	job := named("")
	job.Spec.Source = v1alpha1.RestoreSource{RepositoryRef: &v1alpha1.RepositoryReference{Name: "main"}, ImageID: "image-1"}
	job.Spec.Target = &v1alpha1.RestoreTarget{HostName: "hv09", Name: "crm"}
	return job
}

func TestImageThatIsNamedByItsRepository(t *testing.T) {
	g := NewWithT(t)
	job := byID()
	image := stored(job)
	seen := observation{candidates: []v1alpha1.BackupImage{image}, site: newSite()}
	g.Expect(obstacle(job, choose(job, seen.candidates), seen)).To(BeNil())
	seen.site.Repository.Spec.AllowedNamespaces = []string{"hr"}
	refused := obstacle(job, choose(job, seen.candidates), seen)
	g.Expect([]any{refused.Reason, refused.Remedy}).To(Equal([]any{v1alpha1.ReasonRepositoryNotAllowed, delegation.Person}))
	g.Expect(targetHost(job, &image, nil)).To(Equal("hv09"))

	run := runOf(job)
	seen.site = newSite()
	task := newTask(job, run, seen, delegation.Next{Attempt: 1, Status: v1alpha1.RunStatus{HostName: "hv09"}})
	g.Expect([]string{task.Spec.Restore.ImageID, task.Spec.Restore.Namespace, task.Spec.Restore.Name}).To(Equal([]string{"image-1", "sales", "crm"}), "the agent looks for whom it was taken")
	seen.candidates[0] = newImage("i", 1, "True")
	task = newTask(named("i"), run, seen, delegation.Next{Attempt: 1})
	g.Expect(task.Spec.Restore.Namespace).To(BeEmpty())
}

func TestSuccessSaysWhatIsNotRestored(t *testing.T) { // I9
	for name, c := range map[string]struct {
		checkpoints *v1alpha1.RestoredCheckpoints
		want        string
	}{
		"an image without checkpoints": {nil, "restored as virtual machine crm on host "},
		"all checkpoints":              {&v1alpha1.RestoredCheckpoints{Restored: 2, InImage: 2}, "restored as virtual machine crm on host "},
		"not all of them": {
			&v1alpha1.RestoredCheckpoints{Restored: 1, InImage: 2, Reason: "Hyper-V refuses"},
			"restored as virtual machine crm on host ; checkpoints: restored 1 of 2, Hyper-V refuses",
		},
	} {
		t.Run(name, func(t *testing.T) {
			task := &v1alpha1.AgentTask{}
			task.Status.Restored = &v1alpha1.RestoredVirtualMachine{Name: "crm", Checkpoints: c.checkpoints}
			if got := success(task).Message; got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
