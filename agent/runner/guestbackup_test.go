package runner

import (
	"testing"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// TestGuestsTruncateTheirLogsOnlyWhereTheyMay counts what the applications in the guest do, with both methods: requirement 3.7.
func TestGuestsTruncateTheirLogsOnlyWhereTheyMay(t *testing.T) {
	type want struct {
		truncated int
		image     v1alpha1.AchievedConsistency // "" for none
		word      string                       // the reason of a warning or of the failure
	}
	asked := v1alpha1.ConsistencyApplication
	for windows, cases := range map[string]map[string]struct {
		kind   v1alpha1.GuestBackupType
		change func(*v1alpha1.BackupTask)
		want   want
	}{
		"2022": {
			"unset":      {"", func(*v1alpha1.BackupTask) {}, want{0, asked, ""}},
			"full":       {v1alpha1.GuestBackupFull, func(*v1alpha1.BackupTask) {}, want{1, asked, ""}},
			"full-crash": {v1alpha1.GuestBackupFull, crashConsistent, want{0, v1alpha1.ConsistencyCrash, ""}},
			"copy-vss":   {v1alpha1.GuestBackupCopy, byVSS, want{0, asked, ""}},
			"full-vss":   {v1alpha1.GuestBackupFull, byVSS, want{1, asked, ""}},
		},
		"2016": { // which knows full backups only, but for VSS
			"unset":    {"", func(*v1alpha1.BackupTask) {}, want{1, asked, "GuestLogsTruncated"}},
			"full":     {v1alpha1.GuestBackupFull, func(*v1alpha1.BackupTask) {}, want{1, asked, ""}},
			"copy":     {v1alpha1.GuestBackupCopy, func(*v1alpha1.BackupTask) {}, want{0, "", "GuestBackupType"}},
			"fallback": {v1alpha1.GuestBackupCopy, fallingBack, want{0, v1alpha1.ConsistencyCrash, "QuiesceFellBack"}},
			"copy-vss": {v1alpha1.GuestBackupCopy, byVSS, want{0, asked, ""}},
		},
	} {
		t.Run(windows, func(t *testing.T) {
			r := newRigOn(t, "osVersion: \""+windows+"\"\n", nil)
			wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
			r.set("state: running\n")
			for name, c := range cases {
				before := r.host.LogTruncations()
				task := r.backup(name, func(b *v1alpha1.BackupTask) { b.Consistency.GuestBackupType = c.kind }, c.change)
				got := want{truncated: r.host.LogTruncations() - before}
				if task.Status.Image != nil {
					got.image = task.Status.Image.Consistency
				}
				if task.Status.Failure != nil {
					got.word = task.Status.Failure.Reason
				}
				for _, warning := range task.Status.Warnings {
					got.word = warning.Reason
				}
				if got != c.want {
					t.Errorf("%s: %+v instead of %+v; failure %+v, warnings %+v", name, got, c.want, task.Status.Failure, task.Status.Warnings)
				}
				r.clean(task)
			}
		})
	}
}

func fallingBack(b *v1alpha1.BackupTask) { b.Consistency.Level = v1alpha1.LevelApplicationThenCrash }
