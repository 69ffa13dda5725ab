package emulator

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Job states (Msvm_ConcreteJob.JobState).
const (
	jobRunning    = 4
	jobCompleted  = 7
	jobTerminated = 8
	jobException  = 10
	jobWarned     = 32768
)

// Job types (Msvm_ConcreteJob.JobType).
const (
	jobTypeDefine           = 1
	jobTypeDestroy          = 3
	jobTypeStart            = 12
	jobTypePowerOff         = 13
	jobTypeSave             = 14
	jobTypePause            = 20
	jobTypeImport           = 61
	jobTypeApply            = 71
	jobTypeClearState       = 73
	jobTypeCreateReference  = 201
	jobTypeNewSnapshot      = 70
	jobTypeDeleteSnapshot   = 72
	jobTypeValidate         = 140
	jobTypeRealize          = 141
	jobTypeConvert          = 200
	jobTypeDestroyReference = 202
)

// keepJobs is how long a job can be asked for after its end.
const keepJobs = 5 * time.Minute

// jobError is why a job failed: a code of the 327xx family and the text that GetErrorEx returns.
type jobError struct {
	code    int64
	message string
}

func (e *jobError) Error() string { return fmt.Sprintf("%s (%d)", e.message, e.code) }

// jobWarnings is how a job ends that did its work and has something to say.
type jobWarnings struct{ messages []string }

func (w *jobWarnings) Error() string { return strings.Join(w.messages, " ") }

// job is one Msvm_ConcreteJob.
type job struct {
	id      string
	kind    int64
	name    string
	started time.Time
	cancel  context.CancelFunc
	// affected is the object paths that Msvm_AffectedJobElement leads to.
	affected []string

	state    int64
	percent  int64
	failure  *jobError
	warnings []string
	finished time.Time
}

// jobTable is the jobs of a host. They do not survive it, as Hyper-V's do not survive its service.
type jobTable struct {
	host *Host
	mu   sync.Mutex
	next int64
	jobs map[string]*job
}

func newJobTable(h *Host) *jobTable { return &jobTable{host: h, jobs: make(map[string]*job)} }

// work is what a job does. It returns the paths of what came out.
type work func(context.Context) (results []string, err error)

// start runs work as a job on the VM at path, and calls done when it is over, before the job shows its end.
func (t *jobTable) start(kind int64, name, path string, w work, done func()) (*job, error) {
	ctx, cancel := context.WithCancel(t.host.ctx)
	t.mu.Lock()
	t.next++
	j := &job{
		id: newGUID(), kind: kind, name: name, started: t.host.now(), cancel: cancel, affected: []string{path}, state: jobRunning,
	}
	t.jobs[j.id] = j
	t.mu.Unlock()
	ok := t.host.run(func() {
		defer cancel()
		wait(ctx, t.host.config.jobTime()/2)
		t.progress(j, 50)
		var results []string
		err := ctx.Err()
		if err == nil {
			results, err = w(ctx)
		}
		wait(ctx, t.host.config.jobTime()/2)
		done()
		t.finish(j, results, err)
	})
	if !ok {
		cancel()
		return nil, wmi.ErrDisconnected
	}
	return j, nil
}

func (t *jobTable) progress(j *job, percent int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	j.percent = percent
}

func (t *jobTable) finish(j *job, results []string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	j.finished = time.Now()
	var failure *jobError
	var warned *jobWarnings
	switch {
	case err == nil:
		j.state, j.percent = jobCompleted, 100
		j.affected = append(j.affected, results...)
		return
	case errors.As(err, &warned):
		j.state, j.percent, j.warnings = jobWarned, 100, warned.messages
		return
	case errors.Is(err, context.Canceled):
		j.state, failure = jobTerminated, &jobError{codeFailed, "The operation was cancelled."}
	case errors.As(err, &failure):
		j.state = jobException
	default:
		j.state, failure = jobException, &jobError{codeFailed, err.Error()}
	}
	j.failure = failure
	t.host.log.Info("a job failed", "job", j.name, "error", err)
}

// expire drops jobs that ended a while ago.
func (t *jobTable) expire() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, j := range t.jobs {
		if !j.finished.IsZero() && time.Since(j.finished) > keepJobs {
			delete(t.jobs, id)
		}
	}
}

// terminate cancels a running job and says whether there was anything to cancel.
func (t *jobTable) terminate(id string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	j := t.jobs[id]
	if j == nil || j.state != jobRunning {
		return false
	}
	j.cancel()
	return true
}

// errorsOf returns what GetErrorEx has of a job: embedded Msvm_Error instances.
func (t *jobTable) errorsOf(id string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := []string{}
	j := t.jobs[id]
	if j == nil {
		return out
	}
	add := func(message string, code, severity int64) {
		out = append(out, embed("Msvm_Error", map[string]any{
			"ErrorSource": "Msvm_VirtualSystemManagementService", "ErrorType": int64(4), "Message": message,
			"MessageID": strconv.FormatInt(code, 10), "PerceivedSeverity": severity, "ProbableCause": int64(0),
		}))
	}
	const degraded, major = 3, 5 // CIM_Error.PerceivedSeverity
	for _, message := range j.warnings {
		add(message, 0, degraded)
	}
	if j.failure != nil {
		add(j.failure.message, j.failure.code, major)
	}
	return out
}

// affectedBy returns the objects that a job works on or has made.
func (t *jobTable) affectedBy(id string) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if j := t.jobs[id]; j != nil {
		return append([]string(nil), j.affected...)
	}
	return nil
}

// properties describes the jobs, in no order.
func (t *jobTable) properties() []map[string]any {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]map[string]any, 0, len(t.jobs))
	for _, j := range t.jobs {
		p := map[string]any{
			"InstanceID": j.id, "Caption": j.name, "ElementName": j.name, "Name": j.name, "Description": j.name,
			"JobState": j.state, "JobStatus": "OK", "JobType": j.kind, "PercentComplete": j.percent, "Cancellable": j.state == jobRunning,
			"StartTime": datetime(j.started), "TimeSubmitted": datetime(j.started), "DeleteOnCompletion": false,
			"OperationalStatus": []int64{2}, "HealthState": int64(5), "ErrorCode": nil,
		}
		if j.state != jobRunning {
			p["ErrorCode"] = int64(0)
		}
		if f := j.failure; f != nil {
			p["ErrorCode"], p["ErrorDescription"], p["ErrorSummaryDescription"] = f.code, f.message, f.message
			p["JobStatus"] = f.message
		}
		out = append(out, p)
	}
	return out
}
