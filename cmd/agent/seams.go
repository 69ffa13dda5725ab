package main

import (
	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/client"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/native"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// openSeams reaches the Hyper-V host that a command works on: the emulated one behind a socket, or this machine's own. The caller closes what it got.
func openSeams(socket string) (hyperv.Seams, func() error, error) {
	if socket == "" {
		return native.Open(clock.RealClock{})
	}
	host := client.Dial(socket)
	return hyperv.Seams{
		Virtualization: host.Session(wmi.NamespaceVirtualization), CIM: host.Session(wmi.NamespaceCIMv2), Cluster: host.Session(wmi.NamespaceCluster),
		Disks: host.Disks(), Attacher: host.Attacher(), Files: host.Files(), Shadows: host.VSS(), Clock: clock.RealClock{},
	}, host.Close, nil
}
