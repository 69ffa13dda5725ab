package emulator

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/internal/wire"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Fault makes the next calls of a method fail.
type Fault = wire.Fault

// Faults makes an emulated host misbehave, for tests. It is safe for concurrent use.
type Faults struct {
	host *Host

	mu          sync.Mutex
	pending     []Fault
	disconnects int
	ranges      int
	denied      bool
	restarts    int
	properties  map[string]int // that cannot be read, by Class.Property: how many times more
	mergesHeld  chan struct{}  // closed to let merges go on; nil when they are not held
	pauses      map[string]*Pause
	hits        map[string]int
	// jobsReleased is closed to let the jobs that hang now go on.
	jobsReleased chan struct{}
}

// Pause stops the host at a named point. Points are "snapshot.prepared", "snapshot.committed" and "merge.copied", "vss.frozen" and "vss.saved".
type Pause struct {
	// Reached is closed when the host has come to the point; it stays there until Resume.
	Reached chan struct{}
	resume  chan struct{}
	once    sync.Once
}

// Resume lets the host go on. A second call does nothing.
func (p *Pause) Resume() { p.once.Do(func() { close(p.resume) }) }

func newFaults(h *Host) *Faults {
	return &Faults{host: h, pauses: make(map[string]*Pause), hits: make(map[string]int), jobsReleased: make(chan struct{})}
}

// FailNext makes calls fail. Several faults for a method are used up in their order.
func (f *Faults) FailNext(fault Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fault.Times = max(1, fault.Times)
	f.pending = append(f.pending, fault)
}

// Hits returns how many calls of a method have failed by FailNext.
func (f *Faults) Hits(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hits[method]
}

// Disconnect makes the next n calls of WMI sessions return wmi.ErrDisconnected.
func (f *Faults) Disconnect(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disconnects = n
}

// RestartWMI lets the WMI service start anew: objects of its automation interface are dead, and subscriptions end. Sessions connect again by themselves.
func (f *Faults) RestartWMI() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.restarts++
}

// WMIRestarts counts how often the WMI service started anew.
func (f *Faults) WMIRestarts() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.restarts
}

// DenyAccess lets all calls of WMI sessions return wmi.ErrAccessDenied, or no longer.
func (f *Faults) DenyAccess(denied bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.denied = denied
}

// FailProperty lets the next times that a property is read through the automation interface fail.
func (f *Faults) FailProperty(class, property string, times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.properties == nil {
		f.properties = make(map[string]int)
	}
	f.properties[class+"."+property] = times
}

// PropertyFails uses up a fault of FailProperty, if there is one.
func (f *Faults) PropertyFails(class, property string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.properties[class+"."+property] == 0 {
		return false
	}
	f.properties[class+"."+property]--
	return true
}

// HoldMerges stops all merges until ReleaseMerges.
func (f *Faults) HoldMerges() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mergesHeld == nil {
		f.mergesHeld = make(chan struct{})
	}
}

// ReleaseMerges lets merges go on.
func (f *Faults) ReleaseMerges() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mergesHeld != nil {
		close(f.mergesHeld)
		f.mergesHeld = nil
	}
}

