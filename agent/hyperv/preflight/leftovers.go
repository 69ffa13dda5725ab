package preflight

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// checkLeftovers looks for what earlier backups left on the host.
func (p *Preflight) checkLeftovers(ctx context.Context, r *Report, host *hyperv.Host, vms []hyperv.VM) {
	names := map[string]string{}
	for _, vm := range vms {
		names[vm.ID] = vm.Name
	}
	p.checkCheckpoints(ctx, r, host, names)
	checkUnmerged(r, vms)
	p.checkReferencePoints(ctx, r, names)
}

func (p *Preflight) checkCheckpoints(ctx context.Context, r *Report, host *hyperv.Host, names map[string]string) {
	owned, err := host.Owned(ctx)
	if err != nil {
		r.fail(SectionLeftovers, "our checkpoints", err, "")
		return
	}
	for _, cp := range owned {
		r.add(SectionLeftovers, "checkpoint of "+names[cp.VMID], Concern, fmt.Sprintf("of task %s, made %s", cp.Tag, cp.Taken.Format("2006-01-02 15:04 UTC")),
			"If no backup runs now, start the agent: it releases what belongs to no task.")
	}
	if len(owned) == 0 {
		r.pass(SectionLeftovers, "our checkpoints", "none")
	}
}

// checkUnmerged looks for disks on a checkpoint's file while there is no checkpoint.
func checkUnmerged(r *Report, vms []hyperv.VM) {
	stuck := 0
	for _, vm := range vms {
		for _, d := range vm.Disks {
			if len(vm.Checkpoints) == 0 && vm.Operation == "" && strings.HasSuffix(strings.ToLower(d.Path), ".avhdx") {
				stuck++
				r.add(SectionLeftovers, "unmerged disk of "+vm.Name, Concern, fmt.Sprintf("%s is on %s although there is no checkpoint", d.Key, d.Path),
					"Hyper-V did not merge it. Turn the virtual machine off and on; if that does not help, merge by hand with Merge-VHD.")
			}
		}
	}
	if stuck == 0 {
		r.pass(SectionLeftovers, "unmerged disks", "none")
	}
}

// checkReferencePoints counts reference points. They have no owner, so this tells only that there are some.
func (p *Preflight) checkReferencePoints(ctx context.Context, r *Report, names map[string]string) {
	points, err := p.Seams.Virtualization.Query(ctx, "SELECT * FROM Msvm_VirtualSystemReferencePoint")
	if errors.Is(err, wmi.ErrInvalidClass) { // before Windows Server 2016
		err = nil
	}
	if err != nil {
		r.fail(SectionLeftovers, "reference points", err, "")
		return
	}
	count := map[string]int{}
	for _, point := range points {
		id, err := point.String("VirtualSystemIdentifier")
		if err != nil {
			r.fail(SectionLeftovers, "reference points", err, "")
			return
		}
		count[names[strings.ToUpper(id)]]++
	}
	var found []string
	for _, name := range slices.Sorted(maps.Keys(count)) {
		found = append(found, fmt.Sprintf("%d of %s", count[name], name))
	}
	if len(found) == 0 {
		r.pass(SectionLeftovers, "reference points", "none")
		return
	}
	r.pass(SectionLeftovers, "reference points", "%s; they carry no owner, and each backup product keeps its own", strings.Join(found, ", "))
}
