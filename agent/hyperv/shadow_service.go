package hyperv

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// ErrVSSUnavailable means that the Volume Shadow Copy service does not run and cannot be started.
var ErrVSSUnavailable = errors.New("the Volume Shadow Copy service is not available")

const vssService = "VSS"

// What Win32_Service.StartService returns that is no failure.
const (
	serviceStarted        = 0
	serviceAlreadyRunning = 10
)

// How long the service may take to run, and how often it is looked at.
const (
	serviceStartLimit = time.Minute
	serviceStartPause = time.Second
)

// StartVSS starts the Volume Shadow Copy service unless it runs. It stops by itself some minutes after its last use. ErrVSSUnavailable.
func (h *Host) StartVSS(ctx context.Context) error {
	if h.shadows == nil {
		return fmt.Errorf("%w: this agent has no access to it", ErrVSSUnavailable)
	}
	s, found, err := h.service(ctx, vssService)
	if err == nil && !found {
		err = fmt.Errorf("%w: the host does not have it", ErrVSSUnavailable)
	}
	if err != nil || s.state == serviceRunning {
		return err
	}
	if s.disabled {
		return fmt.Errorf("%w: it is disabled on the host; allow it with: sc.exe config VSS start= demand", ErrVSSUnavailable)
	}
	result, err := h.cim.Invoke(ctx, s.path, "StartService", wmi.Params{})
	if err != nil {
		return fmt.Errorf("start the Volume Shadow Copy service: %w", err)
	}
	if result.ReturnValue != serviceStarted && result.ReturnValue != serviceAlreadyRunning {
		return fmt.Errorf("%w: starting it returned %d (Win32_Service.StartService); see the host's system event log", ErrVSSUnavailable, result.ReturnValue)
	}
	for waited := time.Duration(0); waited < serviceStartLimit; waited += serviceStartPause {
		if s, _, err = h.service(ctx, vssService); err != nil || s.state == serviceRunning {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-h.clock.After(serviceStartPause):
		}
	}
	return fmt.Errorf("%w: it is %q a minute after it was started", ErrVSSUnavailable, s.state)
}

// ShadowObstacles lists why a host cannot be backed up through VSS; empty when it can. Whether the writer offers a VM shows only when it is asked.
func ShadowObstacles(host HostInfo) []Concern {
	if !host.Desktop {
		return nil
	}
	return []Concern{{Reason: DesktopEdition, Message: fmt.Sprintf("%s is a desktop edition, which has no Hyper-V VSS writer.", host.OS)}}
}

// DropShadow deletes the shadow copies of a set whose requester is gone; nil when there are none.
func (h *Host) DropShadow(ctx context.Context, setID string) error {
	if h.shadows == nil || setID == "" {
		return nil
	}
	if err := h.shadows.Delete(ctx, setID); err != nil {
		return fmt.Errorf("delete the shadow copies of set %s: %w", setID, shadowFailure(err))
	}
	return nil
}

// shadowFailure adds our meaning to a failure of VSS: what may pass by itself is ErrBusy, a full volume ErrNoSpace.
func shadowFailure(err error) error {
	switch {
	case errors.Is(err, vss.InsufficientStorage):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case vss.Retryable(err), errors.Is(err, vss.ErrDisconnected):
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}
