package emulator

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

const (
	snapshotService   = "Msvm_VirtualSystemSnapshotService"
	managementService = "Msvm_VirtualSystemManagementService"
	pointService      = "Msvm_VirtualSystemReferencePointService"
)

// richVM uses everything that vm.yaml has.
func richVM(t *testing.T, dir string) {
	addVM(t, dir, "crm", `
- passThrough: 3
  sizeBytes: 1073741824
  controller: SCSI 1:5
- empty: true
name: CRM
generation: 2
version: "9.0"
notes: [for accounting]
memoryMiB: 2048
dynamicMemory: {minimumMiB: 512, maximumMiB: 4096}
processors: 2
secureBoot: true
replica: primary
networkAdapters:
- {name: front, switch: LAN, mac: 00155DAA0001}
- {}
`)
}

func TestEveryClassIsReadableAndHasItsOwnTypes(t *testing.T) {
	eachWay(t, richVM, func(t *testing.T, h *Host, w *world) {
		w.convert(w.checkpoint("CRM", consistencyCrash))
		w.stage(w.checkpoint("CRM", consistencyCrash), "crm")
		w.plan("crm.vmcx", true)
		for class := range builders {
			if strings.HasPrefix(class, "MSCluster_") {
				continue // TestClusterIsReadable
			}
			session, namespace := w.session, wmi.NamespaceVirtualization
			if strings.HasPrefix(class, "Win32_") {
				session, namespace = w.cim, wmi.NamespaceCIMv2
			}
			all, err := session.Query(w.ctx, "SELECT * FROM "+class)
			if err != nil {
				t.Fatal(err)
			}
			if len(all) == 0 {
				t.Errorf("no instance of %s", class)
			}
			known, ok := h.schema.Class(namespace, class)
			if !ok {
				t.Fatalf("%s is not in the schema", class)
			}
			for _, i := range all {
				if len(i.Properties) != len(known.Properties) {
					t.Errorf("%s has %d properties, not %d", class, len(i.Properties), len(known.Properties))
				}
				for name, value := range i.Properties {
					if err := known.Properties[name].Check(value); err != nil {
						t.Errorf("%s.%s: %v", class, name, err)
					}
				}
				again, err := session.Get(w.ctx, i.Path)
				if err != nil || again.Path != i.Path {
					t.Errorf("get %s: %v", i.Path, err)
				}
			}
		}
	})
}

func TestDisksAndFilesKeepTheirErrors(t *testing.T) {
	eachWay(t, func(t *testing.T, dir string) {
		richVM(t, dir)
		write(t, filepath.Join(dir, "crm", "old.vhd"), strings.Repeat("conectix", 200))
	}, func(t *testing.T, h *Host, w *world) {
		const disk = `D:\VMs\crm\system.vhdx`
		info, err := w.disks.Info(w.ctx, disk)
		if err != nil || info.VirtualSize != 64<<20 || info.SectorSize != 512 || info.TrackingEnabled || info.ParentPath != "" {
			t.Errorf("info: %+v, %v", info, err)
		}
		changes := func(path, id string) error {
			_, _, err := w.disks.Changes(w.ctx, path, id, extent.Extent{Length: 1})
			return err
		}
		for name, c := range map[string]struct{ err, want error }{
			"no such disk":              {changes(`D:\VMs\crm\no.vhdx`, "x"), virtdisk.ErrFileNotFound},
			"no virtual disk":           {changes(`D:\VMs\crm\vm.yaml`, "x"), virtdisk.ErrNotVirtualDisk},
			"an id of nobody":           {changes(disk, "rctX:0"), virtdisk.ErrTrackingLost},
			"tracking of a VHD":         {w.disks.EnableChangeTracking(w.ctx, `D:\VMs\crm\old.vhd`), virtdisk.ErrNotVirtualDisk},
			"a file that is not there":  {second(w.files.Open(w.ctx, `D:\VMs\no`)), fs.ErrNotExist},
			"a path with dots":          {second(w.files.Open(w.ctx, `D:\VMs\..\..\etc\passwd`)), hostfs.ErrPath},
			"a volume that is not here": {second(w.files.Stat(w.ctx, `Q:\x`)), hostfs.ErrPath},
		} {
			if !errors.Is(c.err, c.want) {
				t.Errorf("%s: %v, not %v", name, c.err, c.want)
			}
		}
		if err := w.disks.EnableChangeTracking(w.ctx, disk); err != nil {
			t.Fatal(err)
		}
		if info, err := w.disks.Info(w.ctx, disk); err != nil || !info.TrackingEnabled {
			t.Errorf("tracking is not on: %+v, %v", info, err)
		}
		if err := changes(disk, "x"); !errors.Is(err, virtdisk.ErrInUse) && !errors.Is(err, virtdisk.ErrTrackingLost) {
			t.Errorf("changes of the disk that the guest writes: %v", err)
		}
	})
}

