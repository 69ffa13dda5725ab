package emulator

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// versioned opens a host of a version of Windows with a VM of a configuration version, "" for the newest that the host runs.
func versioned(t *testing.T, windows, version string) *world {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "host.yaml"), "osVersion: \""+windows+"\"\njobMillis: 2\n")
	more := ""
	if version != "" {
		more = "version: \"" + version + "\"\n"
	}
	addVM(t, dir, "crm", more)
	_, w := openHost(t, dir)
	return w
}

func TestHostsRunTheVersionsOfTheirWindows(t *testing.T) {
	for name, c := range map[string]struct {
		windows, version, kernel, runs string // runs is the version that the VM has when it runs
	}{
		"2012":                            {"2012", "", "6.2.9200", "4.0"},
		"2012 R2":                         {"2012R2", "", "6.3.9600", "5.0"},
		"2016":                            {"2016", "", "10.0.14393", "8.0"},
		"2019":                            {"2019", "", "10.0.17763", "9.0"},
		"2022":                            {"2022", "", "10.0.20348", "10.0"},
		"2025":                            {"2025", "", "10.0.26100", "12.0"},
		"5.0 on 2016 after an upgrade":    {"2016", "5.0", "10.0.14393", "5.0"},
		"5.0 on 2022 does not run":        {"2022", "5.0", "10.0.20348", ""},
		"12.0 on 2019 does not run":       {"2019", "12.0", "10.0.17763", ""},
		"8.0 on 2025":                     {"2025", "8.0", "10.0.26100", "8.0"},
		"6.2 on 2012 R2 does not run":     {"2012R2", "6.2", "6.3.9600", ""},
		"a version that no Windows knows": {"2025", "99.0", "10.0.26100", ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := versioned(t, c.windows, c.version)
			systems, err := w.cim.Query(w.ctx, "SELECT * FROM Win32_OperatingSystem")
			if err != nil || systems[0].Properties["Version"] != c.kernel {
				t.Errorf("%v, %v", systems, err)
			}
			vm := w.vm("crm")
			if c.runs == "" {
				reasons, _ := vm.Strings("StatusDescriptions")
				if vm.Properties["EnabledState"] != int64(32785) || !strings.Contains(strings.Join(reasons, ""), "cannot run configuration version") {
					t.Errorf("state %v: %v", vm.Properties["EnabledState"], reasons)
				}
				return
			}
			settings := w.one("SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemType = '%s'", typeRealized)
			if vm.Properties["EnabledState"] != int64(2) || settings.Properties["Version"] != c.runs {
				t.Errorf("state %v, version %v", vm.Properties["EnabledState"], settings.Properties["Version"])
			}
		})
	}
}

func TestHostsBefore2016HaveNoBackupThroughWMI(t *testing.T) {
	for _, windows := range []string{"2012", "2012R2"} {
		w := versioned(t, windows, "")
		vm := w.vm("crm").Path
		if _, err := w.session.Query(w.ctx, "SELECT * FROM Msvm_VirtualSystemReferencePoint"); !errors.Is(err, wmi.ErrInvalidClass) {
			t.Errorf("%s: reference points: %v", windows, err)
		}
		if _, err := w.session.Query(w.ctx, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE UserSnapshotType = 3"); !errors.Is(err, wmi.ErrInvalidQuery) {
			t.Errorf("%s: a property of later versions: %v", windows, err)
		}
		service := w.one("SELECT * FROM %s", snapshotService).Path
		if _, err := w.session.Invoke(w.ctx, service, "ConvertToReferencePoint", nil); !errors.Is(err, wmi.ErrInvalidMethod) {
			t.Errorf("%s: conversion: %v", windows, err)
		}
		r, err := w.session.Invoke(w.ctx, service, "CreateSnapshot", wmi.Params{"AffectedSystem": vm, "SnapshotType": int64(snapshotRecovery)})
		if err != nil || r.ReturnValue != codeNotSupported {
			t.Errorf("%s: a recovery checkpoint: %d, %v", windows, r.ReturnValue, err)
		}
		const disk = `D:\VMs\crm\system.vhdx`
		if err := w.disks.EnableChangeTracking(w.ctx, disk); !errors.Is(err, virtdisk.ErrTrackingUnsupported) {
			t.Errorf("%s: tracking: %v", windows, err)
		}
		if _, _, err := w.disks.Changes(w.ctx, disk, "x", extent.Extent{Length: 1}); !errors.Is(err, virtdisk.ErrTrackingUnsupported) {
			t.Errorf("%s: changes: %v", windows, err)
		}
	}
}

func TestGuestBackupTypeCameWith1703(t *testing.T) {
	for windows, want := range map[string]error{"2016": wmi.ErrInvalidParameter, "2019": nil} {
		w := versioned(t, windows, "")
		in := snapshotOf(snapshotSettings, "GuestBackupType", int64(2))
		in["AffectedSystem"] = w.vm("crm").Path
		_, err := w.session.Invoke(w.ctx, w.one("SELECT * FROM %s", snapshotService).Path, "CreateSnapshot", in)
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", windows, err)
		}
	}
}

// A VM of version 5.0 can be frozen on later hosts, but neither quiesced nor tracked.
func TestOldConfigurationsHaveNoTracking(t *testing.T) {
	w := versioned(t, "2019", "5.0")
	if job := w.job(w.createSnapshot("crm", consistencyApplication)); job.Properties["JobState"] != int64(jobException) {
		t.Errorf("a production checkpoint ended in state %v", job.Properties["JobState"])
	}
	point := w.convert(w.checkpoint("crm", consistencyCrash))
	if ids, _ := point.Strings("ResilientChangeTrackingIdentifiers"); len(ids) != 0 {
		t.Errorf("tracking ids %v", ids)
	}
}
