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

const day = 24 * time.Hour

// shareTask is a task that read a share, with a verdict unless reason is empty.
func shareTask(r *v1alpha1.BackupRepository, ended time.Time, reason string, found *v1alpha1.ScrubResult) v1alpha1.AgentTask {
	task := v1alpha1.AgentTask{ObjectMeta: metav1.ObjectMeta{
		Name: "scrub-main-" + digest(string(r.UID)) + "-1", CreationTimestamp: metav1.NewTime(ended.Add(-100 * time.Second)),
	}}
	task.Spec.Kind, task.Spec.Deadline, task.Status.Scrubbed = v1alpha1.TaskScrub, metav1.NewTime(ended.Add(time.Hour)), found
	if reason == "" {
		return task
	}
	status := metav1.ConditionFalse
	if reason == v1alpha1.ReasonSucceeded {
		status = metav1.ConditionTrue
	} else {
		task.Status.Failure = &v1alpha1.Failure{Reason: reason, Message: "the store answered: BODY"}
	}
	task.Status.Conditions = []metav1.Condition{{Type: v1alpha1.ConditionSucceeded, Status: status, Reason: reason, LastTransitionTime: metav1.NewTime(ended)}}
	task.Status.CompletionTime = ptr.To(metav1.NewTime(ended))
	return task
}

