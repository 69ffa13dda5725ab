package backuppolicy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

// noon is in summer, so that Berlin is two hours ahead.
var noon = time.Date(2026, 7, 6, 12, 0, 30, 0, time.UTC)

func at(clock string) time.Time {
	t, err := time.Parse("15:04:05", clock)
	if err != nil {
		panic(err)
	}
	return time.Date(2026, 7, 6, t.Hour(), t.Minute(), t.Second(), 0, time.UTC)
}

// newPolicy is one that was seen before, with a slot at each full hour of which the one at 11:00 was run.
func newPolicy(edits ...func(*v1alpha1.BackupPolicy)) *v1alpha1.BackupPolicy {
	policy := &v1alpha1.BackupPolicy{ObjectMeta: metav1.ObjectMeta{
		Namespace: "sales", Name: "gold", UID: "p1", Generation: 2, CreationTimestamp: metav1.NewTime(at("10:30:00")),
	}}
	policy.Spec.RepositoryRef.Name = "main"
	policy.Spec.Selection.All = ptr.To(true)
	policy.Spec.StartDeadlineSeconds = 6 * 3600
	policy.Spec.History = v1alpha1.JobHistory{Succeeded: 1, Failed: 1}
	policy.Spec.Schedules = []v1alpha1.Schedule{{Name: "hourly", Cron: "0 * * * *", TimeZone: "UTC", Type: v1alpha1.RunAuto}}
	policy.Status.ObservedGeneration = 2
	policy.Status.Schedules = []v1alpha1.ScheduleStatus{{Name: "hourly", LastSlot: metav1.NewTime(at("11:00:00"))}}
	for _, edit := range edits {
		edit(policy)
	}
	return policy
}

func never(p *v1alpha1.BackupPolicy)     { p.Status = v1alpha1.BackupPolicyStatus{} }
func edited(p *v1alpha1.BackupPolicy)    { p.Generation++ }
func suspended(p *v1alpha1.BackupPolicy) { p.Spec.Suspend = true }
func resumed(p *v1alpha1.BackupPolicy) {
	p.Generation++
	meta.SetStatusCondition(&p.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionReady, Status: "True", Reason: v1alpha1.ReasonSuspended})
}
func token(token string) func(*v1alpha1.BackupPolicy) {
	return func(p *v1alpha1.BackupPolicy) { p.Spec.RunNow = &v1alpha1.RunNow{Token: token, Type: v1alpha1.RunFull} }
}
func lastSlot(t time.Time) func(*v1alpha1.BackupPolicy) {
	return func(p *v1alpha1.BackupPolicy) { p.Status.Schedules[0].LastSlot = metav1.NewTime(t) }
}
func schedules(schedules ...v1alpha1.Schedule) func(*v1alpha1.BackupPolicy) {
	return func(p *v1alpha1.BackupPolicy) { p.Spec.Schedules = schedules }
}

func newMachine(name string, point time.Time) v1alpha1.VirtualMachine {
	machine := v1alpha1.VirtualMachine{ObjectMeta: metav1.ObjectMeta{Namespace: "sales", Name: name}}
	meta.SetStatusCondition(&machine.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionPresent, Status: "True"})
	if !point.IsZero() {
		machine.Status.LastRestorePoint = &v1alpha1.RestorePoint{Time: metav1.NewTime(point)}
	}
	return machine
}

func newRepository() *v1alpha1.BackupRepository {
	repository := &v1alpha1.BackupRepository{}
	repository.Spec.AllowedNamespaces = []string{"sales"}
	return repository
}

func seeing(machines ...v1alpha1.VirtualMachine) observation {
	return observation{repository: newRepository(), machines: machines}
}

func eventReasons(events []report.Event) (reasons []string) {
	for _, event := range events {
		reasons = append(reasons, event.Reason())
	}
	return reasons
}

