package delegation

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/controllers/report"
)

var start = time.Date(2026, 5, 4, 3, 0, 0, 0, time.UTC)

// newRun is a run one minute after its creation, held by its finalizer, with all edits applied.
func newRun(edits ...func(*Run)) Run {
	run := Run{
		Owner:         v1alpha1.TaskOwner{Kind: "BackupJob", Namespace: "sales", Name: "crm", UID: "u1"},
		Work:          v1alpha1.TaskBackup,
		Generation:    1,
		Created:       start.Add(-time.Minute),
		Attempts:      3,
		StartDeadline: time.Hour,
		RunDeadline:   4 * time.Hour,
		Held:          true,
	}
	for _, edit := range edits {
		edit(&run)
	}
	return run
}

func canceled(r *Run) { r.Cancel = true }
func deleted(r *Run)  { r.Cancel, r.Deleting = true, true }
func unheld(r *Run)   { r.Held = false }
func attempted(n int32) func(*Run) {
	return func(r *Run) { r.Status.Attempt = n }
}
func retryAt(t time.Time) func(*Run) {
	return func(r *Run) { due := metav1.NewTime(t); r.Status.RetryTime = &due }
}

// newTask is the task of an attempt that was placed an hour before the start.
func newTask(attempt int32, edits ...func(*v1alpha1.AgentTask)) v1alpha1.AgentTask {
	next := Next{Attempt: attempt, Deadline: start.Add(time.Hour), Status: v1alpha1.RunStatus{HostName: "hv01"}}
	task := NewHostTask(newRun(), next, "vm-1")
	task.UID = types.UID("task-" + task.Name)
	task.CreationTimestamp = metav1.NewTime(start.Add(-time.Hour))
	for _, edit := range edits {
		edit(task)
	}
	return *task
}

func told(kind string, status metav1.ConditionStatus, reason string) func(*v1alpha1.AgentTask) {
	return func(t *v1alpha1.AgentTask) {
		meta.SetStatusCondition(&t.Status.Conditions, metav1.Condition{
			Type: kind, Status: status, Reason: reason, Message: reason, LastTransitionTime: metav1.NewTime(start.Add(-time.Minute)),
		})
	}
}

var (
	claimed    = told(v1alpha1.ConditionClaimed, metav1.ConditionTrue, v1alpha1.ReasonClaimed)
	succeeded  = told(v1alpha1.ConditionSucceeded, metav1.ConditionTrue, v1alpha1.ReasonSucceeded)
	released   = told(v1alpha1.ConditionReleased, metav1.ConditionTrue, v1alpha1.ReasonReleased)
	unreleased = told(v1alpha1.ConditionReleased, metav1.ConditionFalse, v1alpha1.ReasonMergePending)
)

func failed(action v1alpha1.FailureAction) func(*v1alpha1.AgentTask) {
	return func(t *v1alpha1.AgentTask) {
		told(v1alpha1.ConditionSucceeded, metav1.ConditionFalse, v1alpha1.ReasonFailed)(t)
		t.Status.Failure = &v1alpha1.Failure{Reason: "DiskTrouble", Message: "a disk had trouble", Action: action}
	}
}

func stopped(t *v1alpha1.AgentTask)          { t.Spec.Cancel = true }
func overdue(t *v1alpha1.AgentTask)          { t.Spec.Deadline = metav1.NewTime(start.Add(-time.Minute)) }
func longOverdue(t *v1alpha1.AgentTask)      { t.Spec.Deadline = metav1.NewTime(start.Add(-time.Hour)) }
func work(tasks ...v1alpha1.AgentTask) Tasks { return Tasks{Work: tasks} }
func reasonOf(status v1alpha1.RunStatus) string {
	return meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionSucceeded).Reason
}