func second[T any](_ T, err error) error { return err }

func TestReferencePointCarriesParallelIDs(t *testing.T) {
	eachWay(t, richVM, func(t *testing.T, h *Host, w *world) {
		snapshot := w.checkpoint("CRM", consistencyApplication)
		if got := snapshot.Properties["VirtualSystemIdentifier"]; got != w.vm("CRM").Properties["Name"] {
			t.Errorf("the checkpoint belongs to %v", got)
		}
		for _, file := range []string{"ConfigurationFile", "GuestStateFile"} {
			path := snapshot.Properties["ConfigurationDataRoot"].(string) + `\` + snapshot.Properties[file].(string)
			if _, err := w.files.Stat(w.ctx, path); err != nil {
				t.Errorf("%s: %v (EZ-04)", file, err)
			}
		}
		point := w.convert(snapshot)
		disks, ids := point.Properties["VirtualDiskIdentifiers"].([]string), point.Properties["ResilientChangeTrackingIdentifiers"].([]string)
		if len(disks) != 1 || len(ids) != 1 || !strings.HasPrefix(ids[0], "rctX:") {
			t.Fatalf("disks %v, ids %v", disks, ids)
		}
		w.one("SELECT * FROM Msvm_StorageAllocationSettingData WHERE InstanceID = '%s'", strings.ReplaceAll(disks[0], `\`, `\\`))
		if got := w.associated(w.vm("CRM").Path, "Msvm_ReferencePointOfVirtualSystem", "Msvm_VirtualSystemReferencePoint"); len(got) != 1 {
			t.Errorf("%d reference points", len(got))
		}
		next := w.checkpoint("CRM", consistencyCrash)
		if _, _, err := w.disks.Changes(w.ctx, w.diskFiles(next)[0], ids[0], extent.Extent{Length: 64 << 20}); err != nil {
			t.Fatal(err)
		}
		w.done(w.invoke(pointService, "DestroyReferencePoint", wmi.Params{"AffectedReferencePoint": point.Path}))
		_, _, err := w.disks.Changes(w.ctx, w.diskFiles(next)[0], ids[0], extent.Extent{Length: 64 << 20})
		if !errors.Is(err, virtdisk.ErrTrackingLost) {
			t.Errorf("the id outlives its reference point: %v", err)
		}
	})
}

func TestSecondBackupOfAVMIsRefused(t *testing.T) {
	eachWay(t, richVM, func(t *testing.T, h *Host, w *world) {
		snapshot := w.checkpoint("CRM", consistencyCrash)
		if r := w.createSnapshot("CRM", consistencyCrash); r.ReturnValue != codeInvalidState {
			t.Errorf("a second recovery checkpoint returned %d", r.ReturnValue)
		}
		w.destroy(snapshot)
		w.destroy(w.checkpoint("CRM", consistencyCrash))
		w.merged("CRM")
	})
}

func TestPassThroughDiskIsRefusedOrSkipped(t *testing.T) {
	eachWay(t, richVM, func(t *testing.T, h *Host, w *world) {
		job := w.job(w.invoke(snapshotService, "CreateSnapshot", wmi.Params{"AffectedSystem": w.vm("CRM").Path, "SnapshotType": int64(snapshotRecovery)}))
		if job.Properties["JobState"] != int64(jobException) || !strings.Contains(job.Properties["ErrorDescription"].(string), "physical disk") {
			t.Errorf("the job ended in state %v: %v", job.Properties["JobState"], job.Properties["ErrorDescription"])
		}
		snapshot := w.checkpoint("CRM", consistencyCrash) // skips it (EZ-22)
		if files := w.diskFiles(snapshot); len(files) != 1 {
			t.Errorf("the checkpoint holds %v", files)
		}
	})
}

func TestFormatErrorReadsWhatGetErrorExGives(t *testing.T) {
	eachWay(t, richVM, func(t *testing.T, h *Host, w *world) {
		h.Faults().FailNext(Fault{Method: "CreateSnapshot", JobError: codeInUse, Message: `the writer "SQL <1>" failed`})
		job := w.job(w.createSnapshot("CRM", consistencyCrash))
		if job.Properties["ErrorCode"] != int64(codeInUse) {
			t.Errorf("error code %v", job.Properties["ErrorCode"])
		}
		r, err := w.session.Invoke(w.ctx, job.Path, "GetErrorEx", nil)
		if err != nil {
			t.Fatal(err)
		}
		text := w.invoke(managementService, "FormatError", wmi.Params{"Errors": r.Out["Errors"]})
		if got := text.Out["ErrorMessage"]; got != `the writer "SQL <1>" failed` {
			t.Errorf("the message is %q", got)
		}
		h.Faults().FailNext(Fault{Method: "CreateSnapshot", ReturnValue: codeInvalidState})
		if r := w.createSnapshot("CRM", consistencyCrash); r.ReturnValue != codeInvalidState {
			t.Errorf("a refused call returned %d", r.ReturnValue)
		}
		if hits := h.Faults().Hits("CreateSnapshot"); hits != 2 {
			t.Errorf("%d faults were hit", hits)
		}
	})
}

func TestServicesStartAndTellTheirState(t *testing.T) {
	eachWay(t, richVM, func(t *testing.T, h *Host, w *world) {
		state := func() wmi.Instance {
			all, err := w.cim.Query(w.ctx, "SELECT * FROM Win32_Service WHERE Name = 'VSS'")
			if err != nil || len(all) != 1 {
				t.Fatalf("%v, %v", all, err)
			}
			return all[0]
		}
		if got := state().Properties["State"]; got != "Stopped" {
			t.Fatalf("VSS is %v", got)
		}
		for _, want := range []uint32{0, 10} {
			if r, err := w.cim.Invoke(w.ctx, state().Path, "StartService", nil); err != nil || r.ReturnValue != want {
				t.Errorf("StartService returned %d, not %d: %v (DR-04)", r.ReturnValue, want, err)
			}
		}
		if got := state().Properties["State"]; got != "Running" {
			t.Errorf("VSS is %v", got)
		}
		if _, err := h.Session(wmi.NamespaceCluster).Query(w.ctx, "SELECT * FROM MSCluster_Cluster"); !errors.Is(err, wmi.ErrInvalidNamespace) {
			t.Errorf("a host without a cluster: %v", err)
		}
	})
}

func TestExportedDiskNumbersReachTheirDrive(t *testing.T) {
	eachWay(t, richVM, func(t *testing.T, h *Host, w *world) {
		drives := w.query("SELECT * FROM Msvm_ResourceAllocationSettingData WHERE ResourceSubType = '%s' AND HostResource IS NOT NULL", subPhysical)
		if len(drives) != 1 {
			t.Fatalf("%d pass-through drives", len(drives))
		}
		disk, err := w.session.Get(w.ctx, drives[0].Properties["HostResource"].([]string)[0])
		if err != nil || disk.Properties["DriveNumber"] != int64(3) {
			t.Errorf("drive %v, %v", disk.Properties["DriveNumber"], err)
		}
		if a := drives[0].Properties["AddressOnParent"]; a != "5" || w.address(drives[0]) != "1" {
			t.Errorf("it sits at %v", a)
		}
	})
}

// address is the number of the controller of a drive.
func (w *world) address(drive wmi.Instance) string {
	w.t.Helper()
	controller, err := w.session.Get(w.ctx, drive.Properties["Parent"].(string))
	if err != nil {
		w.t.Fatal(err)
	}
	return controller.Properties["Address"].(string)
}
