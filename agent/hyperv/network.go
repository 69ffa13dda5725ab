package hyperv

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Values of Msvm_EthernetPortAllocationSettingData.EnabledState, and its ResourceType and sub type.
const (
	connectionEnabled  = 2
	connectionDisabled = 3
	resourceConnection = 33
	subTypeConnection  = "Microsoft:Hyper-V:Ethernet Connection"
)

// networkPlan says which switch each network adapter gets.
type networkPlan struct {
	target   RestoreTarget
	switches []virtualSwitch // of the host
	warnings []string
}

// virtualSwitch is a switch that the host has, or that an adapter was connected to. A switch keeps its id, in upper case, when it is renamed; one of the same
// name on another host has another.
type virtualSwitch struct{ id, name, path string }

func (h *Host) networkPlan(ctx context.Context, t RestoreTarget) (*networkPlan, error) {
	p := &networkPlan{target: t}
	found, err := h.virt.Query(ctx, "SELECT * FROM Msvm_VirtualEthernetSwitch")
	if err != nil {
		return nil, fmt.Errorf("list the virtual switches: %w", err)
	}
	for _, s := range found {
		name, err := s.String("ElementName")
		if err != nil {
			return nil, err
		}
		p.switches = append(p.switches, virtualSwitch{referenced(s.Path, "Name"), name, s.Path})
	}
	return p, nil
}

// find finds a switch of the host by its id, and only if it has none of that by its name.
func (p *networkPlan) find(wanted virtualSwitch) (virtualSwitch, bool) {
	for _, same := range []func(virtualSwitch) bool{
		func(s virtualSwitch) bool { return wanted.id != "" && s.id == wanted.id },
		func(s virtualSwitch) bool { return wanted.name != "" && s.name == wanted.name },
	} {
		if i := slices.IndexFunc(p.switches, same); i >= 0 {
			return p.switches[i], true
		}
	}
	return virtualSwitch{}, false
}

// wanted is the path of the switch for an adapter that was connected to a switch, "" for none.
func (p *networkPlan) wanted(adapter string, before virtualSwitch) string {
	wanted := virtualSwitch{}
	if p.target.KeepNetworks {
		wanted = before
	}
	if name, mapped := p.target.Switches[before.name]; mapped && before.name != "" {
		wanted = virtualSwitch{name: name}
	}
	if wanted == (virtualSwitch{}) {
		return ""
	}
	found, exists := p.find(wanted)
	if !exists {
		p.warnings = append(p.warnings, fmt.Sprintf("Network adapter %q is not connected: the host has no virtual switch %q.", adapter, cmp.Or(wanted.name, wanted.id)))
	}
	return found.path
}

// placeAdapters connects the adapters of a planned VM to the switches that they are meant for, and takes the addresses from those of a copy: it must not
// meet its original with them.
func (h *Host) placeAdapters(ctx context.Context, planned plannedVM, t RestoreTarget) error {
	plan, err := h.networkPlan(ctx, t)
	if err != nil {
		return err
	}
	adapters, bindings, err := h.adaptersOf(ctx, planned.settings.Path)
	if err != nil {
		return err
	}
	names := map[string]string{} // by the adapters' ids
	for _, a := range adapters {
		names[a.id] = a.Name
		if a.Static && !t.KeepNetworks {
			err := h.modifyDevices(ctx, wmi.Object{Class: a.class, Path: a.path, Properties: map[string]any{"StaticMacAddress": false}})
			if err != nil {
				return refusal(fmt.Errorf("give network adapter %q an address: %w", a.Name, err))
			}
		}
	}
	for _, instance := range bindings {
		if err := h.reconnect(ctx, plan, &reader{Instance: instance}, names); err != nil {
			return err
		}
	}
	return nil
}

// reconnect points the connection of an adapter to another switch, or cuts it.
func (h *Host) reconnect(ctx context.Context, plan *networkPlan, r *reader, names map[string]string) error {
	adapter := names[referenced(r.text("Parent"), "InstanceID")]
	before := virtualSwitch{id: referenced(r.hostResource(), "Name"), name: r.text("LastKnownSwitchName")}
	enabled := r.number("EnabledState") == connectionEnabled
	if present, found := plan.find(before); found && before.name == "" {
		before.name = present.name
	}
	if r.err != nil || !enabled {
		return r.err
	}
	properties := map[string]any{"EnabledState": int64(connectionDisabled)}
	if path := plan.wanted(adapter, before); path != "" {
		properties = map[string]any{"EnabledState": int64(connectionEnabled), "HostResource": []string{path}}
	}
	if err := warnAll(plan.target, plan.warnings); err != nil {
		return err
	}
	if err := h.modifyDevices(ctx, wmi.Object{Class: classNetworkBinding, Path: r.Path, Properties: properties}); err != nil {
		return refusal(fmt.Errorf("connect network adapter %q: %w", adapter, err))
	}
	return nil
}

// ensureNetworks adds network adapters until the VM has as many as the definition, in its order, and connects them as the target says.
func (h *Host) ensureNetworks(ctx context.Context, settings string, adapters []NetworkAdapter, t RestoreTarget) ([]string, error) {
	plan, err := h.networkPlan(ctx, t)
	if err != nil {
		return nil, err
	}
	have, _, err := h.adaptersOf(ctx, settings)
	if err != nil {
		return nil, err
	}
	for i := len(have); i < len(adapters); i++ {
		if err := h.addDevice(ctx, settings, adapters[i].device(t.KeepNetworks)); err != nil {
			return nil, fmt.Errorf("add network adapter %q: %w", adapters[i].Name, err)
		}
	}
	err = h.connect(ctx, settings, adapters, plan)
	return plan.warnings, err
}

// connect gives each adapter that has no connection the one that it is meant for. Adapters of one name and kind are taken in their order.
func (h *Host) connect(ctx context.Context, settings string, adapters []NetworkAdapter, plan *networkPlan) error {
	have, bindings, err := h.adaptersOf(ctx, settings)
	if err != nil {
		return err
	}
	connected := map[string]bool{}
	for _, instance := range bindings {
		parent, err := instance.String("Parent")
		if err != nil {
			return err
		}
		connected[referenced(parent, "InstanceID")] = true
	}
	for _, wanted := range adapters {
		path := plan.wanted(wanted.Name, virtualSwitch{name: wanted.Switch})
		at := slices.IndexFunc(have, func(a adapter) bool { return a.Name == wanted.Name && a.Legacy == wanted.Legacy })
		if at < 0 {
			continue
		}
		port := have[at]
		have = slices.Delete(have, at, at+1)
		if path == "" || connected[port.id] {
			continue
		}
		err := h.addDevice(ctx, settings, wmi.Object{Class: classNetworkBinding, Properties: map[string]any{
			"ResourceType": int64(resourceConnection), "ResourceSubType": subTypeConnection, "Parent": port.path,
			"HostResource": []string{path}, "EnabledState": int64(connectionEnabled),
		}})
		if err != nil {
			return fmt.Errorf("connect network adapter %q: %w", wanted.Name, err)
		}
	}
	return nil
}