func TestDecideARunWithoutVerdict(t *testing.T) {
	limit := Waits(v1alpha1.ReasonHostAtLimit, "host hv01 runs 2 of 2 jobs")
	cases := map[string]struct {
		run    Run
		seen   Seen
		action Action
		status metav1.ConditionStatus
		reason string
		phase  string
		wakes  time.Duration // 0: a watch alone
	}{
		"a new run is held first, so that nothing exists outside that nobody cleans up (I4)": {
			run: newRun(unheld), action: Hold},
		"then its first task is made": {
			run: newRun(), action: Place, status: "Unknown", reason: v1alpha1.ReasonPlaced, phase: "Placed"},
		"it waits while its host has no room, and is not held for that": {
			run: newRun(unheld), seen: Seen{Obstacle: limit},
			status: "Unknown", reason: v1alpha1.ReasonQueued, phase: "Queued", wakes: pollInterval},
		"it stalls on what a person must change, and goes on then": {
			run: newRun(unheld), seen: Seen{Obstacle: Stalls(v1alpha1.ReasonRepositoryNotAllowed, "no")},
			status: "Unknown", reason: v1alpha1.ReasonRepositoryNotAllowed, phase: "Stalled", wakes: pollInterval},
		"it fails on what never goes away": {
			run: newRun(unheld), seen: Seen{Obstacle: Fails(v1alpha1.ReasonVirtualMachineGone, "no")},
			status: "False", reason: v1alpha1.ReasonVirtualMachineGone, phase: "Failed"},
		"it fails when it waited too long": {
			run: newRun(unheld, func(r *Run) { r.Created = start.Add(-time.Hour) }), seen: Seen{Obstacle: limit},
			status: "False", reason: v1alpha1.ReasonDeadlineExceeded, phase: "Failed"},
		"it fails too when the way is free only now": {
			run:    newRun(unheld, func(r *Run) { r.Created = start.Add(-time.Hour) }),
			status: "False", reason: v1alpha1.ReasonDeadlineExceeded, phase: "Failed"},
		"it wakes at the start deadline": {
			run: newRun(unheld, func(r *Run) { r.Created = start.Add(-time.Hour + time.Second) }), seen: Seen{Obstacle: limit},
			status: "Unknown", reason: v1alpha1.ReasonQueued, phase: "Queued", wakes: time.Second},
		"canceled before anything was made, it ends at once": {
			run: newRun(unheld, canceled), seen: Seen{Obstacle: limit},
			status: "False", reason: v1alpha1.ReasonCanceled, phase: "Canceled"},

		"a task that nobody claimed yet": {
			run: newRun(attempted(1)), seen: Seen{HostReady: true, Tasks: work(newTask(1))},
			status: "Unknown", reason: v1alpha1.ReasonPlaced, phase: "Placed", wakes: time.Hour + deadlineGrace + time.Second},
		"a task of which the status does not know yet is found again, not made twice (I5)": {
			run: newRun(), seen: Seen{HostReady: true, Tasks: work(newTask(1, claimed))},
			status: "Unknown", reason: v1alpha1.ReasonRunning, phase: "Running", wakes: time.Hour + deadlineGrace + time.Second},
		"canceled while it runs, its task is canceled": {
			run: newRun(canceled), seen: Seen{HostReady: true, Tasks: work(newTask(1, claimed))},
			action: Cancel, status: "Unknown", reason: v1alpha1.ReasonReleasing, phase: "Releasing"},
		"deleted while it runs, its task is canceled": {
			run: newRun(deleted), seen: Seen{HostReady: true, Tasks: work(newTask(1, claimed))},
			action: Cancel, status: "Unknown", reason: v1alpha1.ReasonReleasing, phase: "Releasing"},
		"canceled, it waits until the agent has stopped": {
			run: newRun(canceled), seen: Seen{HostReady: true, Tasks: work(newTask(1, claimed, stopped))},
			status: "Unknown", reason: v1alpha1.ReasonReleasing, phase: "Releasing", wakes: time.Hour + deadlineGrace + time.Second},
		"the agent has stopped": {
			run: newRun(canceled), seen: Seen{HostReady: true, Tasks: work(newTask(1, claimed, stopped, failed(v1alpha1.FailureStall)))},
			status: "False", reason: v1alpha1.ReasonCanceled, phase: "Canceled"},
		"canceled too late: the image is there": {
			run: newRun(canceled), seen: Seen{HostReady: true, Tasks: work(newTask(1, claimed, stopped, succeeded))},
			status: "True", reason: "Done", phase: "Succeeded"},

		"the agent is lost: no verdict yet, and no second task": {
			run: newRun(), seen: Seen{Tasks: work(newTask(1, claimed))},
			status: "Unknown", reason: v1alpha1.ReasonHostUnreachable, phase: "HostUnreachable", wakes: time.Hour + time.Second},
		"it is lost beyond the deadline: it is told to stop, for when it comes back": {
			run: newRun(), seen: Seen{Tasks: work(newTask(1, claimed, overdue))},
			action: Cancel, status: "Unknown", reason: v1alpha1.ReasonHostUnreachable, phase: "HostUnreachable"},
		"then the run fails, and is not tried again while the first task may live": {
			run: newRun(), seen: Seen{Tasks: work(newTask(1, claimed, overdue, stopped))},
			status: "False", reason: v1alpha1.ReasonHostUnreachable, phase: "Failed"},
		"an agent that is alive has time to give up by itself": {
			run: newRun(), seen: Seen{HostReady: true, Tasks: work(newTask(1, claimed, overdue))},
			status: "Unknown", reason: v1alpha1.ReasonRunning, phase: "Running", wakes: deadlineGrace - time.Minute + time.Second},
		"one that does not is told to": {
			run: newRun(), seen: Seen{HostReady: true, Tasks: work(newTask(1, claimed, longOverdue))},
			action: Cancel, status: "Unknown", reason: v1alpha1.ReasonDeadlineExceeded, phase: "DeadlineExceeded"},
		"and the run fails": {
			run: newRun(), seen: Seen{HostReady: true, Tasks: work(newTask(1, claimed, longOverdue, stopped))},
			status: "False", reason: v1alpha1.ReasonDeadlineExceeded, phase: "Failed"},

		"the task succeeded": {
			run: newRun(), seen: Seen{HostReady: true, Tasks: work(newTask(1, claimed, succeeded, released))},
			status: "True", reason: "Done", phase: "Succeeded"},
		"it succeeded, and the host is not clean: that does not wait": {
			run: newRun(), seen: Seen{HostReady: true, Tasks: work(newTask(1, claimed, succeeded, unreleased))},
			status: "True", reason: "Done", phase: "Succeeded"},
		"a failure that a person must mend ends the run": {
			run: newRun(), seen: Seen{Tasks: work(newTask(1, failed(v1alpha1.FailureStall)))},
			status: "False", reason: "DiskTrouble", phase: "Failed"},
		"a failure that may go away is tried again after a pause": {
			run: newRun(), seen: Seen{Tasks: work(newTask(1, failed(v1alpha1.FailureRetry)))},
			status: "Unknown", reason: v1alpha1.ReasonRetrying, phase: "Retrying", wakes: 30 * time.Second},
		"the pause goes on": {
			run: newRun(retryAt(start.Add(7 * time.Second))), seen: Seen{Tasks: work(newTask(1, failed(v1alpha1.FailureRetry)))},
			status: "Unknown", reason: v1alpha1.ReasonRetrying, phase: "Retrying", wakes: 7 * time.Second},
		"the pause is used to clean up": {
			run: newRun(), seen: Seen{Tasks: work(newTask(1, failed(v1alpha1.FailureRetry), unreleased))},
			action: Release, status: "Unknown", reason: v1alpha1.ReasonRetrying, phase: "Retrying", wakes: 30 * time.Second},
		"the pause is over": {
			run: newRun(retryAt(start)), seen: Seen{Tasks: work(newTask(1, failed(v1alpha1.FailureRetry)))},
			action: Place, status: "Unknown", reason: v1alpha1.ReasonPlaced, phase: "Placed"},
		"the pause is over, and the host is busy": {
			run: newRun(retryAt(start)), seen: Seen{Obstacle: limit, Tasks: work(newTask(1, failed(v1alpha1.FailureRetry)))},
			status: "Unknown", reason: v1alpha1.ReasonQueued, phase: "Queued", wakes: pollInterval},
		"canceled in the pause": {
			run: newRun(canceled, retryAt(start.Add(time.Minute))), seen: Seen{Tasks: work(newTask(1, failed(v1alpha1.FailureRetry)))},
			status: "False", reason: v1alpha1.ReasonCanceled, phase: "Canceled"},
		"the last attempt failed": {
			run: newRun(), seen: Seen{Tasks: work(newTask(1, failed(v1alpha1.FailureRetry)), newTask(2, failed(v1alpha1.FailureRetry)), newTask(3, failed(v1alpha1.FailureRetry)))},
			status: "False", reason: "DiskTrouble", phase: "Failed"},
		"somebody deleted the task": {
			run: newRun(attempted(1)), status: "Unknown", reason: v1alpha1.ReasonRetrying, phase: "Retrying", wakes: 30 * time.Second},
		"somebody deleted the task of the last attempt": {
			run: newRun(attempted(3)), seen: Seen{Tasks: work(newTask(1, failed(v1alpha1.FailureRetry)))},
			status: "False", reason: ReasonTaskGone, phase: "Failed"},
		"a success of an older attempt does not count": {
			run: newRun(attempted(2)), seen: Seen{Tasks: work(newTask(1, succeeded))},
			status: "Unknown", reason: v1alpha1.ReasonRetrying, phase: "Retrying", wakes: time.Minute},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			c.seen.HostName, c.seen.Success = "hv01", Verdict{Reason: "Done", Message: "done"}
			next := Decide(c.run, c.seen, start)
			g.Expect(next.Action).To(Equal(c.action))
			if c.action == Hold {
				return // its status is not written
			}
			g.Expect(meta.FindStatusCondition(next.Status.Conditions, v1alpha1.ConditionSucceeded).Status).To(Equal(c.status))
			g.Expect(reasonOf(next.Status)).To(Equal(c.reason))
			g.Expect(next.Status.Phase).To(Equal(c.phase))
			g.Expect(next.Wait.For).To(Equal(c.wakes))
			if next.Wait != (report.Wait{}) {
				g.Expect(next.Wait.Because).NotTo(BeEmpty())
			}
			expectKStatus(g, next.Status)
		})
	}
}

