// Package preflight tells, before a host's first backup, whether backups will work there, what stands in the way and what to do.
//
// It checks what the agent takes for granted about a Hyper-V host: that its classes, methods and parameters are those that we call, that the process may do
// what a backup does, and that each virtual machine can be backed up. All of this only reads. A Cycle, which a person has to ask for, then takes
// one virtual machine through a checkpoint, a read and a release, and measures it.
package preflight

import (
	"context"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Preflight looks at one host. It changes nothing.
type Preflight struct {
	// Seams reach the host.
	Seams hyperv.Seams
	// Machine tells about this process and the computer that it runs on.
	Machine Machine
	// Agent is the version of the program.
	Agent string
}

// Run checks everything that can be checked without changing anything. What cannot be looked at is a failed check, so there is always a report.
func (p *Preflight) Run(ctx context.Context) *Report {
	r := &Report{Time: p.Seams.Clock.Now().UTC(), Agent: p.Agent}
	host := hyperv.New(p.Seams)
	info := p.checkHost(ctx, r, host)
	p.checkProcess(ctx, r)
	p.checkServices(ctx, r)
	p.checkClasses(ctx, r, info)
	checkCluster(r, info)
	checkVolumes(r, info)
	vms := p.checkMachines(ctx, r, host)
	p.checkLeftovers(ctx, r, host, vms)
	r.conclude()
	return r
}

// sessions are those of the seams by their namespaces.
func (p *Preflight) sessions() map[string]wmi.Session {
	out := map[string]wmi.Session{wmi.NamespaceVirtualization: p.Seams.Virtualization, wmi.NamespaceCIMv2: p.Seams.CIM}
	if p.Seams.Cluster != nil {
		out[wmi.NamespaceCluster] = p.Seams.Cluster
	}
	return out
}
