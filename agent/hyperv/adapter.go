package hyperv

import (
	"context"
	"strings"

	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// adapterKind is a class of network adapters, with their sub type (ResourceSubType).
type adapterKind struct{ class, subType string }

var (
	syntheticAdapter = adapterKind{classNetworkPort, "Microsoft:Hyper-V:Synthetic Ethernet Port"}
	legacyAdapter    = adapterKind{classLegacyPort, "Microsoft:Hyper-V:Emulated Ethernet Port"}
)

// adapter is a network adapter of a VM or a checkpoint.
type adapter struct {
	NetworkAdapter
	class, path string
	id          string // InstanceID, in upper case
}

// describeAdapters understands the network adapters, but for their switches: those are in their connections.
func describeAdapters(devices func(class string) []wmi.Instance, errs *reader) []adapter {
	var out []adapter
	for _, kind := range []adapterKind{syntheticAdapter, legacyAdapter} {
		for _, instance := range devices(kind.class) {
			r := &reader{Instance: instance}
			out = append(out, adapter{
				NetworkAdapter: NetworkAdapter{
					Name: r.text("ElementName"), Address: r.text("Address"), Static: r.flag("StaticMacAddress"), Legacy: kind == legacyAdapter,
				},
				class: kind.class, path: r.Path, id: strings.ToUpper(r.text("InstanceID")),
			})
			errs.keep(r.err)
		}
	}
	return out
}

// adaptersOf reads the network adapters of one settings object, and their connections.
func (h *Host) adaptersOf(ctx context.Context, settings string) ([]adapter, []wmi.Instance, error) {
	devices, err := h.devicesOf(ctx, settings, classNetworkPort, classLegacyPort, classNetworkBinding)
	if err != nil {
		return nil, nil, err
	}
	errs := &reader{}
	adapters := describeAdapters(devices, errs)
	return adapters, devices(classNetworkBinding), errs.err
}

// device is an adapter to add to a VM, with the fixed address that it had if it is to keep it.
func (n NetworkAdapter) device(keepAddress bool) wmi.Object {
	kind := syntheticAdapter
	if n.Legacy {
		kind = legacyAdapter
	}
	properties := map[string]any{
		"ResourceType": int64(resourceNetwork), "ResourceSubType": kind.subType, "ElementName": n.Name, "StaticMacAddress": false,
	}
	if !n.Legacy { // a legacy one has no such property
		properties["VirtualSystemIdentifiers"] = []string{"{" + uuid.NewString() + "}"}
	}
	if keepAddress && n.Static {
		properties["StaticMacAddress"], properties["Address"] = true, n.Address
	}
	return wmi.Object{Class: kind.class, Properties: properties}
}