// expectKStatus checks that exactly the runs that go on are Reconciling, and exactly the bad ones Stalled.
func expectKStatus(g *WithT, status v1alpha1.RunStatus) {
	verdict := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionSucceeded)
	stalled := meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionStalled)
	reconciling := meta.IsStatusConditionTrue(status.Conditions, v1alpha1.ConditionReconciling)
	switch verdict.Status {
	case metav1.ConditionTrue:
		g.Expect(stalled || reconciling).To(BeFalse())
	case metav1.ConditionFalse:
		g.Expect(stalled).To(BeTrue())
		g.Expect(reconciling).To(BeFalse())
	default:
		g.Expect(stalled).NotTo(Equal(reconciling))
	}
	g.Expect(status.CompletionTime != nil).To(Equal(verdict.Status != metav1.ConditionUnknown))
}

// settled is a run with a verdict whose status says all that the tasks do.
func settled(tasks Tasks, edits ...func(*Run)) Run {
	run := newRun(edits...)
	verdict := Decide(newRun(canceled), Seen{Tasks: Tasks{}}, start.Add(-time.Minute))
	run.Status = verdict.Status
	run.Status = Decide(run, Seen{Tasks: tasks}, start).Status
	return run
}

func releaseTask(try int32, edits ...func(*v1alpha1.AgentTask)) v1alpha1.AgentTask {
	attempt := newTask(1)
	task := newRelease(newRun(), Next{Task: &attempt, Attempt: try, Deadline: start})
	for _, edit := range edits {
		edit(task)
	}
	return *task
}