func TestWhichRunStarts(t *testing.T) {
	weekly := v1alpha1.Schedule{Name: "weekly", Cron: "0 12 * * *", TimeZone: "UTC", Type: v1alpha1.RunFull}
	hourly := newPolicy().Spec.Schedules[0]
	cases := map[string]struct {
		policy *v1alpha1.BackupPolicy
		now    time.Time
		run    string // its id; empty for none
		last   time.Time
		events []string
	}{
		"a new policy waits for its next slot (C 25)":    {policy: newPolicy(never), now: at("10:30:01"), last: at("10:30:00")},
		"the first slot after the creation":              {policy: newPolicy(never), now: at("11:00:00"), run: "hourly-20260706-110000", last: at("11:00:00"), events: []string{"RunStarted"}},
		"a slot that is due":                             {policy: newPolicy(), now: noon, run: "hourly-20260706-120000", last: at("12:00:00"), events: []string{"RunStarted"}},
		"before the slot":                                {policy: newPolicy(), now: at("11:59:59"), last: at("11:00:00")},
		"a slot starts once":                             {policy: newPolicy(lastSlot(at("12:00:00"))), now: noon, last: at("12:00:00")},
		"several missed slots collapse to one (C 12)":    {policy: newPolicy(lastSlot(at("09:00:00"))), now: noon, run: "hourly-20260706-120000", last: at("12:00:00"), events: []string{"RunsMissed", "RunStarted"}},
		"slots older than the start deadline are passed": {policy: newPolicy(lastSlot(at("09:00:00")), func(p *v1alpha1.BackupPolicy) { p.Spec.StartDeadlineSeconds = 20 }), now: noon, last: noon, events: []string{"RunsMissed"}},
		"a slot is in its time zone": {policy: newPolicy(schedules(v1alpha1.Schedule{Name: "hourly", Cron: "0 14 * * *", TimeZone: "Europe/Berlin"})), now: noon,
			run: "hourly-20260706-120000", last: at("12:00:00"), events: []string{"RunStarted"}},
		"a schedule that is new waits for its next slot": {policy: newPolicy(edited, func(p *v1alpha1.BackupPolicy) { p.Spec.Schedules[0].Name = "renamed" }), now: noon, last: noon},
		"an edit starts nothing for a time long ago":     {policy: newPolicy(edited, schedules(v1alpha1.Schedule{Name: "hourly", Cron: "30 11 * * *", TimeZone: "UTC"})), now: noon, last: noon.Add(-time.Minute)},
		"an edit at the very moment loses no run":        {policy: newPolicy(edited), now: noon, run: "hourly-20260706-120000", last: at("12:00:00"), events: []string{"RunStarted"}},
		"suspended, slots pass":                          {policy: newPolicy(suspended), now: noon, last: at("12:00:00")},
		"resumed, nothing is made up for (C 25)":         {policy: newPolicy(resumed), now: noon, last: noon},
		"a new token":                                    {policy: newPolicy(token("t1")), now: at("11:30:00"), run: "run-now-628b49d96dcd", last: at("11:00:00"), events: []string{"RunStarted"}},
		"a token that was seen":                          {policy: newPolicy(token("t1"), func(p *v1alpha1.BackupPolicy) { p.Status.LastRunToken = "t1" }), now: at("11:30:00"), last: at("11:00:00")},
		"a token while suspended is void":                {policy: newPolicy(token("t1"), suspended), now: at("11:30:00"), last: at("11:00:00"), events: []string{"Suspended"}},
		"the more thorough of two comes first": {policy: newPolicy(schedules(hourly, weekly), func(p *v1alpha1.BackupPolicy) {
			p.Status.Schedules = append(p.Status.Schedules, v1alpha1.ScheduleStatus{Name: "weekly", LastSlot: metav1.NewTime(at("11:00:00"))})
		}), now: noon, run: "weekly-20260706-120000", last: at("11:00:00"), events: []string{"RunStarted"}},
		"a schedule that cannot be read stops no other": {policy: newPolicy(schedules(v1alpha1.Schedule{Name: "bad", Cron: "99 * * * *", TimeZone: "UTC"}, hourly)), now: noon, run: "hourly-20260706-120000", events: []string{"RunStarted"}, last: noon},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			next := decide(c.policy, seeing(newMachine("crm", c.now)), c.now)
			if c.run == "" {
				g.Expect(next.start).To(BeNil())
			} else {
				g.Expect(next.start).NotTo(BeNil())
				g.Expect(next.start.id).To(Equal(c.run))
				g.Expect(next.start.machines).To(HaveLen(1))
				g.Expect(next.status.LastRun.ID).To(Equal(c.run))
			}
			g.Expect(next.status.Schedules[0].LastSlot.Time.UTC()).To(Equal(c.last.UTC()))
			g.Expect(eventReasons(next.events)).To(Equal(c.events))
			if !c.policy.Spec.Suspend {
				g.Expect(next.status.NextRunTime.Time).To(BeTemporally(">", c.now))
				g.Expect(next.wait.For).To(BeNumerically(">", 0))
			}
		})
	}
}

