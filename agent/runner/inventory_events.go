package runner

import (
	"context"
	"errors"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
)

// hostEvent is what has to be looked at: all, or the virtual machines that changed.
type hostEvent struct {
	all     bool
	changed map[string]bool
	// telling says whether the host tells events from now on.
	telling bool
}

// hostEvents follows what the host tells, and begins anew when it stops.
type hostEvents struct {
	host     *hyperv.Host
	clock    clock.Clock
	within   time.Duration // how often the host compares
	interval time.Duration // how often to try again
	C        chan hostEvent

	telling bool // the reader's: what the last event said
}

// run subscribes again and again until ctx ends. After each subscribing all has to be looked at: nobody tells what happened before.
func (e *hostEvents) run(ctx context.Context, log logr.Logger) {
	for ctx.Err() == nil {
		err := e.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		if errors.Is(err, hyperv.ErrNoEvents) {
			log.Info("The host tells no events and is looked at at intervals", "interval", e.interval)
			return
		}
		log.Error(err, "The host tells no events and is looked at at intervals until it does", "interval", e.interval)
		e.send(ctx, hostEvent{})
		select {
		case <-ctx.Done():
		case <-e.clock.After(e.interval):
		}
	}
}

func (e *hostEvents) follow(ctx context.Context) error {
	watch, err := e.host.Watch(ctx, e.within)
	if err != nil {
		return err
	}
	defer watch.Close() //nolint:errcheck // it has ended
	e.send(ctx, hostEvent{all: true, telling: true})
	for {
		id, err := watch.Next(ctx)
		if err != nil {
			return err
		}
		e.send(ctx, hostEvent{changed: map[string]bool{id: true}, telling: true})
	}
}

func (e *hostEvents) send(ctx context.Context, event hostEvent) {
	select {
	case e.C <- event:
	case <-ctx.Done():
	}
}

// wait returns what has to be looked at next: what the host tells, together with what it tells right after, or all when it told nothing for a while.
func (e *hostEvents) wait(ctx context.Context, pause func(telling bool) time.Duration) hostEvent {
	due := hostEvent{changed: map[string]bool{}}
	idle := e.clock.After(pause(e.telling))
	settles := false
	for {
		select {
		case <-ctx.Done():
			return due
		case <-idle:
			if len(due.changed) == 0 {
				due.all = true
			}
			return due
		case event := <-e.C:
			if event.telling != e.telling && !settles {
				idle = e.clock.After(pause(event.telling))
			}
			e.telling = event.telling
			due.all = due.all || event.all
			for id := range event.changed {
				due.changed[id] = true
			}
			if due.all {
				return due
			}
			if len(event.changed) > 0 && !settles {
				settles, idle = true, e.clock.After(settling)
			}
		}
	}
}
