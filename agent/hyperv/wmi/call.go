package wmi

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Clock is what waiting for a job needs of time.
type Clock interface {
	Now() time.Time
	After(time.Duration) <-chan time.Time
}

// Return values of methods and states of jobs (Msvm_ConcreteJob.JobState, CIM_ConcreteJob).
const (
	returnDone       = 0
	returnJobStarted = 4096

	jobCompleted             = 7
	jobTerminated            = 8
	jobKilled                = 9
	jobException             = 10
	jobCompletedWithWarnings = 32768

	requestTerminate = 4
)

// How often a job is looked at, and how long a cancelled one may take to stop.
const (
	firstPoll   = 100 * time.Millisecond
	slowestPoll = time.Second
	stopLimit   = 30 * time.Second
)

// Done is the answer of a method that succeeded.
type Done struct {
	// Out has the output parameters. Where Hyper-V started a job it leaves results out of it: ask Affected.
	Out map[string]any
	// Job is the path of the job that did the work, "" when the method answered at once. Hyper-V forgets a job some minutes after its end.
	Job string
	// Warnings are the host's texts about a job that completed with warnings.
	Warnings []string
}

// Call invokes a method and follows the job that it may start to its end. An error of the method or its job is a *MethodError, which errors.Is
// compares with ErrBusy and its kin.
//
// When ctx ends first, the job is asked to stop, Call waits up to half a minute for that, and returns the cause of ctx. The effect may have happened all
// the same; so it may after ErrJobGone and ErrDisconnected. Look at the world, then decide.
func Call(ctx context.Context, s Session, clk Clock, path, method string, in Params) (Done, error) {
	result, err := s.Invoke(ctx, path, method, in)
	if err != nil {
		return Done{}, fmt.Errorf("%s.%s: %w", className(path), method, err)
	}
	switch result.ReturnValue {
	case returnDone:
		return Done{Out: result.Out}, nil
	case returnJobStarted:
	default:
		return Done{}, &MethodError{Class: className(path), Method: method, ReturnValue: result.ReturnValue}
	}
	job, _ := result.Out["Job"].(string)
	if job == "" {
		return Done{}, fmt.Errorf("%s.%s: %w: a job was started but not named", className(path), method, ErrProperty)
	}
	ended, err := follow(ctx, s, clk, job)
	if err != nil {
		return Done{}, fmt.Errorf("%s.%s: %w", className(path), method, err)
	}
	if failure := judge(ctx, s, ended); failure != nil {
		failure.Class, failure.Method, failure.ReturnValue = className(path), method, result.ReturnValue
		return Done{}, failure
	}
	done := Done{Out: result.Out, Job: job}
	if state, err := ended.Int("JobState"); err == nil && state == jobCompletedWithWarnings {
		done.Warnings = jobMessages(ctx, s, ended)
	}
	return done, nil
}

// Affected returns what a finished job made or changed, of one class.
func Affected(ctx context.Context, s Session, job, resultClass string) ([]Instance, error) {
	return s.Associators(ctx, job, "Msvm_AffectedJobElement", resultClass)
}

// follow polls a job until it has ended, or stops it when ctx ends.
func follow(ctx context.Context, s Session, clk Clock, job string) (Instance, error) {
	for wait := firstPoll; ; wait = min(2*wait, slowestPoll) {
		seen, err := s.Get(ctx, job)
		if ctx.Err() != nil {
			return Instance{}, stop(ctx, s, clk, job)
		}
		if errors.Is(err, ErrNotFound) {
			return Instance{}, ErrJobGone
		}
		if err != nil {
			return Instance{}, err
		}
		if state, err := seen.Int("JobState"); err != nil || hasEnded(state) {
			return seen, err
		}
		select {
		case <-ctx.Done():
			return Instance{}, stop(ctx, s, clk, job)
		case <-clk.After(wait):
		}
	}
}

// stop asks a job to end because ctx has, and waits a while for it. A job that cannot be cancelled runs on, which is why stop tells nothing but
// the cause: what the job left behind has to be looked up in any case.
func stop(ctx context.Context, s Session, clk Clock, job string) error {
	cause := context.Cause(ctx)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
	defer cancel()
	if _, err := s.Invoke(ctx, job, "RequestStateChange", Params{"RequestedState": int64(requestTerminate)}); err != nil {
		return cause
	}
	limit := clk.After(stopLimit)
	for {
		seen, err := s.Get(ctx, job)
		if err != nil {
			return cause
		}
		if state, err := seen.Int("JobState"); err != nil || hasEnded(state) {
			return cause
		}
		select {
		case <-limit:
			return cause
		case <-ctx.Done(): // the same limit, for calls that do not answer
			return cause
		case <-clk.After(firstPoll):
		}
	}
}

func hasEnded(state int64) bool {
	switch state {
	case jobCompleted, jobTerminated, jobKilled, jobException, jobCompletedWithWarnings:
		return true
	}
	return false
}

// judge returns nil for a job that succeeded: a good end state alone does not say so, its error code must be zero as well.
func judge(ctx context.Context, s Session, job Instance) *MethodError {
	state, _ := job.Int("JobState")
	code, err := job.Int("ErrorCode")
	if (state == jobCompleted || state == jobCompletedWithWarnings) && code == 0 && err == nil {
		return nil
	}
	return &MethodError{JobState: state, JobErrorCode: code, Messages: jobMessages(ctx, s, job)}
}
