package backuppolicy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/delegation"
	"github.com/hyperkeep/hyperkeep/controllers/report"
	"github.com/hyperkeep/hyperkeep/controllers/selection"
)

// Reasons that only this controller gives.
const (
	// ReasonInvalidSelection says that the selector of a policy cannot be evaluated.
	ReasonInvalidSelection = "InvalidSelection"
	// ReasonRunsMissed says that runs did not start in time.
	ReasonRunsMissed = "RunsMissed"
)

// next is what to do for a policy: to start a run, or else to delete the jobs of old ones, or nothing.
type next struct {
	start  *run
	prune  []v1alpha1.BackupJob
	status v1alpha1.BackupPolicyStatus
	wait   report.Wait
	events []report.Event
}

// decider holds what a decision about a policy is made of.
type decider struct {
	policy     *v1alpha1.BackupPolicy
	seen       observation
	now        time.Time
	next       next
	conditions report.Conditions
	// schedules that can be read, and why others cannot.
	schedules map[string]cron.Schedule
	invalid   []string
}

// decide says what a policy does next. It reads nothing but its arguments.
func decide(policy *v1alpha1.BackupPolicy, seen observation, now time.Time) next {
	d := &decider{policy: policy, seen: seen, now: now, schedules: map[string]cron.Schedule{}}
	d.next.status = *policy.Status.DeepCopy()
	d.conditions = report.ConditionsOf(&d.next.status.Conditions, policy.Generation, now)
	d.read()
	d.startRuns()
	d.next.status.ObservedGeneration = policy.Generation
	d.reportReady()
	d.reportObjective()
	d.sumUp()
	if d.next.start == nil {
		d.next.prune = outdated(policy.Spec.History, seen.jobs)
	}
	return d.next
}

// read parses the schedules. One that cannot be read stops no other.
func (d *decider) read() {
	for _, schedule := range d.policy.Spec.Schedules {
		parsed, err := parse(schedule)
		if err != nil {
			d.invalid = append(d.invalid, err.Error())
			continue
		}
		d.schedules[schedule.Name] = parsed
	}
}

// startRuns starts the run that is due, if any: one at a time, the most thorough one first, for another one skips the virtual machines that are at it.
func (d *decider) startRuns() {
	d.rememberSchedules()
	if d.policy.Spec.Suspend {
		d.passOver()
		return
	}
	if d.obstacle() == nil {
		d.start()
	}
	for name, schedule := range d.schedules {
		at := following(schedule, d.record(name).LastSlot.Time, d.now)
		if d.next.status.NextRunTime == nil || at.Before(d.next.status.NextRunTime.Time) {
			d.next.status.NextRunTime = &metav1.Time{Time: at}
		}
		d.next.wait = d.next.wait.Sooner(report.Until(d.now, at, "schedule "+name))
	}
}

// rememberSchedules keeps one record for each schedule. The first slot of a new one is the next to come: nothing is due before a schedule existed, nor
// while the policy was suspended.
func (d *decider) rememberSchedules() {
	since := d.now
	if d.policy.Status.ObservedGeneration == 0 {
		since = d.policy.CreationTimestamp.Time
	}
	ready := meta.FindStatusCondition(d.policy.Status.Conditions, v1alpha1.ConditionReady)
	resumed := ready != nil && ready.Reason == v1alpha1.ReasonSuspended
	edited := d.policy.Status.ObservedGeneration != 0 && d.policy.Status.ObservedGeneration != d.policy.Generation
	records := make([]v1alpha1.ScheduleStatus, 0, len(d.policy.Spec.Schedules))
	for _, schedule := range d.policy.Spec.Schedules {
		record := v1alpha1.ScheduleStatus{Name: schedule.Name, LastSlot: report.Time(since)}
		if known := d.lastSlot(schedule.Name); known != nil {
			record.LastSlot = *known
			switch oldest := d.now.Add(-editGrace); {
			case resumed:
				record.LastSlot = report.Time(d.now)
			case edited && known.Time.Before(oldest):
				record.LastSlot = report.Time(oldest)
			}
		}
		records = append(records, record)
	}
	d.next.status.Schedules, d.next.status.NextRunTime = records, nil
}

func (d *decider) lastSlot(name string) *metav1.Time {
	for i := range d.policy.Status.Schedules {
		if d.policy.Status.Schedules[i].Name == name {
			return &d.policy.Status.Schedules[i].LastSlot
		}
	}
	return nil
}

// passOver forgets what a suspended policy is asked for.
func (d *decider) passOver() {
	for i := range d.next.status.Schedules {
		record := &d.next.status.Schedules[i]
		schedule, readable := d.schedules[record.Name]
		if !readable {
			continue
		}
		if slot, _ := due(schedule, record.LastSlot.Time, d.now, d.patience()); !slot.IsZero() {
			record.LastSlot = metav1.NewTime(slot)
		}
	}
	if request := d.policy.Spec.RunNow; request != nil && request.Token != d.next.status.LastRunToken {
		d.next.status.LastRunToken = request.Token
		d.next.events = append(d.next.events, report.Warning(v1alpha1.ReasonSuspended, "runNow %q starts nothing: the policy is suspended", request.Token))
	}
}