func TestDecideAfterTheVerdict(t *testing.T) {
	dirty := newTask(1, succeeded, unreleased)
	agoFailed := failed(v1alpha1.FailureRetry) // one minute before the start
	cases := map[string]struct {
		tasks  Tasks
		edits  []func(*Run)
		action Action
		number int32
		wakes  time.Duration
	}{
		"the host is clean: the object may go":           {tasks: work(newTask(1, succeeded, released)), action: LetGo},
		"no task was ever made":                          {action: LetGo},
		"it was let go already":                          {edits: []func(*Run){unheld}},
		"a checkpoint is left: clean up":                 {tasks: work(dirty), action: Release, number: 1},
		"that goes on":                                   {tasks: Tasks{Work: only(dirty), Releases: only(releaseTask(1))}},
		"it worked":                                      {tasks: Tasks{Work: only(dirty), Releases: only(releaseTask(1, succeeded))}, action: LetGo},
		"it failed a minute ago: again":                  {tasks: Tasks{Work: only(dirty), Releases: only(releaseTask(1, agoFailed))}, action: Release, number: 2},
		"it failed twice: the pause is longer":           {tasks: Tasks{Work: only(dirty), Releases: only(releaseTask(3, agoFailed))}, wakes: time.Minute},
		"a task outlived the verdict: it is told to end": {tasks: work(newTask(1, claimed)), action: Cancel},
		"it was told":                                    {tasks: work(newTask(1, claimed, stopped))},
		"a person gives the host up":                     {tasks: work(newTask(1, claimed, stopped)), edits: []func(*Run){deleted, func(r *Run) { r.Abandon = "the host burnt" }}, action: LetGo},
		"giving up needs a deletion":                     {tasks: work(newTask(1, claimed, stopped)), edits: []func(*Run){func(r *Run) { r.Abandon = "the host burnt" }}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			run := settled(c.tasks, c.edits...)
			next := Decide(run, Seen{Tasks: c.tasks}, start)
			g.Expect(next.Action).To(Equal(c.action))
			g.Expect(next.Attempt).To(Equal(c.number))
			g.Expect(next.Wait.For).To(Equal(c.wakes))
			g.Expect(next.Status).To(Equal(run.Status), "a verdict is never changed")
			if run.Abandon != "" && run.Deleting {
				g.Expect(next.Events).To(HaveLen(1), "what may be left is on record")
			}
		})
	}
}

