package backuprepository

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// kept is a repository that is ready, was declared a while ago, and was maintained before.
func kept(declared time.Duration, quick, full *metav1.Time) (*v1alpha1.BackupRepository, observed) {
	r, seen := repository(), settled()
	r.CreationTimestamp = metav1.NewTime(now.Add(-declared))
	seen.probes = []v1alpha1.AgentTask{probeOf(seen, now, v1alpha1.ReasonSucceeded)}
	if quick != nil || full != nil {
		r.Status.Maintenance = &v1alpha1.MaintenanceStatus{LastQuickTime: quick, LastFullTime: full}
	}
	return r, seen
}

func ago(d time.Duration) *metav1.Time { return ptr.To(metav1.NewTime(now.Add(-d))) }

// maintenanceOf is a task that was due at a time, with a verdict unless reason is empty.
func maintenanceOf(r *v1alpha1.BackupRepository, mode v1alpha1.MaintainMode, ended time.Time, reason string) v1alpha1.AgentTask {
	task := v1alpha1.AgentTask{ObjectMeta: metav1.ObjectMeta{
		Name: "maintain-main-" + digest(string(r.UID)) + "-1", CreationTimestamp: metav1.NewTime(ended.Add(-time.Minute)),
	}}
	task.Spec.Kind, task.Spec.Maintain, task.Spec.Deadline = v1alpha1.TaskMaintain, &v1alpha1.MaintainTask{Mode: mode}, metav1.NewTime(ended.Add(time.Hour))
	if reason == "" {
		return task
	}
	status := metav1.ConditionFalse
	if reason == v1alpha1.ReasonSucceeded {
		status = metav1.ConditionTrue
		task.Status.Maintained = &v1alpha1.MaintainResult{FreedBytes: 7, UnusedBytes: 8, IndexBlobs: 9}
	} else {
		task.Status.Failure = &v1alpha1.Failure{Reason: reason, Message: "the store answered: BODY"}
	}
	task.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionSucceeded, Status: status, Reason: reason, LastTransitionTime: metav1.NewTime(ended)}}
	task.Status.CompletionTime = ptr.To(metav1.NewTime(ended))
	return task
}

func TestMaintenanceIsDue(t *testing.T) {
	for name, c := range map[string]struct {
		declared    time.Duration
		quick, full *metav1.Time
		edit        func(*v1alpha1.BackupRepository, *observed)
		due         v1alpha1.MaintainMode
		removes     int
	}{
		"not within an hour of the declaration": {declared: 59 * time.Minute},
		"quickly an hour after it":              {declared: time.Hour, due: v1alpha1.MaintainQuick},
		"fully a day after it":                  {declared: 25 * time.Hour, quick: ago(time.Hour), due: v1alpha1.MaintainFull},
		"not within an hour of the last one":    {declared: 99 * time.Hour, quick: ago(30 * time.Minute), full: ago(26 * time.Hour)},
		"quickly every hour":                    {declared: 99 * time.Hour, quick: ago(time.Hour), full: ago(20 * time.Hour), due: v1alpha1.MaintainQuick},
		"fully every day":                       {declared: 99 * time.Hour, quick: ago(time.Hour), full: ago(24 * time.Hour), due: v1alpha1.MaintainFull},
		"not while the keeper is at it": {declared: 99 * time.Hour, edit: func(r *v1alpha1.BackupRepository, s *observed) {
			s.maintenance = []v1alpha1.AgentTask{maintenanceOf(r, v1alpha1.MaintainQuick, now, "")}
		}},
		"anew when the keeper was too long at it": {declared: 99 * time.Hour, due: v1alpha1.MaintainFull, removes: 1, edit: func(r *v1alpha1.BackupRepository, s *observed) {
			s.maintenance = []v1alpha1.AgentTask{maintenanceOf(r, v1alpha1.MaintainQuick, now.Add(-2*time.Hour), "")}
		}},
		"not soon after a failure": {declared: 99 * time.Hour, quick: ago(9 * time.Hour), edit: func(r *v1alpha1.BackupRepository, s *observed) {
			s.maintenance = []v1alpha1.AgentTask{maintenanceOf(r, v1alpha1.MaintainFull, now.Add(-time.Minute), v1alpha1.ReasonRepositoryFull)}
		}},
		"an hour after a failure": {declared: 99 * time.Hour, quick: ago(9 * time.Hour), due: v1alpha1.MaintainFull, edit: func(r *v1alpha1.BackupRepository, s *observed) {
			s.maintenance = []v1alpha1.AgentTask{maintenanceOf(r, v1alpha1.MaintainFull, now.Add(-time.Hour), v1alpha1.ReasonRepositoryFull)}
		}},
		"not while the repository is away": {declared: 99 * time.Hour, edit: func(_ *v1alpha1.BackupRepository, s *observed) {
			s.probes = []v1alpha1.AgentTask{probeOf(*s, now, v1alpha1.ReasonRepositoryUnreachable)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r, seen := kept(c.declared, c.quick, c.full)
			if c.edit != nil {
				c.edit(r, &seen)
			}
			next := decide(r, seen, now)
			g.Expect(next.upkeep.mode).To(Equal(c.due))
			g.Expect(next.upkeep.name != "").To(Equal(c.due != ""))
			g.Expect(next.remove).To(HaveLen(c.removes))
			g.Expect(decide(r, seen, now.Add(time.Second)).upkeep.name).To(Equal(next.upkeep.name), "a repeated reconcile makes no second task")
		})
	}
}

func TestMaintenanceIsTold(t *testing.T) {
	g := NewWithT(t)
	r, seen := kept(99*time.Hour, ago(9*time.Hour), ago(30*time.Hour))
	ended := now.Add(-time.Minute)
	seen.maintenance = []v1alpha1.AgentTask{maintenanceOf(r, v1alpha1.MaintainFull, ended, v1alpha1.ReasonSucceeded)}
	status := decide(r, seen, now).status
	g.Expect(meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionMaintained)).To(BeTrue())
	told := status.Maintenance
	g.Expect(told.LastFullTime.Time).To(BeTemporally("==", ended))
	g.Expect(told.NextTime.Time).To(BeTemporally("==", ended.Add(time.Hour)))
	g.Expect([]int64{told.FreedBytes, told.UnusedBytes, int64(told.IndexBlobs)}).To(Equal([]int64{7, 8, 9}))

	// T4: that nothing is deleted is said loudly, in our own words.
	seen.maintenance = []v1alpha1.AgentTask{maintenanceOf(r, v1alpha1.MaintainFull, ended, v1alpha1.ReasonClockDistrusted)}
	failed := meta.FindStatusCondition(decide(r, seen, now).status.Conditions, v1alpha1.ConditionMaintained)
	g.Expect(string(failed.Status) + "/" + failed.Reason).To(Equal("False/ClockDistrusted"))
	g.Expect(failed.Message).To(And(ContainSubstring("NOTHING IS DELETED"), Not(ContainSubstring("BODY"))))
}
