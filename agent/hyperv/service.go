package hyperv

import (
	"context"
	"fmt"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// service is a Windows service of the host (Win32_Service).
type service struct {
	path string
	// state is one of Stopped, Start Pending, Stop Pending, Running, Continue Pending, Pause Pending, Paused and Unknown.
	state    string
	disabled bool
}

// The states that decide.
const (
	serviceRunning = "Running"
	serviceStopped = "Stopped"
)

// service looks at a Windows service. found is false where it is not installed.
func (h *Host) service(ctx context.Context, name string) (s service, found bool, err error) {
	all, err := h.cim.Query(ctx, "SELECT * FROM Win32_Service WHERE Name="+wmi.Quote(name))
	if err != nil {
		return service{}, false, fmt.Errorf("look at the service %s: %w", name, err)
	}
	if len(all) == 0 {
		return service{}, false, nil
	}
	r := &reader{Instance: all[0]}
	return service{path: all[0].Path, state: r.text("State"), disabled: r.text("StartMode") == "Disabled"}, true, r.err
}
