//go:build windows

package com

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"

	"github.com/go-ole/go-ole"
	cim "github.com/microsoft/wmi/pkg/wmiinstance"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// maxThreads bounds the calls of a session that run at once, and so those that hang.
const maxThreads = 8

// threads run calls in the multithreaded apartment.
type threads struct {
	calls chan func(joined error)
	quit  chan struct{}
	wg    sync.WaitGroup

	mu    sync.Mutex
	count int
}

func newThreads() *threads {
	return &threads{calls: make(chan func(error)), quit: make(chan struct{})}
}

// secure sets the security of all COM calls of this process, which can be done only once: calls are encrypted, which the cluster's provider insists
// on, and made with our own rights. Where somebody else has been first, theirs holds; Connect asks for ours on the WMI service itself.
var secure = sync.OnceValue(func() error {
	var failed *ole.OleError
	err := cim.CoInitializeSecurity(cim.RPC_C_AUTHN_LEVEL_PKT_PRIVACY, cim.RPC_C_IMP_LEVEL_IMPERSONATE)
	if errors.As(err, &failed) && uint32(failed.Code()) == cim.RPC_E_TOO_LATE {
		return nil
	}
	return explain("initialize COM security", err)
})

// join makes this goroutine's thread a member of the apartment until the goroutine ends, and returns what the goroutine does at its end. The thread is
// not unlocked: it goes with the goroutine.
func join() (leave func(), err error) {
	runtime.LockOSThread()
	_, err = contain(func() (struct{}, error) { return struct{}{}, initialize() })
	if err != nil {
		return func() {}, err
	}
	return ole.CoUninitialize, nil
}

func initialize() error {
	var failed *ole.OleError
	err := ole.CoInitializeEx(0, ole.COINIT_MULTITHREADED)
	joinedBefore := errors.As(err, &failed) && failed.Code() == cim.S_FALSE
	if err != nil && !joinedBefore {
		return explain("initialize COM", err)
	}
	if err := secure(); err != nil {
		ole.CoUninitialize()
		return err
	}
	return nil
}

// submit gives a call to a thread, once one is free. call gets the error of joining the apartment.
func (t *threads) submit(ctx context.Context, call func(joined error)) error {
	select {
	case t.calls <- call:
		return nil
	default:
		t.grow()
	}
	select {
	case t.calls <- call:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.quit:
		return errClosed
	}
}

func (t *threads) grow() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count < maxThreads {
		t.count++
		t.wg.Go(t.work)
	}
}

func (t *threads) work() {
	leave, err := join()
	defer leave()
	for {
		select {
		case call := <-t.calls:
			call(err)
		case <-t.quit:
			return
		}
	}
}

// run makes a call on a thread and returns its answer. When ctx ends first, the answer is thrown away when it comes.
func run[T any](ctx context.Context, t *threads, call func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	err := t.submit(ctx, func(joined error) {
		a := answer{err: joined}
		if joined == nil {
			a.value, a.err = call()
		}
		answers <- a
	})
	var none T
	if err != nil {
		return none, err
	}
	select {
	case <-ctx.Done():
		return none, context.Cause(ctx)
	case a := <-answers:
		return a.value, a.err
	}
}

// contain turns a panic of the library into an error.
func contain[T any](call func() (T, error)) (value T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: the WMI library gave up: %v", wmi.ErrDisconnected, r)
		}
	}()
	return call()
}
