//go:build windows

package com

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

	closing sync.Once
	quit    chan struct{} // closed by Close
	ended   chan struct{} // closed after err was set
	err     error
}

// Watch implements wmi.Watcher.
func (s *session) Watch(ctx context.Context, wql string) (wmi.Subscription, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	w := &subscription{
		session: s, wql: wql, started: make(chan error, 1), events: make(chan wmi.Event), quit: make(chan struct{}), ended: make(chan struct{}),
	}
	if !s.watch(w) {
		return nil, errClosed
	}
	select {
	case <-ctx.Done():
		return nil, errors.Join(context.Cause(ctx), w.Close())
	case err := <-w.started:
		if err != nil {
			return nil, fmt.Errorf("%s: %w", wql, err)
		}
		return w, nil
	}
}

// watch starts a subscription's thread, unless the session is closed.
func (s *session) watch(w *subscription) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.watches.Go(w.run)
	}
	return !s.closed
}

// Next implements wmi.Subscription.
func (w *subscription) Next(ctx context.Context) (wmi.Event, error) {
	select {
	case <-ctx.Done():
		return wmi.Event{}, context.Cause(ctx)
	case event := <-w.events:
		return event, nil
	case <-w.quit:
		return wmi.Event{}, errClosed
	case <-w.ended:
		return wmi.Event{}, w.err
	}
}

// Close implements wmi.Subscription. The thread ends after the wait that is under way.
func (w *subscription) Close() error {
	w.closing.Do(func() { close(w.quit) })
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
	if w.err = err; err == nil {
		w.err = errClosed
	}
	close(w.ended)
	select {
	case w.started <- w.err: // it never started
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
	for wait := time.Duration(0); !w.over(); wait = pollTime {
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
		case <-w.quit:
		case <-w.session.done:
		}
	}
	return nil
}

// over says whether the subscription, or its session, was closed.
func (w *subscription) over() bool {
	select {
	case <-w.quit:
		return true
	case <-w.session.done:
		return true
	default:
		return false
	}
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
