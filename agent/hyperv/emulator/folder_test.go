package emulator

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func TestVMThatLiesIsCriticalAndAlone(t *testing.T) {
	for name, c := range map[string]struct{ yaml, reason string }{
		"no yaml at all":               {"\t{", "vm.yaml"},
		"an unknown field":             {"memory: 12\n", "memory"},
		"an unknown state":             {"state: asleep\n", "asleep"},
		"a disk that is missing":       {"disks:\n- path: no.vhdx\n", "no.vhdx"},
		"a disk that is no disk":       {"disks:\n- path: vm.yaml\n", "vhdxfile"},
		"a disk outside of the host":   {"disks:\n- path: ..\\..\\x.vhdx\n", "unusable path"},
		"a disk behind a symlink":      {"disks:\n- path: link.vhdx\n", "link.vhdx"},
		"a disk of another VM":         {"disks:\n- path: D:\\VMs\\good\\system.vhdx\n", "good"},
		"an address that is not there": {"disks:\n- {path: x.vhdx, controller: SCSI 9:0}\n", "SCSI 9:0"},
		"the id of another VM":         {"id: 00000000-0000-0000-0000-000000000001\n", "same id"},
		"an unreadable version":        {"version: ten\n", "ten"},
		"too little memory":            {"memoryMiB: 1\n", "memoryMiB"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			addVM(t, dir, "good", "id: 00000000-0000-0000-0000-000000000001\n")
			write(t, filepath.Join(dir, "lies", "vm.yaml"), c.yaml)
			outside := filepath.Join(tempDir(t), "x.vhdx")
			createDisk(t, outside, "1M")
			if err := os.Symlink(outside, filepath.Join(dir, "lies", "link.vhdx")); err != nil {
				t.Fatal(err)
			}
			_, w := openHost(t, dir)
			vm := w.vm("lies")
			if vm.Properties["HealthState"] != int64(25) || vm.Properties["EnabledState"] != int64(32786) {
				t.Errorf("health %v, state %v", vm.Properties["HealthState"], vm.Properties["EnabledState"])
			}
			if reason := vm.Properties["StatusDescriptions"].([]string)[0]; !strings.Contains(reason, c.reason) {
				t.Errorf("the reason is %q", reason)
			}
			if r := w.createSnapshot("lies", consistencyCrash); r.ReturnValue != codeInvalidState {
				t.Errorf("a checkpoint of it returned %d", r.ReturnValue)
			}
			w.checkpoint("good", consistencyCrash)

			write(t, filepath.Join(dir, "lies", "vm.yaml"), "state: \"off\"\n")
			if vm := w.vm("lies"); vm.Properties["HealthState"] != int64(5) || vm.Properties["EnabledState"] != int64(3) {
				t.Errorf("after the repair: health %v, state %v", vm.Properties["HealthState"], vm.Properties["EnabledState"])
			}
		})
	}
}

func TestPeopleStartStopAndRemoveVMsByHand(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "")
	_, w := openHost(t, dir)
	socket := filepath.Join(dir, "crm", "system.vhdx.nbd")
	id := w.vm("crm").Properties["Name"]
	for _, state := range []string{"\"off\"", "running", "paused", "saved", "running"} {
		write(t, filepath.Join(dir, "crm", "vm.yaml"), "# by hand\nstate: "+state+"\ndisks:\n- path: system.vhdx\n")
		vm := w.vm("crm")
		_, err := os.Stat(socket)
		if served := err == nil; served != (state == "running") {
			t.Errorf("%s: served is %v", state, served)
		}
		if want := enabledStates[vmState(strings.Trim(state, `"`))][0]; vm.Properties["EnabledState"] != want || vm.Properties["Name"] != id {
			t.Errorf("%s: EnabledState %v, id %v", state, vm.Properties["EnabledState"], vm.Properties["Name"])
		}
	}
	if err := os.RemoveAll(filepath.Join(dir, "crm")); err != nil {
		t.Fatal(err)
	}
	if left := w.query("SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'crm'"); len(left) != 0 {
		t.Error("a removed VM is still there")
	}
}

