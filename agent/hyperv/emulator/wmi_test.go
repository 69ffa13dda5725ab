package emulator

import (
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi/wmitest"
)

// TestSessions runs the contract of WMI sessions in process and through the socket.
func TestSessions(t *testing.T) {
	eachWay(t, wmitest.Prepare, func(t *testing.T, h *Host, w *world) {
		sessions := map[string]wmi.Session{
			wmi.NamespaceVirtualization: w.session, wmi.NamespaceCIMv2: w.cim, wmi.NamespaceCluster: w.cluster,
		}
		wmitest.Run(t, wmitest.Host{
			Open:    func(_ *testing.T, namespace string) wmi.Session { return sessions[namespace] },
			Restart: func(*testing.T) { h.Faults().RestartWMI() },
			Deny:    func(_ *testing.T, denied bool) { h.Faults().DenyAccess(denied) },
		})
	})
}
