package runner

import (
	"slices"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// TestDiskOnAShareGoesTheWayOfThePolicy has a second disk on a file server. By both methods it is excluded with a warning, or fails the backup where the policy
// wants all disks; and the guest is quiesced for the other disk only by WMI, for the VSS writer takes part in all or nothing.
func TestDiskOnAShareGoesTheWayOfThePolicy(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	r.set("state: running\n", `\\nas\vms\data.vhdx`)
	byWMI := func(b *v1alpha1.BackupTask) { b.Method = v1alpha1.MethodChoiceWMI }
	allDisks := func(b *v1alpha1.BackupTask) { b.UnsupportedDisks = v1alpha1.UnsupportedDisksFail }
	thenCrash := func(b *v1alpha1.BackupTask) { b.Consistency.Level = v1alpha1.LevelApplicationThenCrash }
	type change = func(*v1alpha1.BackupTask)
	for name, c := range map[string]struct {
		changes     []change
		consistency v1alpha1.AchievedConsistency // "" fails
		reason      string
		message     string
	}{
		"wmi":                 {[]change{byWMI}, v1alpha1.ConsistencyApplication, "", ""},
		"wmi-all-disks":       {[]change{byWMI, allDisks}, "", "RemoteDisk", "ExcludeAndWarn"},
		"vss-crash":           {[]change{byVSS, crashConsistent}, v1alpha1.ConsistencyCrash, "", ""},
		"vss-then-crash":      {[]change{byVSS, thenCrash}, v1alpha1.ConsistencyCrash, "", ""},
		"vss-crash-all-disks": {[]change{byVSS, crashConsistent, allDisks}, "", "RemoteDisk", "ExcludeAndWarn"},
		"vss-application":     {[]change{byVSS}, "", "QuiesceFailed", "method WMI"},
	} {
		t.Run(name, func(t *testing.T) {
			task := r.backup(name, c.changes...)
			r.clean(task)
			if c.consistency == "" {
				if f := task.Status.Failure; f == nil || f.Reason != c.reason || f.Action != v1alpha1.FailureStall || !strings.Contains(f.Message, c.message) {
					t.Errorf("%+v", f)
				}
				return
			}
			wantSuccess(t, task)
			got := task.Status.Image
			if got.Consistency != c.consistency || len(got.Disks) != 2 || got.Disks[0].Included != v1alpha1.DiskIncluded ||
				got.Disks[1].Included != v1alpha1.DiskExcluded || got.Disks[1].Reason != "RemoteDisk" {
				t.Errorf("I9: %+v", got)
			}
			var warned []string
			for _, w := range task.Status.Warnings {
				warned = append(warned, w.Reason)
			}
			if !slices.Contains(warned, "RemoteDisk") || slices.Contains(warned, "QuiesceFellBack") != (name == "vss-then-crash") {
				t.Errorf("the warnings are %+v", task.Status.Warnings)
			}
		})
	}
}
