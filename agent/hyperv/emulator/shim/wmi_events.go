package shim

import (
	"context"
	"errors"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/schema"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// watch subscribes to events. What is wrong with the query is told by the first wait, as WMI does.
func (s *connection) watch(ctx context.Context, args []any) (any, error) {
	query, err := text(args, 0)
	if err != nil {
		return nil, err
	}
	if err := s.allowed(); err != nil {
		return nil, err
	}
	watcher, ok := s.session.(wmi.Watcher)
	if !ok {
		return nil, fail(hrFailed, "the namespace tells no events")
	}
	e := &eventSource{services: s}
	e.events, e.failed = watcher.Watch(ctx, query)
	return e, nil
}

// eventSource is SWbemEventSource. Programs use it from one thread.
type eventSource struct {
	services *connection
	events   wmi.Subscription
	failed   error
}

func (e *eventSource) kind() kind { return kindEvents }

func (e *eventSource) members() members { return members{asMethod: {"NextEvent": e.next}} }

func (e *eventSource) next(ctx context.Context, args []any) (any, error) {
	milliseconds, ok := int64(-1), true
	if len(args) > 0 {
		milliseconds, ok = integer(args[0])
	}
	if !ok {
		return nil, fail(hrParameterType, "a time is no %T", args[0])
	}
	if e.failed != nil {
		return nil, e.failed
	}
	if milliseconds >= 0 {
		limited, cancel := context.WithTimeout(ctx, time.Duration(milliseconds)*time.Millisecond)
		defer cancel()
		ctx = limited
	}
	event, err := e.events.Next(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fail(hrTimedOut, "no event came")
	}
	if err != nil {
		e.failed = err
		return nil, err
	}
	return e.services.event(event), nil
}

// end ends the subscription.
func (e *eventSource) end() {
	if e.events != nil {
		_ = e.events.Close() // it only forgets
	}
}

// event makes an object of an event.
func (s *connection) event(e wmi.Event) *wmiObject {
	out := &wmiObject{services: s, name: e.Class, types: map[string]schema.Type{}, embedded: map[string]*wmiObject{}}
	add := func(name string, i wmi.Instance) {
		out.types[name], out.embedded[name] = typeObject, s.instance(i)
		out.embedded[name].inner = true
	}
	add("TargetInstance", e.Target)
	if e.Class == wmi.EventChange {
		add("PreviousInstance", e.Previous)
	}
	return out
}
