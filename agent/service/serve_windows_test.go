package service

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/sys/windows/svc"
)

// noted are the events of a handler under test.
type noted chan string

func (n noted) Report(event Event, message string) { n <- fmt.Sprint(event, " ", message) }

// served is a handler that runs, as the service manager sees it.
type served struct {
	requests chan svc.ChangeRequest
	states   chan svc.Status
	events   noted
	code     chan uint32
}

func serve(t *testing.T, limit time.Duration, work Work) served {
	s := served{make(chan svc.ChangeRequest), make(chan svc.Status, 100), make(noted, 10), make(chan uint32, 1)}
	h := &handler{ctx: t.Context(), work: work, events: s.events, limit: limit}
	go func() {
		_, code := h.Execute(nil, s.requests, s.states)
		s.code <- code
	}()
	NewWithT(t).Eventually(s.states).Should(Receive(HaveField("State", svc.Running)))
	return s
}

func untilStopped(ctx context.Context, _ Events) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestServiceStops(t *testing.T) {
	for name, request := range map[string]svc.Cmd{"on request": svc.Stop, "with the machine": svc.Shutdown, "before the other services": svc.PreShutdown} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s := serve(t, time.Minute, untilStopped)
			s.requests <- svc.ChangeRequest{Cmd: svc.Interrogate, CurrentStatus: svc.Status{State: svc.Running}}
			g.Eventually(s.states).Should(Receive(HaveField("State", svc.Running)))
			s.requests <- svc.ChangeRequest{Cmd: request}
			g.Eventually(s.states).Should(Receive(And(HaveField("State", svc.StopPending), HaveField("WaitHint", uint32(10_000)))))
			g.Eventually(s.code).Should(Receive(BeZero()), "what the work says when it is interrupted is no failure")
			g.Eventually(s.events).Should(Receive(HavePrefix("2 ")))
		})
	}
}

func TestServiceThatIsSlowToStopSaysThatItGoesOn(t *testing.T) {
	g := NewWithT(t)
	release := make(chan struct{})
	s := serve(t, time.Minute, func(context.Context, Events) error { <-release; return nil })
	s.requests <- svc.ChangeRequest{Cmd: svc.PreShutdown}
	g.Eventually(s.states, "10s").Should(Receive(HaveField("CheckPoint", uint32(1))))
	s.requests <- svc.ChangeRequest{Cmd: svc.Shutdown}
	g.Eventually(s.states, "10s").Should(Receive(HaveField("CheckPoint", uint32(2))))
	close(release)
	g.Eventually(s.code).Should(Receive(BeZero()))
}

func TestServiceThatDoesNotStopIsEnded(t *testing.T) {
	g := NewWithT(t)
	release := make(chan struct{})
	defer close(release)
	s := serve(t, 50*time.Millisecond, func(context.Context, Events) error { <-release; return nil })
	s.requests <- svc.ChangeRequest{Cmd: svc.Stop}
	g.Eventually(s.code).Should(Receive(BeZero()))
	g.Eventually(s.events).Should(Receive(HavePrefix("4 ")))
}

func TestServiceThatEndsByItselfIsStartedAnew(t *testing.T) {
	g := NewWithT(t)
	s := serve(t, time.Minute, func(context.Context, Events) error { return errors.New("the disk is gone") })
	g.Eventually(s.code).Should(Receive(Not(BeZero())), "the service manager starts only what failed")
	g.Eventually(s.events).Should(Receive(And(HavePrefix("3 "), ContainSubstring("the disk is gone"))))
}
