package main

import (
	"errors"

	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi/com"
)

// ownSeams reaches the Hyper-V of this machine. Nothing is connected before it is called: the cluster's namespace may be missing, and WMI may start
// later than the agent.
func ownSeams() (hyperv.Seams, func() error, error) {
	virtualization, cim, cluster := com.New(wmi.NamespaceVirtualization), com.New(wmi.NamespaceCIMv2), com.New(wmi.NamespaceCluster)
	return hyperv.Seams{Virtualization: virtualization, CIM: cim, Cluster: cluster, Clock: clock.RealClock{}}, func() error {
		return errors.Join(virtualization.Close(), cim.Close(), cluster.Close())
	}, nil
}
