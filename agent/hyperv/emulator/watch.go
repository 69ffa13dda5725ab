package emulator

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wql"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

var _ wmi.Watcher = (*session)(nil)

// Watch implements wmi.Watcher.
func (s *session) Watch(ctx context.Context, text string) (wmi.Subscription, error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	q, err := wql.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", wmi.ErrInvalidQuery, text, err)
	}
	w := &subscription{session: s, text: text, query: q, events: make(chan wmi.Event), restarts: s.host.faults.WMIRestarts()}
	if err := w.check(); err != nil {
		return nil, err
	}
	if w.last, err = w.instances(ctx); err != nil {
		return nil, err
	}
	w.ctx, w.cancel = context.WithCancelCause(s.host.ctx)
	if !s.host.run(w.run) {
		return nil, wmi.ErrDisconnected
	}
	return w, nil
}

// subscription is an event query and what it has seen.
type subscription struct {
	session *session
	text    string
	query   wql.Query
	events  chan wmi.Event

	ctx    context.Context // its cause is why the subscription ended
	cancel context.CancelCauseFunc

	last     map[string]wmi.Instance // by path
	restarts int                     // of the service, when it was subscribed
}

// check refuses what WMI refuses: an event query says how often to compare, and the instances of which class.
func (w *subscription) check() error {
	switch w.query.Class {
	case wmi.EventOperation, wmi.EventCreation, wmi.EventChange, wmi.EventDeletion:
	default:
		return fmt.Errorf("%w: %s is no class of events", wmi.ErrInvalidClass, w.query.Class)
	}
	target := w.query.Target("TargetInstance")
	if w.query.Within == 0 || target == "" || len(w.query.Columns) > 0 {
		return fmt.Errorf("%w: %s: an event query is SELECT * with WITHIN and TargetInstance ISA", wmi.ErrInvalidQuery, w.text)
	}
	classes := w.session.host.schema.Derived(w.session.namespace, target)
	if len(classes) == 0 {
		return fmt.Errorf("%w: %s", wmi.ErrInvalidClass, target)
	}
	for _, name := range w.query.Properties() {
		object, property, dotted := strings.Cut(name, ".")
		known := object == "TargetInstance" || object == "PreviousInstance" && w.query.Class == wmi.EventChange
		if !known || dotted && !hasProperty(classes, property) {
			return fmt.Errorf("%w: an event about a %s has no %s", wmi.ErrInvalidQuery, target, name)
		}
	}
	return nil
}

func (w *subscription) instances(ctx context.Context) (map[string]wmi.Instance, error) {
	all, err := w.session.Query(ctx, "SELECT * FROM "+w.query.Target("TargetInstance"))
	if err != nil {
		return nil, err
	}
	out := make(map[string]wmi.Instance, len(all))
	for _, i := range all {
		out[i.Path] = i
	}
	return out, nil
}

// Next implements wmi.Subscription.
func (w *subscription) Next(ctx context.Context) (wmi.Event, error) {
	select {
	case <-ctx.Done():
		return wmi.Event{}, context.Cause(ctx)
	case event := <-w.events:
		return event, nil
	case <-w.ctx.Done():
		if w.session.host.ctx.Err() != nil {
			return wmi.Event{}, wmi.ErrDisconnected
		}
		return wmi.Event{}, context.Cause(w.ctx)
	}
}

// Close implements wmi.Subscription.
func (w *subscription) Close() error {
	w.cancel(wmi.ErrDisconnected)
	return nil
}

// run compares the instances again and again. While nobody takes an event, it waits.
func (w *subscription) run() {
	ticker := time.NewTicker(w.query.Within)
	defer ticker.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-ticker.C:
		}
		now, err := w.instances(w.ctx)
		if w.session.host.faults.WMIRestarts() != w.restarts {
			err = wmi.ErrDisconnected
		}
		if err != nil {
			w.cancel(err)
			return
		}
		for _, event := range w.compare(now) {
			match, err := w.matches(event)
			if err != nil {
				w.cancel(fmt.Errorf("%w: %s: %w", wmi.ErrInvalidQuery, w.text, err))
				return
			}
			if !match {
				continue
			}
			select {
			case <-w.ctx.Done():
				return
			case w.events <- event:
			}
		}
		w.last = now
	}
}

// compare returns the events since the last time, in the order of the paths.
func (w *subscription) compare(now map[string]wmi.Instance) []wmi.Event {
	var out []wmi.Event
	for _, path := range slices.Sorted(maps.Keys(now)) {
		if before, known := w.last[path]; !known {
			out = append(out, wmi.Event{Class: wmi.EventCreation, Target: now[path]})
		} else if !reflect.DeepEqual(before, now[path]) {
			out = append(out, wmi.Event{Class: wmi.EventChange, Target: now[path], Previous: before})
		}
	}
	for _, path := range slices.Sorted(maps.Keys(w.last)) {
		if _, left := now[path]; !left {
			out = append(out, wmi.Event{Class: wmi.EventDeletion, Target: w.last[path]})
		}
	}
	return out
}

// matches says whether the query asks for an event.
func (w *subscription) matches(e wmi.Event) (bool, error) {
	if w.query.Class != wmi.EventOperation && w.query.Class != e.Class {
		return false, nil
	}
	objects := map[string]wmi.Instance{"TargetInstance": e.Target, "PreviousInstance": e.Previous}
	return w.query.Matches(func(name string) any {
		object, property, dotted := strings.Cut(name, ".")
		class, ok := w.session.host.schema.Class(w.session.namespace, objects[object].Class)
		switch {
		case !ok:
			return nil
		case !dotted:
			return class
		}
		exact, _, _ := class.Property(property)
		return objects[object].Properties[exact]
	})
}
