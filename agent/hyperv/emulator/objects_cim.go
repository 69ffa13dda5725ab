package emulator

import (
	"context"
	"maps"
	"slices"
	"strings"
)

// Win32_OperatingSystem.ProductType: 1 is a workstation, 3 a server.
const (
	productWorkstation = 1
	productServer      = 3
)

func (h *Host) operatingSystem() []object {
	caption, product, sku := "Microsoft Windows Server "+strings.Replace(h.config.OSVersion, "R2", " R2", 1)+" Datacenter", int64(productServer), int64(8)
	if h.config.Edition == "desktop" {
		caption, product, sku = "Microsoft Windows 11 Pro", productWorkstation, 48
	}
	build := builds[h.config.OSVersion]
	return []object{{class: "Win32_OperatingSystem", properties: map[string]any{
		"Name": caption, "Caption": caption, "Version": h.config.windowsVersion(), "BuildNumber": build, "ProductType": product, "OperatingSystemSKU": sku,
		"CSName": h.config.Name, "OSArchitecture": "64-bit", "LocalDateTime": datetime(h.now()), "LastBootUpTime": datetime(h.booted), "Status": "OK",
	}}}
}

func (h *Host) win32ComputerSystem() []object {
	return []object{{class: "Win32_ComputerSystem", properties: map[string]any{
		"Name": h.config.Name, "DNSHostName": h.config.Name, "Domain": "WORKGROUP", "PartOfDomain": false, "HypervisorPresent": true,
		"Manufacturer": "Hyperkeep", "Model": "Emulated Hyper-V host",
	}}}
}

func (h *Host) logicalDisks() []object {
	var out []object
	for _, letter := range h.config.letters() {
		name := letter + ":"
		p := map[string]any{"DeviceID": name, "Name": name, "Caption": name, "DriveType": int64(3), "FileSystem": "NTFS"}
		if space, err := h.files.Space(context.Background(), name+`\`); err == nil {
			p["FreeSpace"], p["Size"] = space.Free, space.Total
		}
		out = append(out, object{class: "Win32_LogicalDisk", properties: p})
	}
	return out
}

func (h *Host) win32Services() []object {
	var out []object
	for _, name := range slices.Sorted(maps.Keys(h.services)) {
		state := "Stopped"
		if h.services[name] {
			state = "Running"
		}
		mode := "Manual"
		if h.disabled[name] {
			mode = "Disabled"
		}
		out = append(out, object{class: "Win32_Service", properties: map[string]any{
			"Name": name, "DisplayName": name, "State": state, "Started": h.services[name], "StartMode": mode, "Status": "OK",
		}})
	}
	return out
}
