//go:build windows

package com

import (
	"context"
	"errors"
	"testing"

	"github.com/go-ole/go-ole"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func TestCallThatHangsKeepsItsThreadOnly(t *testing.T) {
	pool := newThreads()
	release, began, ended := make(chan struct{}), make(chan struct{}), make(chan struct{}, maxThreads)
	ctx, cancel := context.WithCancel(t.Context())
	for range maxThreads {
		go func() {
			_, err := run(ctx, pool, func() (int, error) {
				began <- struct{}{}
				<-release
				return 0, nil
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("a call that hangs: %v", err)
			}
			ended <- struct{}{}
		}()
		<-began
	}
	cancel()
	for range maxThreads {
		<-ended
	}
	late, cancel := context.WithCancel(t.Context())
	waiting := make(chan error)
	go func() {
		_, err := run(late, pool, func() (int, error) { return 0, errors.New("it ran") })
		waiting <- err
	}()
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("a call without a thread: %v", err)
	}
	close(release)
	if got, err := run(t.Context(), pool, func() (int, error) { return 7, nil }); got != 7 || err != nil {
		t.Errorf("a call after them: %d, %v", got, err)
	}
	close(pool.quit)
	pool.wg.Wait()
	if _, err := run(t.Context(), pool, func() (int, error) { return 7, nil }); !errors.Is(err, wmi.ErrDisconnected) {
		t.Errorf("a call after the end: %v", err)
	}
}

func TestPanicsOfTheLibraryAreErrors(t *testing.T) {
	if _, err := contain(func() (int, error) { panic("no session") }); !errors.Is(err, wmi.ErrDisconnected) {
		t.Error(err)
	}
}

func TestCodesKeepTheirMeaning(t *testing.T) {
	for code, want := range map[uint32]error{
		0x80041002: wmi.ErrNotFound, 0x80041003: wmi.ErrAccessDenied, 0x8004100E: wmi.ErrInvalidNamespace, 0x80041010: wmi.ErrInvalidClass,
		0x80041017: wmi.ErrInvalidQuery, 0x800706BA: wmi.ErrDisconnected, 0x80010108: wmi.ErrDisconnected, 0x800706BE: wmi.ErrDisconnected,
	} {
		bare := explain("call", ole.NewError(uintptr(code)))
		thrown := (&exception{code: code}).explain("call", hrException)
		if !errors.Is(bare, want) || !errors.Is(thrown, want) {
			t.Errorf("%#x is %v, and as an exception %v", code, bare, thrown)
		}
	}
	if err := explain("call", ole.NewError(0x80041001)); errors.Is(err, wmi.ErrDisconnected) || !hasCode(err, 0x80041001) {
		t.Errorf("a general failure is %v", err)
	}
	if explain("call", nil) != nil {
		t.Error("no error became one")
	}
}

// TestVoidMethodsSucceedByReturning covers the cluster's: they have no return value, and those without output parameters answer nothing at all.
func TestVoidMethodsSucceedByReturning(t *testing.T) {
	if r, err := result(object{}); err != nil || r.ReturnValue != 0 || len(r.Out) != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}
