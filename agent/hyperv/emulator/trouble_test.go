package emulator

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/client"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// switched makes a host whose faults are switched over its socket.
func switched(t *testing.T) (*Host, *client.Client, *world) {
	dir := tempDir(t)
	createDisk(t, filepath.Join(dir, "crm", "data.vhdx"), "8M")
	addVM(t, dir, "crm", "- path: data.vhdx\n")
	h := startHost(t, dir)
	serve(t, h)
	c, w := connect(t, dir)
	return h, c, w
}

func TestTroublesAreWrittenToTheVM(t *testing.T) {
	h, c, w := switched(t)
	for _, name := range troubles {
		for _, on := range []bool{true, true, false} {
			if err := c.SetTrouble(w.ctx, "crm", string(name), on); err != nil {
				t.Fatal(err)
			}
			if text := readText(t, filepath.Join(w.dir, "crm", "vm.yaml")); strings.Contains(text, string(name)) != on {
				t.Errorf("%s is %v: %s", name, on, text)
			}
		}
	}
	for what, err := range map[string]error{
		"a trouble of no kind":   c.SetTrouble(w.ctx, "crm", "badLuck", true),
		"a VM that is not there": c.SetTrouble(w.ctx, "web", string(troubleDirtyLog), true),
		"nothing that happens":   c.Happen(w.ctx, Happening{What: "nothing", Machine: "crm"}),
		"a disk of nobody":       c.Happen(w.ctx, Happening{What: "hostCrashed", Machine: "crm", Path: `D:\x.vhdx`}),
		"a rewrite under a guest": c.Happen(w.ctx,
			Happening{What: "diskCompacted", Machine: "crm", Path: `D:\VMs\crm\system.vhdx`}),
	} {
		if err == nil {
			t.Errorf("%s is no error", what)
		}
	}
	if v, err := h.machine("crm"); err != nil || v.problem != nil {
		t.Errorf("%v, %v", err, v.problem)
	}
}

func TestUnequalArraysLackTheFirstID(t *testing.T) {
	_, c, w := switched(t)
	if err := c.SetTrouble(w.ctx, "crm", string(troubleUnequalArrays), true); err != nil {
		t.Fatal(err)
	}
	point := w.convert(w.checkpoint("crm", consistencyCrash))
	disks, _ := point.Strings("VirtualDiskIdentifiers")
	ids, _ := point.Strings("ResilientChangeTrackingIdentifiers")
	if len(disks) != 2 || len(ids) != 1 {
		t.Fatalf("%v, %v", disks, ids)
	}
	next := w.diskFiles(w.checkpoint("crm", consistencyCrash))
	for _, file := range next {
		_, _, err := w.disks.Changes(w.ctx, file, ids[0], extent.Extent{Length: 1 << 20})
		if mine := strings.Contains(file, "data"); mine == errors.Is(err, virtdisk.ErrTrackingLost) {
			t.Errorf("the id that is left, asked of %s: %v", file, err)
		}
	}
}

func TestLiveFilesAreHeldWhileTheVMRuns(t *testing.T) {
	_, c, w := switched(t)
	if err := c.SetTrouble(w.ctx, "crm", string(troubleLiveFilesHeld), true); err != nil {
		t.Fatal(err)
	}
	disk := w.diskFiles(w.active("crm"))[0]
	if err := w.disks.EnableChangeTracking(w.ctx, disk); !errors.Is(err, virtdisk.ErrInUse) {
		t.Errorf("while it runs: %v", err)
	}
	w.invoke("Msvm_ComputerSystem WHERE ElementName='crm'", "RequestStateChange", wmi.Params{"RequestedState": int64(3)})
	w.eventually("tracking of a VM that is off", func() bool { return w.disks.EnableChangeTracking(w.ctx, disk) == nil })
}

func TestNamesOfRecoveryCheckpointsAreRefused(t *testing.T) {
	_, c, w := switched(t)
	renamed := func(kind int64) uint32 {
		in := snapshotOf(snapshotSettings, "ConsistencyLevel", int64(consistencyCrash))
		in["AffectedSystem"], in["SnapshotType"] = w.vm("crm").Path, kind
		w.done(w.invoke(snapshotService, "CreateSnapshot", in))
		made := w.query("SELECT * FROM %s WHERE VirtualSystemType LIKE '%%Snapshot%%'", systemSettings)
		return w.invoke(managementService, "ModifySystemSettings", wmi.Params{"SystemSettings": wmi.Object{
			Class: systemSettings, Path: made[len(made)-1].Path, Properties: map[string]any{"ElementName": "renamed"},
		}}).ReturnValue
	}
	if err := c.SetTrouble(w.ctx, "crm", string(troubleNamesRefused), true); err != nil {
		t.Fatal(err)
	}
	if user, recovery := renamed(snapshotFull), renamed(snapshotRecovery); user != codeDone || recovery != codeInvalidState {
		t.Errorf("a user's checkpoint: %d, a backup's: %d", user, recovery)
	}
}

func TestBlockedMergesGoOnWhenTheVMWasOff(t *testing.T) {
	_, c, w := switched(t)
	if err := c.SetTrouble(w.ctx, "crm", string(troubleMergeBlocked), true); err != nil {
		t.Fatal(err)
	}
	w.destroy(w.checkpoint("crm", consistencyCrash))
	if status, _ := w.vm("crm").Ints("OperationalStatus"); len(status) != 2 || status[1] != int64(opMerging) {
		t.Errorf("status %v", status)
	}
	r, err := w.session.Invoke(w.ctx, w.vm("crm").Path, "RequestStateChange", wmi.Params{"RequestedState": int64(3)})
	if err != nil {
		t.Fatal(err)
	}
	w.done(r)
	w.merged("crm")
}

func TestHungJobsAreReleased(t *testing.T) {
	_, c, w := switched(t)
	for _, stubborn := range []bool{false, true} {
		if err := c.FailNext(w.ctx, Fault{Method: "CreateSnapshot", Hang: true, Stubborn: stubborn}); err != nil {
			t.Fatal(err)
		}
		r := w.createSnapshot("crm", consistencyCrash)
		path := r.Out["Job"].(string)
		w.reaches(path, "PercentComplete", 50)
		if _, err := w.session.Invoke(w.ctx, path, "RequestStateChange", wmi.Params{"RequestedState": int64(terminateJob)}); err != nil {
			t.Fatal(err)
		}
		if !stubborn {
			w.reaches(path, "JobState", jobTerminated)
			continue
		}
		w.reaches(path, "JobState", jobRunning)
		if err := c.ReleaseJobs(w.ctx); err != nil {
			t.Fatal(err)
		}
		w.reaches(path, "JobState", jobException)
	}
	w.checkpoint("crm", consistencyCrash)
}

// reaches waits until a property of an object has a value.
func (w *world) reaches(path, property string, want int64) {
	w.t.Helper()
	var got any
	for range 1000 {
		o, err := w.session.Get(w.ctx, path)
		if err != nil {
			w.t.Fatal(err)
		}
		if got = o.Properties[property]; got == want {
			return
		}
		wait(w.ctx, 5*time.Millisecond)
	}
	w.t.Fatalf("%s of %s is %v, not %d", property, path, got, want)
}
