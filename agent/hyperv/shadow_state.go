package hyperv

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// SettleShadow brings a VM that the writer saved back into the state that it had before the snapshot, and waits until it has it. It does nothing to a VM that
// is in that state, that somebody switched off, or that the journal calls settled. A VM that is gone is settled.
func (h *Host) SettleShadow(ctx context.Context, vmID string, intent ShadowIntent) error {
	if intent.Settled || (intent.State != Running && intent.State != Paused) {
		return nil
	}
	for {
		vm, err := h.situation(ctx, vmID)
		if errors.Is(err, ErrVMNotFound) {
			return nil
		}
		if err == nil {
			var done bool
			if done, err = h.settle(ctx, vm, intent.State); done {
				return nil
			}
		}
		if err != nil && !errors.Is(err, ErrBusy) {
			return fmt.Errorf("bring %s back to the state %s: %w", vmID, intent.State, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("bring %s back to the state %s: %w", vmID, intent.State, errors.Join(context.Cause(ctx), err))
		case <-h.clock.After(watchPause):
		}
	}
}

// settle makes one step back to the state wanted, and says whether the VM is there.
func (h *Host) settle(ctx context.Context, vm VM, wanted State) (done bool, err error) {
	switch vm.State {
	case wanted, Off:
		return true, nil
	case Saved, Paused:
		return false, h.Start(ctx, vm.ID)
	case Running: // a paused VM that was saved resumes as a running one
		return false, h.requestState(ctx, vm.ID, requestPause, Paused)
	}
	return false, nil // on its way
}

// watchPause is how often the state of a VM is looked at during a snapshot: an interruption that is shorter may go unseen.
const watchPause = 200 * time.Millisecond

// stateWatch observes whether a VM runs.
type stateWatch struct {
	host   *Host
	vm     VM
	stop   context.CancelFunc
	worker sync.WaitGroup

	stopped, resumed time.Time
	saved            bool
}

// watchState observes a VM until end. What cannot be seen is not counted.
func (h *Host) watchState(ctx context.Context, vm VM) *stateWatch {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	w := &stateWatch{host: h, vm: vm, stop: stop, saved: vm.State == Saved}
	w.worker.Go(func() {
		for {
			w.look(ctx)
			select {
			case <-ctx.Done():
				return
			case <-h.clock.After(watchPause):
			}
		}
	})
	return w
}

func (w *stateWatch) look(ctx context.Context) {
	now := w.host.clock.Now()
	vm, err := w.host.situation(ctx, w.vm.ID)
	if err != nil || w.vm.State != Running {
		w.saved = w.saved || (err == nil && vm.State == Saved)
		return
	}
	w.saved = w.saved || vm.State == Saved
	switch {
	case vm.State != Running && w.stopped.IsZero():
		w.stopped = now
	case vm.State == Running && !w.stopped.IsZero() && w.resumed.IsZero():
		w.resumed = now
	}
}

// end returns what was seen.
func (w *stateWatch) end() Taken {
	w.stop()
	w.worker.Wait()
	taken := Taken{Saved: w.saved}
	if w.stopped.IsZero() {
		return taken
	}
	if w.resumed.IsZero() {
		w.resumed = w.host.clock.Now()
	}
	taken.Interruption = w.resumed.Sub(w.stopped)
	return taken
}