func TestDiskThatVanishesMakesItsVMCritical(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "")
	_, w := openHost(t, dir)
	disk := filepath.Join(dir, "crm", "system.vhdx")
	if err := os.Rename(disk, disk+".away"); err != nil {
		t.Fatal(err)
	}
	if vm := w.vm("crm"); vm.Properties["EnabledState"] != int64(32785) {
		t.Errorf("EnabledState %v", vm.Properties["EnabledState"])
	}
	if err := os.Rename(disk+".away", disk); err != nil {
		t.Fatal(err)
	}
	if vm := w.vm("crm"); vm.Properties["EnabledState"] != int64(2) {
		t.Errorf("EnabledState %v after the disk came back", vm.Properties["EnabledState"])
	}
	w.checkpoint("crm", consistencyCrash)
}

func TestStateChangesAreWrittenToTheYAML(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "# a remark\n")
	_, w := openHost(t, dir)
	change := func(state int64) wmi.Result {
		r, err := w.session.Invoke(w.ctx, w.vm("crm").Path, "RequestStateChange", wmi.Params{"RequestedState": state})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := change(2); r.ReturnValue != codeInvalidState {
		t.Errorf("starting a running VM returned %d", r.ReturnValue)
	}
	if r := change(77); r.ReturnValue != codeInvalidParameter {
		t.Errorf("an unknown state returned %d", r.ReturnValue)
	}
	w.done(change(3))
	text, err := os.ReadFile(filepath.Join(dir, "crm", "vm.yaml"))
	if err != nil || !strings.Contains(string(text), "# a remark") || !strings.Contains(string(text), "off") || strings.Contains(string(text), "memoryMiB") {
		t.Errorf("vm.yaml is now %q, %v", text, err)
	}
	w.done(change(2))
	if vm := w.vm("crm"); vm.Properties["EnabledState"] != int64(2) {
		t.Errorf("EnabledState %v", vm.Properties["EnabledState"])
	}
}

func TestHostRemembersEverythingOverARestart(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "")
	h, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second emulator of the folder: %v", err)
	}
	w := &world{t: t, ctx: testContext(t), dir: dir, session: h.Session(wmi.NamespaceVirtualization), disks: h.Disks()}
	point := w.convert(w.checkpoint("crm", consistencyCrash))
	w.merged("crm")
	before := w.checkpoint("crm", consistencyCrash)
	if r := w.invoke(managementService, "ModifySystemSettings", wmi.Params{"SystemSettings": wmi.Object{
		Class: before.Class, Path: before.Path, Properties: map[string]any{"ElementName": "backup of task 7"},
	}}); r.ReturnValue != codeDone {
		t.Fatalf("renaming a checkpoint returned %d", r.ReturnValue)
	}
	if err := errors.Join(h.Close(), h.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.session.Query(w.ctx, "SELECT * FROM Msvm_ComputerSystem"); !errors.Is(err, wmi.ErrDisconnected) {
		t.Errorf("a host that is closed answers %v", err)
	}

	_, w = openHost(t, dir)
	after := w.one("SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemType = '%s'", typeRecoverySnapshot)
	if after.Path != before.Path || after.Properties["ElementName"] != "backup of task 7" {
		t.Errorf("the checkpoint is now %s %q", after.Path, after.Properties["ElementName"])
	}
	id := point.Properties["ResilientChangeTrackingIdentifiers"].([]string)[0]
	if changed, _, err := w.disks.Changes(w.ctx, w.diskFiles(after)[0], id, extent.Extent{Length: 64 << 20}); err != nil || len(changed) != 0 {
		t.Errorf("changes: %v, %v", changed, err)
	}
	w.destroy(after)
	w.merged("crm")
}

// lostDisk is a VM that is off, with a reference point, and its tracking id.
func lostDisk(t *testing.T) (dir, id string) {
	t.Helper()
	dir = tempDir(t)
	createDisk(t, filepath.Join(dir, "crm", "system.vhdx"), "64M")
	write(t, filepath.Join(dir, "crm", "vm.yaml"), "disks:\n- path: system.vhdx\n")
	h, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, ctx: testContext(t), dir: dir, session: h.Session(wmi.NamespaceVirtualization), disks: h.Disks()}
	point := w.convert(w.checkpoint("crm", consistencyCrash))
	w.merged("crm")
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, point.Properties["ResilientChangeTrackingIdentifiers"].([]string)[0]
}

