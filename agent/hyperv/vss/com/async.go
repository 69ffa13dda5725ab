//go:build windows

package com

import (
	"context"
	"fmt"
	"time"
	"unsafe"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
)

// Slots and results of IVssAsync.
const (
	slotCancel      = 3
	slotWait        = 4
	slotQueryStatus = 5

	asyncPending   = 0x00042309
	asyncCancelled = 0x0004230B
)

const (
	// asyncWait is how long one wait lasts before ctx is looked at.
	asyncWait = 100 * time.Millisecond
	// cancelLimit bounds the wait for a call that was cancelled. The requester is not used after it.
	cancelLimit = time.Minute
)

// async calls a method that gives out an IVssAsync, and waits for its end. When ctx ends first the call is cancelled, and the cause of ctx returned.
func (r *requester) async(ctx context.Context, name string, slot int) error {
	var running *unknown
	if err := r.backup.call(slot, unsafe.Pointer(&running)); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer running.release()
	var deadline time.Time
	for {
		result, err := running.wait()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", name, err)
		case result == asyncCancelled && ctx.Err() != nil:
			return fmt.Errorf("%s: %w", name, context.Cause(ctx))
		case result == asyncCancelled:
			return fmt.Errorf("%s: it was cancelled: %w", name, vss.Unexpected)
		case result != asyncPending:
			return nil
		case ctx.Err() != nil && deadline.IsZero():
			deadline = time.Now().Add(cancelLimit)
			_ = running.call(slotCancel) // what cannot be cancelled ends by itself
		case ctx.Err() != nil && time.Now().After(deadline):
			return fmt.Errorf("%s: %w", name, context.Cause(ctx))
		}
	}
}

// wait waits a moment and tells how far the call is. Its failure is an error.
func (u *unknown) wait() (result uint32, err error) {
	if err := u.call(slotWait, int(asyncWait/time.Millisecond)); err != nil {
		return 0, err
	}
	var reserved int32
	if err := u.call(slotQueryStatus, unsafe.Pointer(&result), unsafe.Pointer(&reserved)); err != nil {
		return 0, err
	}
	return result, failed(uintptr(result))
}