func TestStartedOnceThoughDecidedTwice(t *testing.T) {
	g := NewWithT(t)
	policy := newPolicy()
	first := decide(policy, seeing(newMachine("crm", noon)), noon)
	again := decide(policy, seeing(newMachine("crm", noon)), noon.Add(time.Second))
	g.Expect(newJob(policy, first.start, &first.start.machines[0]).Name).To(Equal(newJob(policy, again.start, &again.start.machines[0]).Name), "I5")
	policy.Status = first.status
	g.Expect(decide(policy, seeing(newMachine("crm", noon)), noon.Add(time.Second)).start).To(BeNil())
}

func TestReady(t *testing.T) {
	stalledMachine := seeing(newMachine("crm", noon))
	cases := map[string]struct {
		policy  *v1alpha1.BackupPolicy
		seen    observation
		status  metav1.ConditionStatus
		reason  string
		stalled bool
		says    string
		starts  bool
	}{
		"accepted":                          {newPolicy(), seeing(newMachine("crm", noon)), "True", v1alpha1.ReasonScheduled, false, "1 virtual machines", true},
		"suspended":                         {newPolicy(suspended), seeing(newMachine("crm", noon)), "True", v1alpha1.ReasonSuspended, false, "", false},
		"nothing is selected (C 13)":        {newPolicy(), seeing(), "True", v1alpha1.ReasonNoVirtualMachines, false, "", true},
		"a name is unknown":                 {newPolicy(), observation{repository: newRepository(), machines: stalledMachine.machines, unknown: []string{"hr"}}, "True", v1alpha1.ReasonSelectionUnknownName, false, "hr", true},
		"the cron is bad":                   {newPolicy(schedules(v1alpha1.Schedule{Name: "x", Cron: "61 * * * *", TimeZone: "UTC"})), stalledMachine, "False", v1alpha1.ReasonInvalidSchedule, true, "end of range (61) above maximum (59)", false},
		"the time zone is bad":              {newPolicy(schedules(v1alpha1.Schedule{Name: "x", Cron: "1 * * * *", TimeZone: "Europe/Bielefeld"})), stalledMachine, "False", v1alpha1.ReasonInvalidSchedule, true, "unknown time zone Europe/Bielefeld", false},
		"the day never comes":               {newPolicy(schedules(v1alpha1.Schedule{Name: "x", Cron: "0 0 31 2 *", TimeZone: "UTC"})), stalledMachine, "False", v1alpha1.ReasonInvalidSchedule, true, "never comes", false},
		"an interval has no times":          {newPolicy(schedules(v1alpha1.Schedule{Name: "x", Cron: "@every 1h", TimeZone: "UTC"})), stalledMachine, "False", v1alpha1.ReasonInvalidSchedule, true, "five fields", false},
		"the repository is missing":         {newPolicy(), observation{machines: stalledMachine.machines}, "False", v1alpha1.ReasonRepositoryNotFound, false, "main", false},
		"the repository serves others only": {newPolicy(), observation{machines: stalledMachine.machines, repository: &v1alpha1.BackupRepository{}}, "False", v1alpha1.ReasonRepositoryNotAllowed, true, "allowedNamespaces", false},
		"the selector cannot be evaluated": {newPolicy(func(p *v1alpha1.BackupPolicy) {
			p.Spec.Selection = v1alpha1.Selection{Selector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Near"}}}}
		}), seeing(), "False", ReasonInvalidSelection, true, "selector", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			next := decide(c.policy, c.seen, noon)
			ready := meta.FindStatusCondition(next.status.Conditions, v1alpha1.ConditionReady)
			g.Expect(ready.Status).To(Equal(c.status))
			g.Expect(ready.Reason).To(Equal(c.reason))
			g.Expect(ready.Message).To(ContainSubstring(c.says))
			g.Expect(ready.ObservedGeneration).To(Equal(c.policy.Generation))
			g.Expect(meta.IsStatusConditionTrue(next.status.Conditions, v1alpha1.ConditionStalled)).To(Equal(c.stalled))
			g.Expect(next.start != nil).To(Equal(c.starts))
		})
	}
}

