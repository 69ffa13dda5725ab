package hyperv

import (
	"context"
	"errors"
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Values of Msvm_ComputerSystem.RequestStateChange.
const (
	requestStart   = 2
	requestTurnOff = 3
	requestPause   = 9
)

// TurnOff cuts a VM's power and waits until it is off; a VM that is off stays so. The guest is not asked. ErrVMNotFound, ErrBusy.
func (h *Host) TurnOff(ctx context.Context, vmID string) error {
	return h.requestState(ctx, vmID, requestTurnOff, Off)
}

// Start switches a VM on and waits until it runs; a VM that runs keeps running. ErrVMNotFound, ErrBusy.
func (h *Host) Start(ctx context.Context, vmID string) error {
	return h.requestState(ctx, vmID, requestStart, Running)
}

// DropSavedState makes a saved VM one that is off, so that its guest starts anew. One in another state stays in it. ErrVMNotFound, ErrBusy.
func (h *Host) DropSavedState(ctx context.Context, vmID string) error {
	vm, err := h.situation(ctx, vmID)
	if err != nil || vm.State != Saved {
		return err
	}
	return h.TurnOff(ctx, vmID)
}

func (h *Host) requestState(ctx context.Context, vmID string, request int64, wanted State) error {
	vm, err := h.situation(ctx, vmID)
	if err != nil || vm.State == wanted {
		return err
	}
	_, err = wmi.Call(ctx, h.virt, h.clock, vm.systemPath, "RequestStateChange", wmi.Params{"RequestedState": request})
	if err == nil {
		return nil
	}
	// Hyper-V calls it an invalid state when the VM is already where it should go.
	if errors.Is(err, wmi.ErrInvalidState) || errors.Is(err, wmi.ErrJobGone) {
		if after, lookErr := h.situation(ctx, vmID); lookErr == nil && after.State == wanted {
			return nil
		}
	}
	return fmt.Errorf("bring %s to the state %s: %w", vm.Name, wanted, classify(err))
}
