package backupjob

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// AC-12: what the newest image lost is stored anew. What only older ones lost is not on the disks any more.
func TestBackupsRepairWhatTheNewestImageLost(t *testing.T) {
	at := time.Date(2026, 7, 6, 12, 0, 0, 0, time.UTC)
	image := func(repository string, hours int, verified metav1.ConditionStatus, disks ...string) v1alpha1.BackupImage {
		var i v1alpha1.BackupImage
		i.Spec.RepositoryRef.Name = repository
		i.Spec.Summary.SnapshotTime = metav1.NewTime(at.Add(time.Duration(hours) * time.Hour))
		i.Status.DamagedDisks = disks
		i.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionVerified, Status: verified}}
		return i
	}
	for name, c := range map[string]struct {
		images []v1alpha1.BackupImage
		want   *v1alpha1.Repair
	}{
		"no image":                           {},
		"all are sound":                      {images: []v1alpha1.BackupImage{image("main", 1, "True"), image("main", 2, "Unknown")}},
		"the newest lost a disk":             {images: []v1alpha1.BackupImage{image("main", 2, "False", "d1"), image("main", 1, "True")}, want: &v1alpha1.Repair{Disks: []string{"d1"}}},
		"the newest lost files alone":        {images: []v1alpha1.BackupImage{image("main", 2, "False")}, want: &v1alpha1.Repair{}},
		"an older one did":                   {images: []v1alpha1.BackupImage{image("main", 2, "True"), image("main", 1, "False", "d1")}},
		"one in another repository did":      {images: []v1alpha1.BackupImage{image("other", 2, "False", "d1"), image("main", 1, "True")}},
		"the newest here, not the one there": {images: []v1alpha1.BackupImage{image("other", 2, "True"), image("main", 1, "False", "d1")}, want: &v1alpha1.Repair{Disks: []string{"d1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			NewWithT(t).Expect(repairOf(c.images, "main")).To(Equal(c.want))
		})
	}
}