func TestARunThatCouldNotStartIsMadeUpForOnce(t *testing.T) {
	g := NewWithT(t)
	policy := newPolicy()
	policy.Status = decide(policy, observation{}, noon).status
	later := noon.Add(90 * time.Minute)
	next := decide(policy, seeing(newMachine("crm", noon)), later)
	g.Expect(next.start.id).To(Equal("hourly-20260706-130000"), "the repository came back: the newest of the slots that passed")
}

func TestObjective(t *testing.T) {
	promising := func(p *v1alpha1.BackupPolicy) {
		p.Spec.Objectives, p.Spec.Schedules = &v1alpha1.Objectives{RPO: "4h"}, nil
	}
	many := []v1alpha1.VirtualMachine{}
	for i := range 7 {
		many = append(many, newMachine(fmt.Sprintf("vm-%d", i), time.Time{}))
	}
	cases := map[string]struct {
		machines   []v1alpha1.VirtualMachine
		status     metav1.ConditionStatus
		reason     string
		says       string
		compliance string
		wakes      time.Duration
	}{
		"all are young enough": {[]v1alpha1.VirtualMachine{newMachine("a", noon.Add(-time.Hour)), newMachine("b", noon.Add(-3*time.Hour))},
			"True", v1alpha1.ReasonRPOMet, "all 2", "2/2", time.Hour + time.Second},
		"one is too old": {[]v1alpha1.VirtualMachine{newMachine("a", noon.Add(-time.Hour)), newMachine("b", noon.Add(-5*time.Hour))},
			"False", v1alpha1.ReasonRPOMissed, "older than 4h: b", "1/2", 3*time.Hour + time.Second},
		"one has none":                  {[]v1alpha1.VirtualMachine{newMachine("a", time.Time{})}, "False", v1alpha1.ReasonNeverBackedUp, "never backed up: a", "0/1", 0},
		"one is too old, one has none":  {[]v1alpha1.VirtualMachine{newMachine("b", noon.Add(-5*time.Hour)), newMachine("a", time.Time{})}, "False", v1alpha1.ReasonRPOMissed, "older than 4h: b; never backed up: a", "0/2", 0},
		"the first few are named":       {many, "False", v1alpha1.ReasonNeverBackedUp, "vm-4 and 2 more", "0/7", 0},
		"there is nothing to be judged": {nil, "Unknown", v1alpha1.ReasonNoVirtualMachines, "", "0/0", 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			next := decide(newPolicy(promising), seeing(c.machines...), noon)
			met := meta.FindStatusCondition(next.status.Conditions, v1alpha1.ConditionRPOMet)
			g.Expect(met.Status).To(Equal(c.status))
			g.Expect(met.Reason).To(Equal(c.reason))
			g.Expect(met.Message).To(ContainSubstring(c.says))
			g.Expect(next.status.Compliance).To(Equal(c.compliance))
			g.Expect(next.wait.For).To(Equal(c.wakes))
			g.Expect(meta.IsStatusConditionTrue(next.status.Conditions, v1alpha1.ConditionReady)).To(BeTrue(), "Ready never depends on how backups went")
		})
	}
	g := NewWithT(t)
	g.Expect(meta.FindStatusCondition(decide(newPolicy(), seeing(), noon).status.Conditions, v1alpha1.ConditionRPOMet)).To(BeNil())
}

func newTestJob(name, machine string, status metav1.ConditionStatus, finished time.Time, edits ...func(*v1alpha1.BackupJob)) v1alpha1.BackupJob {
	job := v1alpha1.BackupJob{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{v1alpha1.LabelRunID: "hourly-1"}}}
	job.Spec.VirtualMachineRef.Name = machine
	meta.SetStatusCondition(&job.Status.Conditions, metav1.Condition{Type: v1alpha1.ConditionSucceeded, Status: status})
	job.Status.CompletionTime = &metav1.Time{Time: finished}
	for _, edit := range edits {
		edit(&job)
	}
	return job
}

