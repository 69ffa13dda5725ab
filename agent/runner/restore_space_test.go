package runner

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// Two shared volumes below one drive, and a volume in a folder of another.
const threeVolumes = `jobMillis: 1
mounts:
  C:\ClusterStorage\Volume1: {sizeBytes: 25165824}
  C:\ClusterStorage\Volume2: {sizeBytes: 25165824}
  D:\Archive: {sizeBytes: 25165824}
`

func TestEachVolumeMustHaveRoomForWhatItGets(t *testing.T) {
	const mib = 1 << 20
	const first, second, archive = `C:\ClusterStorage\Volume1`, `C:\ClusterStorage\Volume2`, `D:\Archive`
	r := newHostOnly(t, threeVolumes)
	run := &restoreRun{restore: &restore{host: r.logic}, report: newReport(nil, clock.RealClock{}, &v1alpha1.AgentTask{})}
	for name, c := range map[string]struct {
		sizes map[string]int64
		full  string // the volume that has no room, "" for none
	}{
		"more than one volume has, on two of one drive": {map[string]int64{first + `\crm\a.vhdx`: 20 * mib, second + `\crm\a.vhdx`: 20 * mib}, ""},
		"too much for the first alone":                  {map[string]int64{first + `\crm\a.vhdx`: 40 * mib, second + `\crm\a.vhdx`: mib}, first},
		"too much for the second alone":                 {map[string]int64{first + `\crm\a.vhdx`: mib, second + `\crm\a.vhdx`: 40 * mib}, second},
		"too much in two files, told in other letters":  {map[string]int64{first + `\crm\a.vhdx`: 20 * mib, strings.ToLower(first) + `\b.vhdx`: 20 * mib}, first},
		"beside a volume in a folder of the same drive": {map[string]int64{archive + `\a.vhdx`: 20 * mib, `D:\VMs\crm\a.vhdx`: 20 * mib}, ""},
		"too much for the volume in a folder":           {map[string]int64{archive + `\not\yet\a.vhdx`: 40 * mib, `D:\VMs\crm\a.vhdx`: mib}, archive},
	} {
		err := run.fits(t.Context(), c.sizes)
		switch {
		case c.full == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.full != "" && (err == nil || failureOf(err).Reason != "NotEnoughSpace" || !strings.Contains(err.Error(), "volume "+c.full+", which has 24 MiB free")):
			t.Errorf("%s: %v, not that %s is full", name, err, c.full)
		}
	}
}

// TestRestoreInPlaceOverTwoSharedVolumes puts two disks back for which no volume alone has room.
func TestRestoreInPlaceOverTwoSharedVolumes(t *testing.T) {
	r := newRigOn(t, threeVolumes, nil)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	var disks []string
	for _, volume := range []string{"Volume1", "Volume2"} {
		r.makeMachine(volume)
		folder := filepath.Join(r.dir, ".volumes", "C_ClusterStorage_"+volume, "crm")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(r.dir, volume, "system.vhdx"), filepath.Join(folder, "data.vhdx")); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(filepath.Join(r.dir, volume)); err != nil {
			t.Fatal(err)
		}
		disks = append(disks, `C:\ClusterStorage\`+volume+`\crm\data.vhdx`)
	}
	r.set("state: \"off\"\n", disks...)
	wantSuccess(t, r.backup("first"))
	task := r.do(v1alpha1.AgentNamespace(hostName), "in-place", v1alpha1.AgentTaskSpec{
		Kind: v1alpha1.TaskRestore, Restore: &v1alpha1.RestoreTask{ImageID: "first", Overwrite: v1alpha1.OverwriteReplace, RestoreID: "r1"},
	})
	wantSuccess(t, task)
	vm := r.machine("crm")
	for i, volume := range []string{`D:\VMs\`, `C:\ClusterStorage\Volume1\`, `C:\ClusterStorage\Volume2\`} {
		if len(vm.Disks) != 3 || !strings.HasPrefix(vm.Disks[i].Path, volume+`crm\`) {
			t.Errorf("disk %d of %+v does not lie on %s", i, vm.Disks, volume)
		}
	}
}
