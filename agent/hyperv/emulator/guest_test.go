package emulator

import (
	"maps"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

func TestGuestTakesPartAsItsIntegrationServicesDo(t *testing.T) {
	for name, c := range map[string]struct {
		yaml        string
		consistency int64
		state       int64 // of the job
		message     string
		quiesced    int
	}{
		"a healthy guest is asked (NW-04)":                        {"", consistencyApplication, jobCompleted, "", 1},
		"a crash-consistent checkpoint asks nobody (NW-05)":       {"", consistencyCrash, jobCompleted, "", 0},
		"disabled services cannot be asked (NW-10)":               {"integrationServices: disabled\n", consistencyApplication, jobException, "disabled", 0},
		"missing services cannot be asked (DR-13)":                {"integrationServices: missing\n", consistencyApplication, jobException, "contacted", 0},
		"a failing writer fails the checkpoint (NW-08)":           {"integrationServices: failing\n", consistencyApplication, jobException, "VSS", 1},
		"a failing guest does not matter for a crash checkpoint":  {"integrationServices: failing\n", consistencyCrash, jobCompleted, "", 0},
		"a VM that is off has nothing in memory":                  {"state: \"off\"\n", consistencyApplication, jobCompleted, "", 0},
		"a saved VM has nothing to flush":                         {"state: saved\n", consistencyApplication, jobCompleted, "", 0},
		"a paused guest cannot answer":                            {"state: paused\n", consistencyApplication, jobException, "paused", 0},
		"a paused guest can be frozen as it is":                   {"state: paused\n", consistencyCrash, jobCompleted, "", 0},
		"a replica is only ever crash consistent (EZ-17)":         {"replica: replica\n", consistencyApplication, jobException, "replica", 0},
		"a replica may be checkpointed crash consistent (EZ-17)":  {"replica: replica\n", consistencyCrash, jobCompleted, "", 0},
		"the policy for users' checkpoints does not bind backups": {"checkpoints: disabled\n", consistencyCrash, jobCompleted, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			addVM(t, dir, "crm", "")
			if strings.HasPrefix(c.yaml, "state") {
				write(t, dir+"/crm/vm.yaml", c.yaml+"disks:\n- path: system.vhdx\n")
			} else {
				write(t, dir+"/crm/vm.yaml", c.yaml+"state: running\ndisks:\n- path: system.vhdx\n")
			}
			h, w := openHost(t, dir)
			job := w.job(w.createSnapshot("crm", c.consistency))
			if job.Properties["JobState"] != c.state {
				t.Errorf("the job ended in state %v: %v", job.Properties["JobState"], job.Properties["ErrorDescription"])
			}
			if text, _ := job.Properties["ErrorDescription"].(string); !strings.Contains(text, c.message) {
				t.Errorf("the job says %q, not %q", text, c.message)
			}
			if h.QuiesceCalls() != c.quiesced {
				t.Errorf("the guest was asked %d times, not %d", h.QuiesceCalls(), c.quiesced)
			}
		})
	}
}

func TestHangingGuestIsCancelled(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "integrationServices: hanging\n")
	_, w := openHost(t, dir)
	r := w.createSnapshot("crm", consistencyApplication)
	path := r.Out["Job"].(string)
	w.eventually("the status to tell", func() bool {
		status := w.vm("crm").Properties["OperationalStatus"].([]int64)
		return len(status) == 2 && status[1] == int64(opCreatingSnapshot)
	})
	if again := w.createSnapshot("crm", consistencyCrash); again.ReturnValue != codeInvalidState {
		t.Errorf("a call during another one returned %d", again.ReturnValue)
	}
	cancel, err := w.session.Invoke(w.ctx, path, "RequestStateChange", wmi.Params{"RequestedState": int64(terminateJob)})
	if err != nil || cancel.ReturnValue != codeDone {
		t.Fatalf("cancel: %d, %v", cancel.ReturnValue, err)
	}
	if job := w.job(r); job.Properties["JobState"] != int64(jobTerminated) {
		t.Errorf("the job ended in state %v", job.Properties["JobState"])
	}
	w.checkpoint("crm", consistencyCrash) // the VM is free again
}

func TestVSSComponentShowsTheServices(t *testing.T) {
	for services, want := range map[string][2]int64{"ok": {2, 2}, "disabled": {3, 10}, "missing": {2, 12}, "failing": {2, 2}} {
		dir := tempDir(t)
		addVM(t, dir, "crm", "integrationServices: "+services+"\n")
		_, w := openHost(t, dir)
		all := w.associated(w.vm("crm").Path, "Msvm_SystemDevice", "Msvm_VssComponent")
		if len(all) != 1 || all[0].Properties["EnabledState"] != want[0] || all[0].Properties["OperationalStatus"].([]int64)[0] != want[1] {
			t.Errorf("%s: %v", services, all)
		}
		setting := w.associated(w.active("crm").Path, "Msvm_VirtualSystemSettingDataComponent", "Msvm_VssComponentSettingData")
		if len(setting) != 1 || setting[0].Properties["EnabledState"] != want[0] {
			t.Errorf("%s: %v (DR-06)", services, setting)
		}
	}
}

func TestApplicationsTruncateTheirLogsUnlessItIsACopy(t *testing.T) {
	for name, c := range map[string]struct {
		services  string
		settings  map[string]any
		truncated int
	}{
		"a full backup":                             {"ok", map[string]any{"GuestBackupType": int64(1)}, 1},
		"a copy":                                    {"ok", map[string]any{"GuestBackupType": int64(2)}, 0},
		"a backup of no type is a full one":         {"ok", nil, 1},
		"a full backup in which the guest fails":    {"failing", map[string]any{"GuestBackupType": int64(1)}, 0},
		"a full backup for which nobody is asked":   {"ok", map[string]any{"GuestBackupType": int64(1), "ConsistencyLevel": int64(consistencyCrash)}, 0},
		"a full backup that the guest cannot serve": {"missing", map[string]any{"GuestBackupType": int64(1)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			addVM(t, dir, "crm", "integrationServices: "+c.services+"\n")
			h, w := openHost(t, dir)
			settings := map[string]any{"ConsistencyLevel": int64(consistencyApplication)}
			maps.Copy(settings, c.settings)
			w.job(w.invoke(snapshotService, "CreateSnapshot", wmi.Params{
				"AffectedSystem": w.vm("crm").Path, "SnapshotType": int64(snapshotRecovery),
				"SnapshotSettings": wmi.Object{Class: snapshotSettings, Properties: settings},
			}))
			if n := h.LogTruncations(); n != c.truncated {
				t.Errorf("logs were truncated %d times", n)
			}
		})
	}
}
