//go:build windows

package com

import (
	"context"
	"errors"
	"fmt"
	"time"

	cim "github.com/microsoft/wmi/pkg/wmiinstance"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// pollTime is how long one wait for an event lasts. It cannot be interrupted, so it bounds how long the end of a subscription takes.
const pollTime = 500 * time.Millisecond

// subscription waits for events on a thread of its own: it would keep one of the session's from the calls.
type subscription struct {
	session *session
	wql     string
	started chan error
	events  chan wmi.Event

	ctx    context.Context // its cause is why the subscription ended
	cancel context.CancelCauseFunc
}

// Watch implements wmi.Watcher.
func (s *session) Watch(ctx context.Context, wql string) (wmi.Subscription, error) {
	w := &subscription{session: s, wql: wql, started: make(chan error, 1), events: make(chan wmi.Event)}
	w.ctx, w.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.watches.Go(w.run)
	}
	s.mu.Unlock()
	if closed {
		w.cancel(errClosed)
		return nil, errClosed
	}
	select {
	case <-ctx.Done():
		w.cancel(context.Cause(ctx))
		return nil, context.Cause(ctx)
	case err := <-w.started:
		if err != nil {
			w.cancel(err)
			return nil, fmt.Errorf("%s: %w", wql, err)
		}
		return w, nil
	}
}

// Next implements wmi.Subscription.
func (w *subscription) Next(ctx context.Context) (wmi.Event, error) {
	select {
	case <-ctx.Done():
		return wmi.Event{}, context.Cause(ctx)
	case event := <-w.events:
		return event, nil
	case <-w.ctx.Done():
		return wmi.Event{}, context.Cause(w.ctx)
	}
}

// Close implements wmi.Subscription. The thread ends after the wait that is under way.
func (w *subscription) Close() error {
	w.cancel(errClosed)
	return nil
}

func (w *subscription) run() {
	leave, err := join()
	defer leave()
	var c *connection
	if err == nil {
		c, err = contain(w.session.acquire)
	}
	if err == nil {
		_, err = contain(func() (struct{}, error) { return struct{}{}, w.follow(c) })
		if errors.Is(err, wmi.ErrDisconnected) {
			w.session.drop(c)
		}
		c.leave()
	}
	w.cancel(err)
	select {
	case w.started <- err: // it never started
	default:
	}
}

// follow subscribes and passes events on until the subscription ends. Its first wait is none: it only shows whether WMI took the query.
func (w *subscription) follow(c *connection) error {
	source, err := c.session.ExecNotificationQuery(w.wql)
	if err != nil {
		return explain("ExecNotificationQuery", err)
	}
	defer source.Close()
	for wait := time.Duration(0); w.ctx.Err() == nil && !w.session.isClosed(); wait = pollTime {
		event, err := nextEvent(source, wait)
		quiet := hasCode(err, hrTimedOut)
		if err != nil && !quiet {
			return err
		}
		if wait == 0 {
			w.started <- nil
		}
		if quiet {
			continue
		}
		select {
		case w.events <- event:
		case <-w.ctx.Done():
		case <-w.session.done:
		}
	}
	return errClosed
}

// nextEvent waits for an event. The error of none has the code hrTimedOut.
func nextEvent(source *cim.WmiSynchronousEventsList, wait time.Duration) (wmi.Event, error) {
	found, err := source.WaitForNextEventUntil(int32(wait.Milliseconds()))
	if err != nil {
		return wmi.Event{}, explain("NextEvent", err)
	}
	o := object{found.GetIDispatch()}
	defer o.release()
	var e wmi.Event
	if e.Class, err = o.system("__CLASS"); err != nil {
		return e, err
	}
	if e.Target, err = o.embedded("TargetInstance"); err != nil {
		return e, err
	}
	if e.Class == wmi.EventChange {
		e.Previous, err = o.embedded("PreviousInstance")
	}
	return e, err
}

// embedded reads a property that is an instance.
func (o object) embedded(name string) (wmi.Instance, error) {
	inner, err := o.child(name)
	if err != nil {
		return wmi.Instance{}, err
	}
	defer inner.release()
	return inner.instance()
}
