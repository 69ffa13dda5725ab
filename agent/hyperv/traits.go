package hyperv

import (
	"context"
	"encoding/xml"
	"errors"
	"slices"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// Classes that not every version of Windows has. A host without one has no such thing either.
const (
	classSecurity       = "Msvm_SecuritySettingData"
	classFibreChannel   = "Msvm_FcPortAllocationSettingData"
	classAssignedDevice = "Msvm_PciExpressSettingData"
	classGPUPartition   = "Msvm_GpuPartitionSettingData"
	classExchange       = "Msvm_KvpExchangeComponent"
)

var traitClasses = []string{classSecurity, classFibreChannel, classAssignedDevice, classGPUPartition}

// unlessAbsent takes a class that the host does not know for one without instances. Asked for associated instances of such a class, WMI may say that
// it found none by an error.
func unlessAbsent(found []wmi.Instance, err error) ([]wmi.Instance, error) {
	if errors.Is(err, wmi.ErrInvalidClass) || errors.Is(err, wmi.ErrNotFound) {
		return nil, nil
	}
	return found, err
}

// Traits are what makes a VM hard to back up, or to restore elsewhere.
type Traits struct {
	// TPM says that the VM has a virtual TPM, Shielded that its state is encrypted and only trusted hosts can run it.
	TPM      bool `json:"tpm,omitempty"`
	Shielded bool `json:"shielded,omitempty"`
	// FibreChannel counts virtual Fibre Channel ports: behind them are disks that the host does not see.
	FibreChannel int `json:"fibreChannel,omitempty"`
	// AssignedDevices counts devices of the host, and parts of its GPUs, that the VM uses directly.
	AssignedDevices int `json:"assignedDevices,omitempty"`
}

func describeTraits(devices func(string) []wmi.Instance, errs *reader) Traits {
	t := Traits{
		FibreChannel:    len(devices(classFibreChannel)),
		AssignedDevices: len(devices(classAssignedDevice)) + len(devices(classGPUPartition)),
	}
	for _, instance := range devices(classSecurity) {
		r := &reader{Instance: instance}
		t.TPM, t.Shielded = t.TPM || r.flag("TpmEnabled"), t.Shielded || r.flag("ShieldingRequested")
		errs.keep(r.err)
	}
	return t
}

// Guest is what a running guest with integration services says of itself.
type Guest struct {
	OS   string `json:"os,omitempty"`
	Name string `json:"name,omitempty"`
	// Addresses are its IP addresses.
	Addresses []string `json:"addresses,omitempty"`
}

// exchangeItem is one of Msvm_KvpExchangeComponent.GuestIntrinsicExchangeItems: an embedded Msvm_KvpExchangeDataItem as text.
type exchangeItem struct {
	Properties []struct {
		Name  string `xml:"NAME,attr"`
		Value string `xml:"VALUE"`
	} `xml:"PROPERTY"`
}

// guests reads what guests say, by the VMs' ids: of one VM, or of all with id "". It is told for people, so what cannot be read is left out.
func (h *Host) guests(ctx context.Context, id string) (map[string]Guest, error) {
	all, err := h.keyedOnce(ctx, classExchange, "SystemName", id)
	if errors.Is(err, wmi.ErrInvalidClass) {
		return nil, nil
	}
	out := map[string]Guest{}
	for id, instance := range all {
		items, err := instance.Strings("GuestIntrinsicExchangeItems")
		if err != nil {
			return nil, err
		}
		out[id] = guestOf(items)
	}
	return out, err
}

func guestOf(items []string) Guest {
	told := map[string]string{}
	for _, text := range items {
		var item exchangeItem
		if xml.Unmarshal([]byte(text), &item) != nil {
			continue
		}
		var name, data string
		for _, p := range item.Properties {
			switch p.Name {
			case "Name":
				name = p.Value
			case "Data":
				data = p.Value
			}
		}
		told[name] = data
	}
	g := Guest{OS: told["OSName"], Name: told["FullyQualifiedDomainName"]}
	for _, key := range []string{"NetworkAddressIPv4", "NetworkAddressIPv6"} {
		for address := range strings.SplitSeq(told[key], ";") {
			if address = strings.TrimSpace(address); address != "" && !slices.Contains(g.Addresses, address) {
				g.Addresses = append(g.Addresses, address)
			}
		}
	}
	return g
}
