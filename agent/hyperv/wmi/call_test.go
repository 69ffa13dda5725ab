package wmi_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

const (
	service = `\\HV01\root\virtualization\v2:Msvm_VirtualSystemSnapshotService.Name="vssvc"`
	job     = `\\HV01\root\virtualization\v2:Msvm_ConcreteJob.InstanceID="1"`
)

// script is a session that answers Invoke once and then shows a job in one state after the other; the last one stays.
type script struct {
	wmi.Session
	answer     wmi.Result
	answerErr  error
	states     []any // int64 job state, or error
	code       int64
	errors     []string
	seen       int
	terminated bool
	// afterTerminate is the state that a request to terminate leads to.
	afterTerminate int64
	onGet          func(seen int)
}

func (s *script) Invoke(_ context.Context, _, method string, in wmi.Params) (wmi.Result, error) {
	switch method {
	case "GetErrorEx":
		return wmi.Result{Out: map[string]any{"Errors": s.errors}}, nil
	case "RequestStateChange":
		s.terminated = in["RequestedState"] == int64(4)
		s.states, s.seen = []any{s.afterTerminate}, 0
		return wmi.Result{}, nil
	}
	return s.answer, s.answerErr
}

func (s *script) Get(context.Context, string) (wmi.Instance, error) {
	state := s.states[min(s.seen, len(s.states)-1)]
	s.seen++
	if s.onGet != nil {
		s.onGet(s.seen)
	}
	if err, failed := state.(error); failed {
		return wmi.Instance{}, err
	}
	return wmi.Instance{Path: job, Class: "Msvm_ConcreteJob", Properties: map[string]any{
		"JobState": state, "ErrorCode": s.code, "ErrorDescription": "short text",
	}}, nil
}

// instant is a clock that remembers how long it was waited for and never lets anybody wait.
type instant struct{ waits []time.Duration }

func (c *instant) Now() time.Time { return time.Unix(0, 0) }

func (c *instant) After(d time.Duration) <-chan time.Time {
	c.waits = append(c.waits, d)
	ready := make(chan time.Time, 1)
	ready <- time.Time{}
	return ready
}

var started = wmi.Result{ReturnValue: 4096, Out: map[string]any{"Job": job}}

func TestCallFollowsTheJob(t *testing.T) {
	const text = `<INSTANCE CLASSNAME="Msvm_Error"><PROPERTY NAME="ErrorType" TYPE="uint16"><VALUE>4</VALUE></PROPERTY>` +
		`<PROPERTY NAME="Message" TYPE="string"><VALUE>A writer in the guest failed. &#xD;(0x800423F4)</VALUE></PROPERTY></INSTANCE>`
	full := `<INSTANCE CLASSNAME="Msvm_Error"><PROPERTY NAME="Message" TYPE="string"><VALUE>Kein Speicherplatz (0x80070070)</VALUE></PROPERTY></INSTANCE>`
	conflict := strings.Replace(full, "Kein Speicherplatz (0x80070070)", "'crm' cannot start a backup operation because it is currently executing a conflicting operation. Try the backup again.", 1)
	tests := map[string]struct {
		script  script
		want    error // nil means success
		message string
	}{
		"a method that answers at once needs no job":        {script: script{}},
		"a job is followed through all states in between":   {script: script{answer: started, states: []any{int64(2), int64(3), int64(4), int64(5), int64(6), int64(11), int64(12), int64(7)}}},
		"completed with warnings is success":                {script: script{answer: started, states: []any{int64(32768)}}},
		"completed with an error code is failure":           {script: script{answer: started, states: []any{int64(7)}, code: 32775}, want: wmi.ErrInvalidState},
		"a terminated job is failure even without a code":   {script: script{answer: started, states: []any{int64(8)}}, want: errAny, message: "state 8"},
		"a killed job is failure":                           {script: script{answer: started, states: []any{int64(9)}}, want: errAny, message: "state 9"},
		"a refusal needs no job":                            {script: script{answer: wmi.Result{ReturnValue: 32775}}, want: wmi.ErrInvalidState, message: "returned 32775"},
		"the cause comes from GetErrorEx":                   {script: script{answer: started, states: []any{int64(10)}, code: 32768, errors: []string{text}}, want: errAny, message: "A writer in the guest failed. (0x800423F4)"},
		"without texts the job's own description is told":   {script: script{answer: started, states: []any{int64(10)}, code: 32768}, want: errAny, message: "short text"},
		"a full disk shows in any language":                 {script: script{answer: started, states: []any{int64(10)}, code: 32768, errors: []string{full}}, want: wmi.ErrFull},
		"a conflicting operation is told by its text":       {script: script{answer: started, states: []any{int64(10)}, code: 32768, errors: []string{conflict}}, want: wmi.ErrBusy, message: "currently executing a conflicting operation"}, // EZ-19
		"a job that disappears is neither success nor not":  {script: script{answer: started, states: []any{int64(4), wmi.ErrNotFound}}, want: wmi.ErrJobGone},
		"a service that restarts is told":                   {script: script{answer: started, states: []any{int64(4), wmi.ErrDisconnected}}, want: wmi.ErrDisconnected},
		"a call that was not made is told":                  {script: script{answerErr: wmi.ErrInvalidParameter}, want: wmi.ErrInvalidParameter},
		"a job without a name is not followed into nowhere": {script: script{answer: wmi.Result{ReturnValue: 4096}}, want: wmi.ErrProperty},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			_, err := wmi.Call(t.Context(), &tt.script, &instant{}, service, "CreateSnapshot", nil)
			if tt.want == nil {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(HaveOccurred())
			if tt.want != errAny {
				g.Expect(errors.Is(err, tt.want)).To(BeTrue(), "%v", err)
			}
			g.Expect(err.Error()).To(And(ContainSubstring("Msvm_VirtualSystemSnapshotService.CreateSnapshot"), ContainSubstring(tt.message)))
		})
	}
}