func TestHistory(t *testing.T) {
	ago := func(h int) time.Time { return noon.Add(-time.Duration(h) * time.Hour) }
	jobs := []v1alpha1.BackupJob{
		newTestJob("old-good", "a", "True", ago(3)), newTestJob("new-good", "a", "True", ago(1)),
		newTestJob("old-bad", "a", "False", ago(4)), newTestJob("new-bad", "a", "False", ago(2)),
		newTestJob("other-vm", "b", "True", ago(9)),
		newTestJob("running", "a", "Unknown", ago(9)),
		newTestJob("host-not-clean", "a", "True", ago(9), func(j *v1alpha1.BackupJob) { j.Finalizers = []string{v1alpha1.FinalizerHostClean} }),
	}
	var names []string
	for _, job := range decide(newPolicy(lastSlot(noon)), observation{repository: newRepository(), jobs: jobs}, noon).prune {
		names = append(names, job.Name)
	}
	NewWithT(t).Expect(strings.Join(names, " ")).To(Equal("old-good old-bad"), "C 36: per virtual machine, good and bad ones apart")
}

func TestLastRunIsSummedUp(t *testing.T) {
	g := NewWithT(t)
	policy := newPolicy(lastSlot(noon), func(p *v1alpha1.BackupPolicy) {
		p.Status.LastRun = &v1alpha1.PolicyRun{ID: "hourly-1", Jobs: 99}
	})
	other := newTestJob("d", "d", "True", noon, func(j *v1alpha1.BackupJob) { j.Labels[v1alpha1.LabelRunID] = "hourly-0" })
	jobs := []v1alpha1.BackupJob{newTestJob("a", "a", "True", noon), newTestJob("b", "b", "False", noon), newTestJob("c", "c", "Unknown", noon), other}
	got := decide(policy, observation{repository: newRepository(), jobs: jobs}, noon).status.LastRun
	g.Expect(*got).To(Equal(v1alpha1.PolicyRun{ID: "hourly-1", Jobs: 3, Succeeded: 1, Failed: 1}))
}

func TestBusyMachines(t *testing.T) {
	jobs := []v1alpha1.BackupJob{newTestJob("a", "a", "Unknown", noon), newTestJob("b", "b", "True", noon)}
	g := NewWithT(t)
	g.Expect(busyMachines(jobs, "hourly-2")).To(Equal(map[string]bool{"a": true}))
	g.Expect(busyMachines(jobs, "hourly-1")).To(BeEmpty(), "a run that is started again is not in its own way")
}

func TestJobsTakeNothingFromTheirPolicyButSettings(t *testing.T) {
	g := NewWithT(t)
	policy := newPolicy(func(p *v1alpha1.BackupPolicy) {
		p.Name = strings.Repeat("p", 40)
		p.Labels = map[string]string{"app.kubernetes.io/instance": "argo"}
		p.Annotations = map[string]string{"argocd.argoproj.io/tracking-id": "x"}
		p.Spec.Retention = &v1alpha1.Retention{KeepLast: ptr.To(int32(3))}
	})
	machine := newMachine(strings.Repeat("m", 63), noon)
	job := newJob(policy, requestedRun(v1alpha1.RunNow{Token: "any text: Ü", Type: v1alpha1.RunFull}, noon), &machine)
	g.Expect(len(job.Name)).To(BeNumerically("<=", 63), "C 27")
	g.Expect(job.Labels).NotTo(HaveKey("app.kubernetes.io/instance"), "C 17")
	g.Expect(job.Annotations).To(BeEmpty(), "C 17")
	g.Expect(metav1.IsControlledBy(job, policy)).To(BeTrue())
	g.Expect(job.Spec.Retention).To(Equal(policy.Spec.Retention))
	*policy.Spec.Retention.KeepLast = 9
	g.Expect(*job.Spec.Retention.KeepLast).To(Equal(int32(3)), "a later edit does not reach a job")
}