func only(task v1alpha1.AgentTask) []v1alpha1.AgentTask { return []v1alpha1.AgentTask{task} }

func TestTheStatusComesBeforeTheCleanUp(t *testing.T) {
	g := NewWithT(t)
	run := settled(work(newTask(1, claimed)))
	next := Decide(run, Seen{Tasks: work(newTask(1, succeeded, unreleased))}, start)
	g.Expect(next.Action).To(Equal(Nothing))
	released := meta.FindStatusCondition(next.Status.Conditions, v1alpha1.ConditionCheckpointReleased)
	g.Expect(released.Status).To(Equal(metav1.ConditionFalse), "a green transfer does not hide a growing .avhdx (I4)")
	g.Expect(reasonOf(next.Status)).To(Equal(v1alpha1.ReasonCanceled), "a verdict is never changed")
}

func TestDecideIsStable(t *testing.T) {
	g := NewWithT(t)
	run := newRun()
	seen := Seen{HostReady: true, HostName: "hv01", Tasks: work(newTask(1, claimed))}
	run.Status = Decide(run, seen, start).Status
	again := Decide(run, seen, start.Add(time.Minute))
	g.Expect(again.Status).To(Equal(run.Status), "looking twice writes once")
	g.Expect(again.Events).To(BeEmpty())
}

func TestMirror(t *testing.T) {
	g := NewWithT(t)
	task := newTask(1, claimed, func(t *v1alpha1.AgentTask) {
		t.Status.Progress = &v1alpha1.Progress{BytesTotal: 10, BytesDone: 4}
		t.Status.Steps = []v1alpha1.Step{{Name: "Transfer"}}
		t.Status.Warnings = []v1alpha1.Warning{{Reason: "DiskExcluded", Message: "a pass-through disk"}}
	})
	next := Decide(newRun(), Seen{HostReady: true, Tasks: work(task)}, start)
	g.Expect(next.Status.Progress.BytesDone).To(Equal(int64(4)))
	g.Expect(next.Status.Steps).To(HaveLen(1))
	g.Expect(next.Status.HostName).To(Equal("hv01"))
	g.Expect(*next.Status.TaskRef).To(Equal(v1alpha1.TaskReference{Namespace: "hyperkeep-host-hv01", Name: "backup-u1-1"}))
	g.Expect(next.Events).To(HaveLen(1), "each warning is an event, once (I9)")
}

func TestBackoff(t *testing.T) {
	g := NewWithT(t)
	for n, want := range []time.Duration{30 * time.Second, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 10 * time.Minute} {
		g.Expect(Backoff(int32(n))).To(Equal(want))
	}
	g.Expect(Backoff(1 << 30)).To(Equal(10 * time.Minute))
}