var errAny = errors.New("any error")

func TestCallPollsMoreAndMoreSlowly(t *testing.T) {
	g := NewWithT(t)
	clock := &instant{}
	s := &script{answer: started, states: []any{int64(4), int64(4), int64(4), int64(4), int64(4), int64(4), int64(7)}}
	_, err := wmi.Call(t.Context(), s, clock, service, "CreateSnapshot", nil)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(clock.waits).To(Equal([]time.Duration{
		100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond, time.Second, time.Second,
	}))
}

func TestCallStopsTheJobWhenItsContextEnds(t *testing.T) {
	g := NewWithT(t)
	why := errors.New("the task was cancelled")
	ctx, cancel := context.WithCancelCause(t.Context())
	s := &script{answer: started, states: []any{int64(4)}, afterTerminate: 8}
	s.onGet = func(seen int) {
		if seen == 3 {
			cancel(why)
		}
	}
	_, err := wmi.Call(ctx, s, &instant{}, service, "CreateSnapshot", nil)
	g.Expect(err).To(MatchError(why))
	g.Expect(s.terminated).To(BeTrue())
}

func TestMethodErrorMeansTheSameFromMethodAndJob(t *testing.T) {
	meanings := map[int64]error{
		1: wmi.ErrNotSupported, 3: wmi.ErrTimeout, 4: wmi.ErrInvalidParameter, 5: wmi.ErrInvalidState, 32769: wmi.ErrAccessDenied,
		32770: wmi.ErrNotSupported, 32772: wmi.ErrTimeout, 32773: wmi.ErrInvalidParameter, 32774: wmi.ErrBusy, 32775: wmi.ErrInvalidState,
		32776: wmi.ErrInvalidParameter, 32777: wmi.ErrUnavailable, 32779: wmi.ErrBusy,
	}
	g := NewWithT(t)
	for code, meaning := range meanings {
		g.Expect(&wmi.MethodError{ReturnValue: uint32(code)}).To(MatchError(meaning), "return value %d", code)
		g.Expect(&wmi.MethodError{ReturnValue: 4096, JobErrorCode: code}).To(MatchError(meaning), "job error %d", code)
		for _, other := range meanings {
			if other != meaning {
				g.Expect(errors.Is(&wmi.MethodError{ReturnValue: uint32(code)}, other)).To(BeFalse(), "%d is not %v", code, other)
			}
		}
	}
}

func TestQuoteKeepsTextInsideTheLiteral(t *testing.T) {
	g := NewWithT(t)
	g.Expect(wmi.Quote(`Microsoft:1\2`)).To(Equal(`'Microsoft:1\\2'`))
	g.Expect(wmi.Quote(`x' OR Name<>'`)).To(Equal(`'x\' OR Name<>\''`))
}

func TestParseTime(t *testing.T) {
	tests := map[string]struct {
		text string
		want string // RFC 3339, "" for an error
	}{
		"UTC":                  {"20260102030405.678901+000", "2026-01-02T03:04:05.678901Z"},
		"east of UTC":          {"20260102030405.000000+120", "2026-01-02T01:04:05Z"},
		"west of UTC":          {"20260102030405.000000-300", "2026-01-02T08:04:05Z"},
		"an interval is none":  {"00000000000010.000000:000", ""},
		"too short":            {"20260102030405", ""},
		"a month that is none": {"20261302030405.000000+000", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			got, err := wmi.ParseTime(tt.text)
			if tt.want == "" {
				g.Expect(err).To(MatchError(wmi.ErrProperty))
				return
			}
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(got.Format(time.RFC3339Nano)).To(Equal(tt.want))
		})
	}
	NewWithT(t).Expect(wmi.ParseTime("")).To(BeZero(), "NULL is the zero time")
}
