package native

import (
	"errors"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk/win32"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss/child"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi/com"
)

// Open reaches the Hyper-V of this machine. Nothing is connected yet when it returns: the cluster's namespace may be missing, and WMI may start
// later than the agent. The caller closes what it got.
func Open(clock wmi.Clock) (hyperv.Seams, func() error, error) {
	virtualization, cim, cluster := com.New(wmi.NamespaceVirtualization), com.New(wmi.NamespaceCIMv2), com.New(wmi.NamespaceCluster)
	// What this process does not hold is missed only where a file's access list refuses it; preflight tells before.
	_ = hostfs.EnablePrivileges()
	shadows, err := child.Self()
	if err != nil {
		return hyperv.Seams{}, nil, err
	}
	seams := hyperv.Seams{
		Virtualization: virtualization, CIM: cim, Cluster: cluster,
		Disks: win32.Service{}, Attacher: win32.Service{}, Files: hostfs.Native{}, Shadows: shadows, Clock: clock,
	}
	return seams, func() error { return errors.Join(virtualization.Close(), cim.Close(), cluster.Close()) }, nil
}