// PauseAt stops the host when it comes to a point the next time.
func (f *Faults) PauseAt(point string) *Pause {
	p := &Pause{Reached: make(chan struct{}), resume: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pauses[point] = p
	return p
}

// LoseTracking makes the tracking ids of a disk unusable, as after a crash of a host whose tracking files did not survive.
func (f *Faults) LoseTracking(path string) error {
	use, ok := f.host.use(path)
	if !ok {
		return fmt.Errorf("%s is no disk of a VM", path)
	}
	v := use.vm
	v.op.Lock()
	defer v.op.Unlock()
	for _, d := range v.disks {
		if d.path != use.path {
			continue
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		var err error
		if d.bitmap != nil {
			err = d.bitmap.Close()
			d.bitmap = nil
		}
		err = errors.Join(err, v.commit(func(r *vmRecord) { r.disk(d.path).Tracking = nil }))
		v.dropBitmaps()
		return err
	}
	return fmt.Errorf("the VM of %s cannot be used", path)
}

// take uses up a fault of a method that has, or has not, a return value.
func (f *Faults) take(method string, job bool) *Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.pending {
		p := &f.pending[i]
		if p.Method != method || (p.ReturnValue == 0) != job {
			continue
		}
		taken := *p
		if p.Times--; p.Times == 0 {
			f.pending = append(f.pending[:i:i], f.pending[i+1:]...)
		}
		f.hits[method]++
		return &taken
	}
	return nil
}

// LimitChanges makes each answer for changed ranges have at most n of them; zero ends that.
func (f *Faults) LimitChanges(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ranges = n
}

// changes is how many ranges may be in an answer that has room for n.
func (f *Faults) changes(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ranges > 0 {
		return min(n, f.ranges)
	}
	return n
}

// disk fails a function of virtdisk.dll, with the fault's return value as its code.
func (f *Faults) disk(function string) error {
	if code := f.refuse(function); code != 0 {
		return &virtdisk.Error{Function: function, Code: code}
	}
	return nil
}

func (f *Faults) refuse(method string) uint32 {
	if fault := f.take(method, false); fault != nil {
		return fault.ReturnValue
	}
	return 0
}

// Take uses up a fault of a call of VSS that a shim answers by itself; nil when there is none.
func (f *Faults) Take(method string) error { return f.hresult(method) }

// hresult is the fault of a call of VSS.
func (f *Faults) hresult(method string) error {
	if fault := f.take(method, false); fault != nil {
		return fmt.Errorf("%s: %w", method, vss.Code(fault.ReturnValue))
	}
	return nil
}

// writer is the fault of a step of the Hyper-V VSS writer.
func (f *Faults) writer(step string, failed vss.WriterState) error {
	if fault := f.take(step, false); fault != nil {
		return &vss.WriterError{State: failed, Code: vss.Code(fault.ReturnValue)}
	}
	return nil
}

// DisableService stops a Windows service for good, as an administrator may: it cannot be started any more.
func (f *Faults) DisableService(name string) {
	f.host.mu.Lock()
	defer f.host.mu.Unlock()
	f.host.services[name], f.host.disabled[name] = false, true
}

// jobFault is how a job fails, if it is to. A job that hangs stays here.
func (f *Faults) jobFault(ctx context.Context, method string) error {
	fault := f.take(method, true)
	switch {
	case fault == nil:
		return nil
	case !fault.Hang:
		return &jobError{fault.JobError, fault.Message}
	}
	f.mu.Lock()
	released := f.jobsReleased
	f.mu.Unlock()
	if fault.Stubborn {
		ctx = f.host.ctx
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-released:
		return &jobError{codeFailed, "The operation was given up."}
	}
}

// ReleaseJobs lets the jobs that hang fail.
func (f *Faults) ReleaseJobs() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.jobsReleased)
	f.jobsReleased = make(chan struct{})
}

func (f *Faults) session() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.denied {
		return wmi.ErrAccessDenied
	}
	if f.disconnects == 0 {
		return nil
	}
	f.disconnects--
	return wmi.ErrDisconnected
}

// mergeGate waits while merges are held.
func (f *Faults) mergeGate(ctx context.Context) error {
	f.mu.Lock()
	held := f.mergesHeld
	f.mu.Unlock()
	if held == nil {
		return ctx.Err()
	}
	select {
	case <-held:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reach stops at a point if a test asked for it.
func (f *Faults) reach(ctx context.Context, point string) {
	f.mu.Lock()
	p := f.pauses[point]
	delete(f.pauses, point)
	f.mu.Unlock()
	if p == nil {
		return
	}
	close(p.Reached)
	select {
	case <-p.resume:
	case <-ctx.Done():
	}
}
