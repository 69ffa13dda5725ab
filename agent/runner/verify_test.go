package runner

import (
	"os"
	"testing"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// largestPack is the file of the blob that has most of the data.
func (r *rig) largestPack() (largest string) {
	r.t.Helper()
	most := int64(0)
	for _, path := range r.blobs("p") {
		info, err := os.Stat(path)
		if err != nil {
			r.t.Fatal(err)
		}
		if info.Size() > most {
			largest, most = path, info.Size()
		}
	}
	return largest
}

// I9, AC-12: damage is found in turn and told by the images and disks that it is in. Increments go on and link to it. A backup that repairs reads those
// disks in full, and heals all images.
func TestDamageIsFoundInTurnAndRepaired(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	wantSuccess(t, r.backup("first"))
	scrub := func(name string, again ...string) *v1alpha1.ScrubResult {
		t.Helper()
		task := r.do("keeper", name, v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskScrub, Scrub: &v1alpha1.ScrubTask{To: 65536, Again: again}})
		wantSuccess(t, task)
		if found := task.Status.Scrubbed; found == nil || found.Position != 65536 || found.Bytes < 5<<20 {
			t.Fatalf("%s: %+v", name, found)
		}
		return task.Status.Scrubbed
	}
	if found := scrub("sound"); found.Damaged > 0 || len(found.Images) > 0 {
		t.Errorf("%+v", found)
	}
	pack := r.largestPack()
	content, err := os.ReadFile(pack)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(pack, content, 0o600); err != nil {
		t.Fatal(err)
	}
	wantSuccess(t, r.backup("second"))
	found := scrub("damaged")
	if found.Damaged == 0 || len(found.DamagedPacks) != 1 || len(found.Images) != 2 || len(found.Images[0].Disks) != 1 {
		t.Fatalf("%+v", found)
	}
	verified := r.do("keeper", "verify", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskVerify, Image: &v1alpha1.ImageTask{ImageID: "second"}})
	if failure := verified.Status.Failure; failure == nil || failure.Reason != v1alpha1.ReasonDamaged || len(verified.Status.DamagedDisks) != 1 {
		t.Errorf("%+v, %v", failure, verified.Status.DamagedDisks)
	}
	third := r.backup("third", func(b *v1alpha1.BackupTask) { b.Repair = &v1alpha1.Repair{Disks: found.Images[0].Disks} })
	wantSuccess(t, third)
	if got := third.Status.Image; got.Type != v1alpha1.ImageFull || got.Disks[0].Reason != "BaseDamaged" {
		t.Errorf("%+v", got)
	}
	if found := scrub("repaired", found.DamagedPacks...); found.Damaged > 0 || len(found.Images) > 0 {
		t.Errorf("%+v", found)
	}
	for _, id := range []string{"first", "second", "third"} {
		wantSuccess(t, r.do("keeper", "verify-"+id, v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskVerify, Image: &v1alpha1.ImageTask{ImageID: id}}))
	}
}
