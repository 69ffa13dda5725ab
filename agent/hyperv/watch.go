package hyperv

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// ErrNoEvents means that the connection to the host tells no events: look at intervals.
var ErrNoEvents = errors.New("the host tells no events")

// watched are the classes whose events tell that a VM changed, which of an instance's properties say so (all, where none are named), and how
// the VM's id is found. A running VM's Msvm_ComputerSystem changes all the time: it counts how long the VM has been on.
var watched = []struct {
	class      string
	properties []string
	vmID       func(wmi.Instance) (string, error)
}{
	{
		class: classSystem,
		properties: []string{
			"ElementName", "EnabledState", "HealthState", "OperationalStatus", "ReplicationMode", "ReplicationState", "ReplicationHealth",
		},
		vmID: func(i wmi.Instance) (string, error) { return i.String("Name") },
	},
	{class: classSettings, vmID: func(i wmi.Instance) (string, error) { return i.String("VirtualSystemIdentifier") }},
	{class: classAllocation, vmID: ownerID},
	{
		class: classBackupComponent, properties: []string{"EnabledState", "OperationalStatus"},
		vmID: func(i wmi.Instance) (string, error) { return i.String("SystemName") },
	},
}

// ownerID is the id of the VM, or of the checkpoint, that a device's settings belong to.
func ownerID(device wmi.Instance) (string, error) {
	id, err := device.String("InstanceID")
	_, guid, _ := strings.Cut(owner(id), ":")
	return guid, err
}

// Watch is a stream of the VMs that changed. It is for one goroutine.
type Watch struct {
	changed chan string
	stop    context.CancelCauseFunc
	ctx     context.Context // its cause is why the watch ended
	running sync.WaitGroup
}

// Watch tells of every VM that is made, changed or removed from now on; within is how often the host may compare. What happened before is not
// told, so take an Inventory after Watch. ErrNoEvents, wmi.ErrDisconnected.
func (h *Host) Watch(ctx context.Context, within time.Duration) (*Watch, error) {
	watcher, able := h.virt.(wmi.Watcher)
	if !able {
		return nil, ErrNoEvents
	}
	w := &Watch{changed: make(chan string)}
	w.ctx, w.stop = context.WithCancelCause(context.WithoutCancel(ctx))
	for _, each := range watched {
		events, err := watcher.Watch(ctx, fmt.Sprintf("SELECT * FROM %s WITHIN %g WHERE TargetInstance ISA '%s'", wmi.EventOperation, within.Seconds(), each.class))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("watch %s: %w", each.class, err), w.Close())
		}
		w.running.Go(func() { w.follow(events, each.properties, each.vmID) })
	}
	return w, nil
}

// follow passes on the events of one class until the watch ends, and ends it when the class has no events any more.
func (w *Watch) follow(events wmi.Subscription, properties []string, vmID func(wmi.Instance) (string, error)) {
	defer events.Close() //nolint:errcheck // nobody hears what it has to say
	for {
		event, err := events.Next(w.ctx)
		if err != nil {
			w.stop(err)
			return
		}
		if event.Class == wmi.EventChange && len(properties) > 0 && !differ(event, properties) {
			continue
		}
		id, err := vmID(event.Target)
		if err != nil {
			w.stop(err)
			return
		}
		select {
		case w.changed <- strings.ToUpper(id):
		case <-w.ctx.Done():
			return
		}
	}
}

func differ(e wmi.Event, properties []string) bool {
	for _, name := range properties {
		if !reflect.DeepEqual(e.Target.Properties[name], e.Previous.Properties[name]) {
			return true
		}
	}
	return false
}

// Next waits for the next change and returns the id that it is about: a VM's, which may exist or not, or something else's, which Refresh tells apart. When
// ctx ends first, the watch goes on. Every other error ends it, most often wmi.ErrDisconnected.
func (w *Watch) Next(ctx context.Context) (string, error) {
	select {
	case id := <-w.changed:
		return id, nil
	case <-ctx.Done():
		return "", context.Cause(ctx)
	case <-w.ctx.Done():
		return "", fmt.Errorf("watch virtual machines: %w", context.Cause(w.ctx)) //nolint:contextcheck // why the watch itself ended
	}
}

// Close ends the watch. A second call does nothing.
func (w *Watch) Close() error {
	w.stop(wmi.ErrDisconnected)
	w.running.Wait()
	return nil
}
