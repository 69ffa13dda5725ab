package e2e

import (
	"errors"
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/tenant"
)

// TestConsistencyIsWhatTheGuestCanGive tries each level on guests whose integration services behave in each way. NW-03 to NW-09, DR-13, EZ-11.
func TestConsistencyIsWhatTheGuestCanGive(t *testing.T) {
	x := newTenant(t)
	const (
		application = v1alpha1.LevelApplication
		fallback    = v1alpha1.LevelApplicationThenCrash
		crash       = v1alpha1.LevelCrash
	)
	tests := map[string]struct {
		settings tenant.Settings
		level    v1alpha1.ConsistencyLevel
		want     v1alpha1.AchievedConsistency // empty: the job fails and makes no image
	}{
		"a willing guest quiesces":                              {tenant.Settings{}, application, v1alpha1.ConsistencyApplication},
		"a willing guest is not asked for crash consistency":    {tenant.Settings{}, crash, v1alpha1.ConsistencyCrash},
		"a failing guest fails a job that insists":              {tenant.Settings{"integrationServices": "failing"}, application, ""},
		"a failing guest falls back where that is allowed":      {tenant.Settings{"integrationServices": "failing"}, fallback, v1alpha1.ConsistencyCrash},
		"a hanging guest is given up":                           {tenant.Settings{"integrationServices": "hanging"}, fallback, v1alpha1.ConsistencyCrash},
		"a guest without services fails a job that insists":     {tenant.Settings{"integrationServices": "missing"}, application, ""},
		"a guest without services is backed up where allowed":   {tenant.Settings{"integrationServices": "missing"}, fallback, v1alpha1.ConsistencyCrash},
		"disabled services fail a job that insists":             {tenant.Settings{"integrationServices": "disabled"}, application, ""},
		"a machine that is off is as good as application":       {tenant.Settings{"state": "off"}, application, v1alpha1.ConsistencyOffline},
		"a saved machine fails a job that insists":              {tenant.Settings{"state": "saved"}, application, ""},
		"a saved machine can be backed up crash consistently":   {tenant.Settings{"state": "saved"}, crash, v1alpha1.ConsistencyCrash},
		"a paused machine fails a job that insists":             {tenant.Settings{"state": "paused"}, application, ""},
		"a replica can only be crash consistent, and says so":   {tenant.Settings{"replica": "replica", "state": "off"}, application, ""},
		"without production checkpoints a job falls back":       {tenant.Settings{"checkpoints": "standard"}, fallback, v1alpha1.ConsistencyCrash},
		"a machine with integration services only for shutdown": {tenant.Settings{"integrationServices": "disabled"}, crash, v1alpha1.ConsistencyCrash},
	}
	machines := map[string]*tenant.Machine{}
	number := 0
	for name, test := range tests {
		number++
		machines[name] = x.AddMachine("vm"+string(rune('a'+number)), test.settings, x.Raw("disk"+string(rune('a'+number)), 8*mib, map[int64]int64{0: mib}))
	}
	x.UseRepository()
	x.Start()
	jobs := map[string]*v1alpha1.BackupJob{}
	for name, test := range tests {
		jobs[name] = x.Job(machines[name], machines[name].Name, func(spec *v1alpha1.BackupJobSpec) {
			spec.Consistency = v1alpha1.ConsistencySettings{Level: test.level, QuiesceAttempts: 2, QuiesceTimeoutSeconds: 5}
			spec.Attempts = 1
		})
	}
	for name, test := range tests {
		x.AwaitJob(jobs[name])
		if err := judgeConsistency(jobs[name], test.want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	NewWithT(t).Expect(x.Leftovers()).To(BeEmpty())
}

// judgeConsistency compares what a job achieved with what was wanted: nothing weaker (NW-08), and never without a word.
func judgeConsistency(job *v1alpha1.BackupJob, want v1alpha1.AchievedConsistency) error {
	verdict := tenant.Verdict(job.Status.Conditions)
	switch {
	case want == "" && (job.Status.ImageRef != nil || job.Status.Failure == nil || job.Status.Failure.Message == ""):
		return fmt.Errorf("it should have failed with a word on why: %s", verdict)
	case want == "":
		return nil
	case job.Status.Image == nil:
		return errors.New(verdict)
	case job.Status.Image.Consistency != want:
		return fmt.Errorf("it is %s", job.Status.Image.Consistency)
	}
	return nil
}

// TestWithoutBlockLevelIncrementalEveryRunReadsAll: NW-12.
func TestWithoutBlockLevelIncrementalEveryRunReadsAll(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	m := x.AddMachine("vm", nil, x.Raw("disk", 32*mib, map[int64]int64{0: 4 * mib}))
	x.UseRepository()
	x.Start()
	for _, name := range []string{"one", "two"} {
		job := x.Backup(m, name, func(spec *v1alpha1.BackupJobSpec) { spec.ChangeTracking.BlockLevelIncremental = ptr.To(false) })
		g.Expect(job.Status.Image.Type).To(Equal(v1alpha1.ImageFull))
	}
	// Had either run left a reference point, this one would stand on it.
	job := x.Backup(m, "three", nil)
	g.Expect(job.Status.Image.Type).To(Equal(v1alpha1.ImageFull))
}

// TestUnsupportedDisksCanFailAJob: EZ-23.
func TestUnsupportedDisksCanFailAJob(t *testing.T) {
	x := newTenant(t)
	m := x.AddMachine("vm", passThrough, x.Raw("disk", 8*mib, nil))
	x.UseRepository()
	x.Start()
	job := x.Job(m, "strict", func(spec *v1alpha1.BackupJobSpec) { spec.UnsupportedDisks = v1alpha1.UnsupportedDisksFail })
	x.AwaitJob(job)
	failed := x.AwaitCondition(job, v1alpha1.ConditionSucceeded, metav1.ConditionFalse)
	NewWithT(t).Expect(failed.Message).To(ContainSubstring("ExcludeAndWarn"), "it says what to do")
	NewWithT(t).Expect(x.Leftovers()).To(BeEmpty())
}
