package service

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/eventlog"
)

const (
	// stopLimit is how long the agent may take to stop: its tasks are interrupted at once and leave a journal, so that little is left to do.
	stopLimit = 45 * time.Second
	// stopTick is how often the service manager is told that it goes on, and stopHint how long it may wait for the next word.
	stopTick = time.Second
	stopHint = 10 * time.Second
)

// accepted are the requests that end the agent. Preshutdown comes before the machine's other services stop, and leaves more time than shutdown.
const accepted = svc.AcceptStop | svc.AcceptShutdown | svc.AcceptPreShutdown

// failure is the exit code that makes the service manager start the agent anew.
const failure = 1

// Managed says whether the service manager started this process.
func Managed() (bool, error) { return svc.IsWindowsService() }

// Serve works under the service manager, and returns when the service has ended; the error is for the process's exit code only. The signals of a console do not
// end a service: Windows sends one to every process when somebody logs off.
func Serve(ctx context.Context, work Work) error {
	log, err := eventlog.Open(Name)
	if err != nil {
		return fmt.Errorf("open the event log: %w", err)
	}
	defer log.Close() //nolint:errcheck // a handle
	h := &handler{ctx: context.WithoutCancel(ctx), events: source{log}, limit: stopLimit}
	h.work = func(ctx context.Context, events Events) error {
		removeReplaced() // now that this program is the one that works
		return work(ctx, events)
	}
	if err := svc.Run(Name, h); err != nil {
		return fmt.Errorf("connect to the service manager: %w; --service is for the service manager alone", err)
	}
	return h.err
}

// handler is the service as the service manager sees it.
type handler struct {
	ctx    context.Context
	work   Work
	events Events
	limit  time.Duration
	err    error
}

// Execute works until it is told to stop, or the work ends by itself.
func (h *handler) Execute(_ []string, requests <-chan svc.ChangeRequest, states chan<- svc.Status) (specific bool, code uint32) {
	ctx, stop := context.WithCancel(h.ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- h.work(ctx, h.events) }()
	states <- svc.Status{State: svc.Running, Accepts: accepted}
	for {
		select {
		case h.err = <-ended:
			h.events.Report(EventFailed, fmt.Sprintf("The agent ended: %v. It is started anew.", h.err))
			return true, failure
		case request := <-requests:
			switch request.Cmd {
			case svc.Interrogate:
				states <- request.CurrentStatus
			case svc.Stop, svc.Shutdown, svc.PreShutdown:
				stop()
				h.await(ended, requests, states)
				return false, 0
			}
		}
	}
}

// await tells the service manager that the agent is stopping, until it has stopped or the limit is reached. What the work says then is no failure: it was
// interrupted.
func (h *handler) await(ended <-chan error, requests <-chan svc.ChangeRequest, states chan<- svc.Status) {
	state := svc.Status{State: svc.StopPending, WaitHint: uint32(stopHint / time.Millisecond)}
	states <- state
	ticker, limit := time.NewTicker(stopTick), time.NewTimer(h.limit)
	defer ticker.Stop()
	defer limit.Stop()
	for {
		select {
		case <-ended: //nolint:errcheck // it was interrupted
			h.events.Report(EventStopped, "The agent stopped.")
			return
		case <-ticker.C:
			state.CheckPoint++
			states <- state
		case request := <-requests: // a shutdown that follows a preshutdown, or a question
			if request.Cmd == svc.Interrogate {
				states <- request.CurrentStatus
			}
		case <-limit.C:
			h.events.Report(EventStopOverdue, fmt.Sprintf(
				"The agent did not stop within %s and is ended. When it starts again, it takes up what it left on the host.", h.limit))
			return
		}
	}
}

// source writes to the event log of Windows.
type source struct{ log *eventlog.Log }

// Report writes one event.
func (s source) Report(event Event, message string) {
	write := s.log.Info
	switch event {
	case EventFailed, EventTokenTrouble:
		write = s.log.Error
	case EventStopOverdue:
		write = s.log.Warning
	}
	_ = write(uint32(event), message) // there is nowhere left to tell it
}
