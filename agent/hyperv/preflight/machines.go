package preflight

import (
	"context"
	"fmt"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
)

// checkMachines looks at every virtual machine: what a backup of it would be, and each concern with what to do. It returns what it found.
func (p *Preflight) checkMachines(ctx context.Context, r *Report, host *hyperv.Host) []hyperv.VM {
	inventory, err := host.Inventory(ctx)
	if err != nil {
		r.fail(SectionMachines, "inventory", err, "")
		return nil
	}
	if len(inventory.VMs) == 0 {
		r.add(SectionMachines, "inventory", Concern, "no virtual machines", "If the host has some, this process may not see them: see the checks of the process.")
	}
	for _, vm := range inventory.VMs {
		result := Passed
		for _, c := range vm.Concerns {
			result = worse(result, resultOf(c.Reason.Severity()))
		}
		r.Checks = append(r.Checks, Check{
			Section: SectionMachines, Name: vm.Name, Result: result, Found: outlook(inventory.Host, vm), heading: len(vm.Concerns) > 0,
		})
		for _, c := range vm.Concerns {
			r.add(SectionMachines, "  "+string(c.Reason), resultOf(c.Reason.Severity()), c.Message, "")
		}
	}
	return inventory.VMs
}

func resultOf(s hyperv.Severity) Result {
	switch s {
	case hyperv.Critical:
		return Failed
	case hyperv.Information:
		return Passed
	}
	return Concern
}

func worse(a, b Result) Result {
	for _, r := range []Result{Failed, Concern, Unchecked} {
		if a == r || b == r {
			return r
		}
	}
	return Passed
}

// outlook says what a backup of a virtual machine would be.
func outlook(host hyperv.HostInfo, vm hyperv.VM) string {
	parts := []string{
		strings.ToLower(string(vm.State)),
		fmt.Sprintf("generation %d, version %s", vm.Generation, vm.ConfigurationVersion),
	}
	tracked, disks := 0, 0
	for _, d := range vm.Disks {
		if d.Kind == hyperv.DiskVHDX {
			disks++
		}
		if d.TrackingEnabled {
			tracked++
		}
	}
	parts = append(parts, fmt.Sprintf("%d of %s backed up", disks, plural(len(vm.Disks), "disk")))
	ok, why := hyperv.Quiescible(vm)
	switch {
	case !ok:
		parts = append(parts, "crash consistent ("+why+")")
	case vm.State == hyperv.Off:
		parts = append(parts, "consistent, because it is off")
	default:
		parts = append(parts, "application consistent")
	}
	switch {
	case !hyperv.Trackable(host, vm):
		parts = append(parts, "always full")
	case tracked < disks:
		parts = append(parts, fmt.Sprintf("incremental after the first backup (%d of %d tracked already)", tracked, disks))
	default:
		parts = append(parts, "incremental")
	}
	return strings.Join(parts, ", ")
}