func TestShareIsDue(t *testing.T) {
	at := func(days float64, position int32, lastShare time.Duration) *v1alpha1.VerificationStatus {
		return &v1alpha1.VerificationStatus{
			StartTime: *ago(time.Duration(days * float64(day))), Position: position, LastShareTime: ago(lastShare), DamagedPacks: []string{"p1"},
		}
	}
	const daily = places / 30
	for name, c := range map[string]struct {
		declared time.Duration
		before   *v1alpha1.VerificationStatus
		spec     *v1alpha1.RepositoryVerification
		edit     func(*v1alpha1.BackupRepository, *observed)
		from, to int32 // to is zero when nothing is due
	}{
		"not on the day of the declaration":              {declared: 23 * time.Hour},
		"a thirtieth a day later":                        {declared: day, to: daily + 1},
		"no more where nothing was ever verified":        {declared: 900 * day, to: daily + 1},
		"not within a day of the last share":             {declared: 9 * day, before: at(3, 2*daily, 23*time.Hour)},
		"what follows a day after it":                    {declared: 9 * day, before: at(3, 2*daily, day), from: 2 * daily, to: 3*daily + 1},
		"what was missed in a week too":                  {declared: 9 * day, before: at(9, 2*daily, 7*day), from: 2 * daily, to: 9*daily + 2},
		"never less than a place":                        {declared: 9 * day, before: at(1, 9*daily, day), from: 9 * daily, to: 9*daily + 1},
		"never more than all":                            {declared: 99 * day, before: at(99, 9, day), from: 9, to: places},
		"all in one go where a round is a day":           {declared: 9 * day, before: at(1, 0, day), spec: &v1alpha1.RepositoryVerification{Every: "1d"}, to: places},
		"a day is the shortest round":                    {declared: 9 * day, before: at(0.5, 0, day), spec: &v1alpha1.RepositoryVerification{Every: "1h"}, to: places/2 + 1},
		"nothing while it is suspended":                  {declared: 9 * day, before: at(3, 0, day), spec: &v1alpha1.RepositoryVerification{Suspend: true}},
		"nothing while the keeper is at it":              {declared: 9 * day, before: at(3, 0, day), edit: sharing(now, "", nil)},
		"not soon after a failure":                       {declared: 9 * day, before: at(3, 0, day), edit: sharing(now.Add(-time.Minute), v1alpha1.ReasonRepositoryUnreachable, nil)},
		"an hour after a failure":                        {declared: 9 * day, before: at(3, 5, 2*day), edit: sharing(now.Add(-time.Hour), v1alpha1.ReasonRepositoryUnreachable, nil), from: 5, to: 3*daily + 1},
		"from where it came to, when the keeper stopped": {declared: 9 * day, before: at(3, 5, 2*day), edit: sharing(now.Add(-time.Hour), v1alpha1.ReasonDeadlineExceeded, &v1alpha1.ScrubResult{Position: 1000}), from: 1000, to: 3*daily + 1},
		"not while the repository is away": {declared: 9 * day, before: at(3, 0, day), edit: func(_ *v1alpha1.BackupRepository, s *observed) {
			s.probes = []v1alpha1.AgentTask{probeOf(*s, now, v1alpha1.ReasonRepositoryUnreachable)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			r, seen := kept(c.declared, ago(time.Minute), ago(time.Minute))
			r.Status.Verification, r.Spec.Verification = c.before, c.spec
			if c.edit != nil {
				c.edit(r, &seen)
			}
			due := decide(r, seen, now).share
			g.Expect(due.name != "").To(Equal(c.to > 0))
			g.Expect(due.task.From).To(Equal(c.from))
			g.Expect(due.task.To).To(BeNumerically("~", c.to, 4))
			if c.to > 0 && c.before != nil && c.edit == nil {
				g.Expect(due.task.Again).To(Equal([]string{"p1"}))
			}
			g.Expect(decide(r, seen, now.Add(time.Second)).share.name).To(Equal(due.name), "a repeated reconcile makes no second task")
		})
	}
}

func sharing(ended time.Time, reason string, found *v1alpha1.ScrubResult) func(*v1alpha1.BackupRepository, *observed) {
	return func(r *v1alpha1.BackupRepository, s *observed) {
		s.shares = []v1alpha1.AgentTask{shareTask(r, ended, reason, found)}
	}
}

func TestSharesAreTold(t *testing.T) {
	g := NewWithT(t)
	r, seen := kept(99*day, ago(time.Minute), ago(time.Minute))
	r.Status.Verification = &v1alpha1.VerificationStatus{StartTime: *ago(30 * day), Position: 9000, Bytes: 40, LastShareTime: ago(day)}
	ended := now.Add(-time.Minute)
	judged := func() *metav1.Condition {
		return meta.FindStatusCondition(decide(r, seen, now).status.Conditions, v1alpha1.ConditionVerified)
	}

	seen.shares = []v1alpha1.AgentTask{shareTask(r, ended, v1alpha1.ReasonSucceeded, &v1alpha1.ScrubResult{Position: 32768, Bytes: 1000})}
	status := decide(r, seen, now).status
	g.Expect(*status.Verification).To(Equal(v1alpha1.VerificationStatus{
		StartTime: *ago(30 * day), Position: 32768, Bytes: 1040, LastShareTime: ago(time.Minute), BytesPerSecond: 10, NextTime: ptr.To(metav1.NewTime(ended.Add(day))),
	}))
	g.Expect(judged().Status).To(Equal(metav1.ConditionTrue))
	g.Expect(judged().Message).To(ContainSubstring("50 %"))
	r.Status = status
	g.Expect(decide(r, seen, now).status.Verification.Bytes).To(BeEquivalentTo(1040), "a share counts once")

	r.Status.Verification.LastShareTime = ago(day)
	seen.shares = []v1alpha1.AgentTask{shareTask(r, ended, v1alpha1.ReasonSucceeded, &v1alpha1.ScrubResult{
		Position: places, Bytes: 60, Damaged: 3, DamagedPacks: []string{"p7"}, Images: make([]v1alpha1.DamagedImage, 2), OtherImages: 5,
	})}
	told := decide(r, seen, now).status.Verification
	g.Expect(told.LastRoundTime.Time).To(BeTemporally("==", ended))
	g.Expect([]int64{told.LastRoundBytes, told.Bytes, int64(told.Position), told.Damaged, int64(told.DamagedImages)}).To(Equal([]int64{1100, 0, 0, 3, 7}))
	g.Expect(told.StartTime.Time).To(BeTemporally("==", now), "the next round begins when this one should have ended")
	g.Expect(judged().Reason).To(Equal(v1alpha1.ReasonDamaged))

	seen.shares = []v1alpha1.AgentTask{shareTask(r, ended, v1alpha1.ReasonAccessDenied, nil)}
	g.Expect(judged().Status).To(Equal(metav1.ConditionUnknown))
	g.Expect(judged().Message).NotTo(ContainSubstring("BODY"))
}
