package hyperv_test

import (
	"context"
	"sync"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// wire passes calls on to the host and can cut them off: after a number of calls the effect still happens, and the answer is lost, for that call and all
// that follow. This is what a killed agent leaves behind.
type wire struct {
	wmi.Session
	mu      sync.Mutex
	left    int  // answers until the cut; 0 means no cut
	effects bool // only the answers of methods are counted
	isCut   bool
	methods map[string]int // accepted calls
	calls   int
	// refuse makes a method fail before it does anything, as often as it says.
	refuse map[string]uint32
}

// cutAfter lets n-1 answers through.
func (w *wire) cutAfter(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left, w.isCut = n, false
}

func (w *wire) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left, w.isCut = 0, false
}

// gone tells whether calls do not even reach the host any more.
func (w *wire) gone() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls++
	if w.isCut {
		return wmi.ErrDisconnected
	}
	return nil
}

// lost tells whether the answer is lost.
func (w *wire) lost(effect bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.left > 0 && (effect || !w.effects) {
		w.left--
		w.isCut = w.left == 0
	}
	if w.isCut {
		return wmi.ErrDisconnected
	}
	return nil
}

func (w *wire) Query(ctx context.Context, wql string) ([]wmi.Instance, error) {
	return pass(w, false, func() ([]wmi.Instance, error) { return w.Session.Query(ctx, wql) })
}

func (w *wire) Get(ctx context.Context, path string) (wmi.Instance, error) {
	return pass(w, false, func() (wmi.Instance, error) { return w.Session.Get(ctx, path) })
}

func (w *wire) Associators(ctx context.Context, path, assoc, class string) ([]wmi.Instance, error) {
	return pass(w, false, func() ([]wmi.Instance, error) { return w.Session.Associators(ctx, path, assoc, class) })
}

func (w *wire) Invoke(ctx context.Context, path, method string, in wmi.Params) (wmi.Result, error) {
	return pass(w, true, func() (wmi.Result, error) {
		w.mu.Lock()
		code, refused := w.refuse[method]
		w.mu.Unlock()
		if refused {
			return wmi.Result{ReturnValue: code}, nil
		}
		result, err := w.Session.Invoke(ctx, path, method, in)
		if err == nil && (result.ReturnValue == 0 || result.ReturnValue == 4096) {
			w.mu.Lock()
			w.methods[method]++
			w.mu.Unlock()
		}
		return result, err
	})
}

func pass[T any](w *wire, effect bool, call func() (T, error)) (T, error) {
	var zero T
	if err := w.gone(); err != nil {
		return zero, err
	}
	out, err := call()
	if lost := w.lost(effect); lost != nil {
		return zero, lost
	}
	return out, err
}

// pagedDisks answers change queries in small pages.
type pagedDisks struct {
	virtdisk.Service
	page int64
}

func (p pagedDisks) Changes(ctx context.Context, path, id string, window extent.Extent) ([]extent.Extent, int64, error) {
	window.Length = min(window.Length, p.page)
	return p.Service.Changes(ctx, path, id, window)
}

// stuckDisks answers every change query but the first with no progress.
type stuckDisks struct{ pagedDisks }

func (s stuckDisks) Changes(ctx context.Context, path, id string, window extent.Extent) ([]extent.Extent, int64, error) {
	if window.Offset > 0 {
		return nil, 0, nil
	}
	return s.pagedDisks.Changes(ctx, path, id, window)
}

// untidyDisks covers half of the disk with each answer, and tells more than that.
type untidyDisks struct{ virtdisk.Service }

func (untidyDisks) Changes(_ context.Context, _, _ string, window extent.Extent) ([]extent.Extent, int64, error) {
	changed := []extent.Extent{
		{Offset: diskSize - mib, Length: 2 * mib}, {Offset: 6*mib + 100, Length: mib - 200}, {Offset: 6 * mib, Length: 512},
		{Offset: 0, Length: 5000}, {Offset: 3000, Length: 1},
	}
	if window.Offset > 0 {
		changed = append(changed, extent.Extent{Offset: 10 * mib, Length: 1})
	}
	return changed, diskSize / 2, nil
}

// failingDisks answers change queries from an offset on with an error.
type failingDisks struct {
	virtdisk.Service
	from int64
	err  error
}

func (f failingDisks) Changes(ctx context.Context, path, id string, window extent.Extent) ([]extent.Extent, int64, error) {
	if window.Offset >= f.from {
		return nil, 0, f.err
	}
	return f.Service.Changes(ctx, path, id, window)
}