// spoilers change a disk, or what is known of it, behind the host's back.
var spoilers = map[string]func(t *testing.T, dir, disk string){
	"the disk was written while the host was down": func(t *testing.T, _, disk string) {
		tool(t, "qemu-io", "-f", "vhdx", "-c", "write -P 9 0 64k", disk)
	},
	"the disk was replaced": func(t *testing.T, _, disk string) {
		if err := os.Remove(disk); err != nil {
			t.Fatal(err)
		}
		createDisk(t, disk, "64M")
	},
	"the disk has another size": func(t *testing.T, _, disk string) {
		if err := os.Remove(disk); err != nil {
			t.Fatal(err)
		}
		createDisk(t, disk, "32M")
	},
	"the disk was written past its headers": func(t *testing.T, _, disk string) {
		f, err := os.OpenFile(disk, os.O_RDWR, 0)
		if err == nil {
			_, err = f.WriteAt([]byte("x"), 64<<10-1)
			f.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	},
	"the tracking files are gone": func(t *testing.T, dir, _ string) {
		if err := os.RemoveAll(filepath.Join(dir, "crm", privateFolder, "rct")); err != nil {
			t.Fatal(err)
		}
	},
	"a tracking file is cut short": func(t *testing.T, dir, _ string) {
		all, err := filepath.Glob(filepath.Join(dir, "crm", privateFolder, "rct", "*"))
		if err != nil || len(all) != 1 {
			t.Fatal(all, err)
		}
		if err := os.Truncate(all[0], 1); err != nil {
			t.Fatal(err)
		}
	},
}

func TestTrackingIsLostRatherThanGuessed(t *testing.T) {
	for name, spoil := range spoilers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, id := lostDisk(t)
			spoil(t, dir, filepath.Join(dir, "crm", "system.vhdx"))
			_, w := openHost(t, dir)
			snapshot := w.checkpoint("crm", consistencyCrash)
			_, _, err := w.disks.Changes(w.ctx, w.diskFiles(snapshot)[0], id, extent.Extent{Length: 1 << 20})
			if !errors.Is(err, virtdisk.ErrTrackingLost) {
				t.Errorf("changes: %v (I3)", err)
			}
		})
	}
}

func TestUntouchedDiskKeepsItsTracking(t *testing.T) {
	dir, id := lostDisk(t)
	tool(t, "qemu-img", "info", filepath.Join(dir, "crm", "system.vhdx")) // opens it for reading only
	_, w := openHost(t, dir)
	for range 2 { // of the file itself while the VM is off, then of a checkpoint
		files := w.diskFiles(w.active("crm"))
		changed, _, err := w.disks.Changes(w.ctx, files[0], id, extent.Extent{Length: 1 << 20})
		if err != nil || len(changed) != 0 {
			t.Errorf("changes: %v, %v", changed, err)
		}
	}
	snapshot := w.checkpoint("crm", consistencyCrash)
	if changed, _, err := w.disks.Changes(w.ctx, w.diskFiles(snapshot)[0], id, extent.Extent{Length: 1 << 20}); err != nil || len(changed) != 0 {
		t.Errorf("changes: %v, %v", changed, err)
	}
}

func TestLostTrackingOnPurpose(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "")
	h, w := openHost(t, dir)
	point := w.convert(w.checkpoint("crm", consistencyCrash))
	w.merged("crm")
	if err := h.Faults().LoseTracking(`D:\VMs\crm\system.vhdx`); err != nil {
		t.Fatal(err)
	}
	snapshot := w.checkpoint("crm", consistencyCrash)
	id := point.Properties["ResilientChangeTrackingIdentifiers"].([]string)[0]
	if _, _, err := w.disks.Changes(w.ctx, w.diskFiles(snapshot)[0], id, extent.Extent{Length: 1 << 20}); !errors.Is(err, virtdisk.ErrTrackingLost) {
		t.Errorf("changes: %v", err)
	}
}