// start starts the first of the runs that are due.
func (d *decider) start() {
	if request := d.policy.Spec.RunNow; request != nil && request.Token != d.next.status.LastRunToken {
		d.next.status.LastRunToken = request.Token
		d.begin(requestedRun(*request, d.now))
		return
	}
	schedules := slices.Clone(d.policy.Spec.Schedules)
	slices.SortStableFunc(schedules, func(a, b v1alpha1.Schedule) int { return cmp.Compare(thoroughness(b.Type), thoroughness(a.Type)) })
	for _, schedule := range schedules {
		parsed, readable := d.schedules[schedule.Name]
		if !readable {
			continue
		}
		record := d.record(schedule.Name)
		slot, missed := due(parsed, record.LastSlot.Time, d.now, d.patience())
		if missed {
			d.next.events = append(d.next.events, report.Warning(ReasonRunsMissed, "schedule %s: runs since %s did not start and are not made up for, but for the newest one within startDeadlineSeconds",
				schedule.Name, record.LastSlot.UTC().Format(time.RFC3339)))
		}
		if !slot.IsZero() {
			record.LastSlot = metav1.NewTime(slot)
			d.begin(scheduledRun(schedule, slot))
			return
		}
		if missed {
			record.LastSlot = report.Time(d.now)
		}
	}
}

func (d *decider) record(name string) *v1alpha1.ScheduleStatus {
	i := slices.IndexFunc(d.next.status.Schedules, func(r v1alpha1.ScheduleStatus) bool { return r.Name == name })
	return &d.next.status.Schedules[i]
}

func (d *decider) begin(run *run) {
	run.machines = d.seen.machines
	d.next.start = run
	d.next.status.LastRun = &v1alpha1.PolicyRun{ID: run.id, Time: report.Time(run.time)}
	// Another schedule may be due as well: look again as soon as this run has started.
	d.next.wait = report.Wait{For: time.Second, Because: "a run was started"}
	if len(d.seen.unknown) > 0 {
		d.next.events = append(d.next.events, report.Warning(v1alpha1.ReasonSelectionUnknownName, "no such virtual machine: %s", strings.Join(d.seen.unknown, ", ")))
	}
	if len(d.seen.machines) == 0 {
		d.next.events = append(d.next.events, report.Warning(v1alpha1.ReasonNoVirtualMachines, "run %s has nothing to do: no virtual machine is selected", run.id))
		return
	}
	d.next.events = append(d.next.events, report.Normal(v1alpha1.ReasonRunStarted, "run %s of %d virtual machines", run.id, len(run.machines)))
}

func (d *decider) patience() time.Duration {
	return time.Duration(d.policy.Spec.StartDeadlineSeconds) * time.Second
}

// obstacle keeps all runs of the policy from starting. A repository that is only away does not: jobs wait for it.
func (d *decider) obstacle() *delegation.Obstacle {
	if err := selection.Check(d.policy); err != nil {
		return delegation.Stalls(ReasonInvalidSelection, "%s", err)
	}
	o := delegation.RepositoryObstacle(d.seen.repository, d.policy.Spec.RepositoryRef.Name, d.policy.Namespace)
	if o != nil && o.Reason == v1alpha1.ReasonRepositoryNotReady {
		return nil
	}
	return o
}

func thoroughness(kind v1alpha1.RunType) int {
	return slices.Index([]v1alpha1.RunType{v1alpha1.RunAuto, v1alpha1.RunFull, v1alpha1.RunForcedRescan}, kind)
}

// reportReady says whether the policy is accepted. How its backups went is no part of that.
func (d *decider) reportReady() {
	obstacle := d.obstacle()
	switch {
	case obstacle != nil && obstacle.Remedy == delegation.Person:
		d.conditions.False(v1alpha1.ConditionReady, obstacle.Reason, obstacle.Message)
		d.conditions.Stalled(obstacle.Reason, obstacle.Message)
	case len(d.invalid) > 0:
		message := strings.Join(d.invalid, "; ")
		d.conditions.False(v1alpha1.ConditionReady, v1alpha1.ReasonInvalidSchedule, message)
		d.conditions.Stalled(v1alpha1.ReasonInvalidSchedule, message)
	case obstacle != nil:
		d.conditions.False(v1alpha1.ConditionReady, obstacle.Reason, obstacle.Message)
		d.conditions.Reconciling(obstacle.Reason, obstacle.Message)
	default:
		d.conditions.Settled()
		reason, message := d.accepted()
		d.conditions.True(v1alpha1.ConditionReady, reason, message)
	}
}

func (d *decider) accepted() (reason, message string) {
	switch {
	case d.policy.Spec.Suspend:
		return v1alpha1.ReasonSuspended, "nothing is started while spec.suspend is set"
	case len(d.seen.unknown) > 0:
		return v1alpha1.ReasonSelectionUnknownName, "no such virtual machine: " + strings.Join(d.seen.unknown, ", ") + "; the others are protected"
	case len(d.seen.machines) == 0:
		return v1alpha1.ReasonNoVirtualMachines, "no virtual machine is selected"
	default:
		return v1alpha1.ReasonScheduled, fmt.Sprintf("%d virtual machines are selected", len(d.seen.machines))
	}
}
