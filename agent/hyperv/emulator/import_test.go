package emulator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

const staging = `D:\VMs\staging\`

// stage copies a checkpoint's configuration files, as a backup does, and gives them another stem.
func (w *world) stage(checkpoint wmi.Instance, stem string) {
	w.t.Helper()
	id := strings.TrimPrefix(checkpoint.Properties["InstanceID"].(string), "Microsoft:")
	folder := checkpoint.Properties["ConfigurationDataRoot"].(string)
	source := filepath.Join(w.dir, folder[strings.LastIndexByte(folder, '\\')+1:], snapshotFolder)
	entries, err := os.ReadDir(source)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if extension, ok := strings.CutPrefix(e.Name(), id); ok {
			write(w.t, filepath.Join(w.dir, "staging", stem+extension), readText(w.t, filepath.Join(source, e.Name())))
		}
	}
}

func (w *world) imports(file string, generate bool) wmi.Instance {
	w.t.Helper()
	return w.job(w.invoke(managementService, "ImportSystemDefinition", wmi.Params{
		"SystemDefinitionFile": staging + file, "SnapshotFolder": "", "GenerateNewSystemIdentifier": generate,
	}))
}

// plan imports a file that must be good and returns the planned VM.
func (w *world) plan(file string, generate bool) wmi.Instance {
	w.t.Helper()
	job := w.imports(file, generate)
	planned := w.associated(job.Path, "Msvm_AffectedJobElement", "Msvm_PlannedComputerSystem")
	if len(planned) != 1 {
		w.t.Fatalf("the import made %d planned VMs: %v", len(planned), job.Properties["ErrorDescription"])
	}
	return planned[0]
}

func (w *world) plannedSettings(planned wmi.Instance) wmi.Instance {
	w.t.Helper()
	all := w.associated(planned.Path, "Msvm_SettingsDefineState", "Msvm_VirtualSystemSettingData")
	if len(all) != 1 || all[0].Properties["VirtualSystemType"] != typePlanned {
		w.t.Fatalf("the planned VM has the settings %v", all)
	}
	return all[0]
}

// modify changes a device of a planned VM.
func (w *world) modify(class, path string, properties map[string]any) {
	w.t.Helper()
	r := w.invoke(managementService, "ModifyResourceSettings", wmi.Params{"ResourceSettings": []wmi.Object{{Class: class, Path: path, Properties: properties}}})
	if r.ReturnValue != codeDone {
		w.t.Fatalf("modifying %s returned %d", class, r.ReturnValue)
	}
}

func (w *world) on(method string, planned wmi.Instance) wmi.Result {
	w.t.Helper()
	return w.invoke(managementService, method, wmi.Params{"PlannedSystem": planned.Path})
}

// messages are what GetErrorEx says about a job.
func (w *world) messages(job wmi.Instance) string {
	w.t.Helper()
	r, err := w.session.Invoke(w.ctx, job.Path, "GetErrorEx", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.Join(r.Out["Errors"].([]string), "\n")
}

func TestImportedVMIsPlannedThenRealized(t *testing.T) {
	eachWay(t, richVM, func(t *testing.T, h *Host, w *world) {
		w.stage(w.checkpoint("CRM", consistencyCrash), "crm")
		original := w.active("CRM")
		createDisk(t, filepath.Join(w.dir, "copy", "system.vhdx"), "64M")
		planned := w.plan("crm.vmcx", true)
		settings := w.plannedSettings(planned)
		if settings.Properties["VirtualSystemIdentifier"] == original.Properties["VirtualSystemIdentifier"] {
			t.Error("the planned VM kept its id")
		}
		r := w.invoke(managementService, "ModifySystemSettings", wmi.Params{"SystemSettings": wmi.Object{
			Class: settings.Class, Path: settings.Path, Properties: map[string]any{"ElementName": "CRM copy", "ConfigurationDataRoot": `D:\VMs\copy`},
		}})
		if r.ReturnValue != codeDone {
			t.Fatalf("ModifySystemSettings returned %d", r.ReturnValue)
		}
		disks := w.associated(settings.Path, "Msvm_VirtualSystemSettingDataComponent", "Msvm_StorageAllocationSettingData")
		if len(disks) != 1 || disks[0].Properties["HostResource"].([]string)[0] != `D:\VMs\crm\system.vhdx` {
			t.Fatalf("the planned VM has the disks %v", disks)
		}
		w.modify(disks[0].Class, disks[0].Path, map[string]any{"HostResource": []string{`D:\VMs\copy\system.vhdx`}})
		w.done(w.on("ValidatePlannedSystem", planned))
		job := w.done(w.on("RealizePlannedSystem", planned))
		if made := w.associated(job.Path, "Msvm_AffectedJobElement", "Msvm_ComputerSystem"); len(made) != 1 || made[0].Properties["EnabledState"] != int64(3) {
			t.Fatalf("realized: %v", made)
		}
		if left := w.query("SELECT * FROM Msvm_PlannedComputerSystem"); len(left) != 0 {
			t.Errorf("planned VMs are left: %v", left)
		}
		copied := w.active("CRM copy")
		for _, name := range []string{"BIOSGUID", "SecureBootEnabled", "Version", "VirtualSystemSubType"} {
			if copied.Properties[name] != original.Properties[name] {
				t.Errorf("%s is %v, not %v", name, copied.Properties[name], original.Properties[name])
			}
		}
		if guestState(t, w, copied) != guestState(t, w, original) {
			t.Error("the UEFI variables were lost")
		}
		w.startsAndServes(w.vm("CRM copy").Path, filepath.Join(w.dir, "copy", "system.vhdx.nbd"))
	})
}

func guestState(t *testing.T, w *world, settings wmi.Instance) string {
	root := settings.Properties["GuestStateDataRoot"].(string)
	file := strings.ReplaceAll(settings.Properties["GuestStateFile"].(string), `\`, "/")
	return readText(t, filepath.Join(w.dir, root[strings.LastIndexByte(root, '\\')+1:], file))
}

func TestImportIsRefused(t *testing.T) {
	dir := tempDir(t)
	richVM(t, dir)
	_, w := openHost(t, dir)
	checkpoint := w.checkpoint("CRM", consistencyCrash)
	w.stage(checkpoint, "crm")
	good := readText(t, filepath.Join(dir, "staging", "crm.vmcx"))
	write(t, filepath.Join(dir, "staging", "torn.vmcx"), good[:len(good)-1])
	write(t, filepath.Join(dir, "staging", "foreign.vmcx"), "something else")
	createDisk(t, filepath.Join(dir, "old", "system.vhdx"), "1M")
	write(t, filepath.Join(dir, "old", "vm.yaml"), "version: \"6.2\"\ndisks:\n- path: system.vhdx\n") // which Server 2022 cannot run
	w.stage(w.checkpoint("old", consistencyCrash), "old")
	for what, c := range map[string]struct {
		file string
		want string
	}{
		"a torn file":                        {"torn.vmcx", "damaged"},
		"a foreign file":                     {"foreign.vmcx", "is no configuration"},
		"no file":                            {"none.vmcx", "was not found"},
		"a version that the host cannot run": {"old.vmcx", "6.2"},
		"the id of a VM that the host has":   {"crm.vmcx", "exists already"},
	} {
		job := w.imports(c.file, false)
		if text := job.Properties["ErrorDescription"]; job.Properties["JobState"] != int64(jobException) || !strings.Contains(text.(string), c.want) {
			t.Errorf("%s: state %v, %v", what, job.Properties["JobState"], text)
		}
	}
	r := w.invoke(managementService, "ImportSystemDefinition", wmi.Params{
		"SystemDefinitionFile": `D:\VMs\crm\` + checkpoint.Properties["ConfigurationFile"].(string), "GenerateNewSystemIdentifier": true,
	})
	if r.ReturnValue != codeInUse {
		t.Errorf("a file that is in use: %d", r.ReturnValue)
	}
	if left := w.query("SELECT * FROM Msvm_PlannedComputerSystem"); len(left) != 0 {
		t.Errorf("planned VMs are left: %v", left)
	}
}

func TestPlannedVMThatDoesNotFit(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "name: CRM\nprocessors: 2\n")
	write(t, filepath.Join(dir, "host.yaml"), "processors: 1\n")
	h, w := openHost(t, dir)
	w.done(w.invoke("Msvm_VirtualSystemSnapshotService", "CreateSnapshot", wmi.Params{
		"AffectedSystem": w.vm("CRM").Path, "SnapshotType": int64(snapshotFull),
	}))
	w.stage(w.checkpoint("CRM", consistencyCrash), "crm")
	planned := w.plan("crm.vmcx", true)
	settings := w.plannedSettings(planned)
	job := w.job(w.on("ValidatePlannedSystem", planned))
	for _, want := range []string{"is missing", "belongs to the VM in folder crm", "2 processors"} {
		if text := w.messages(job); job.Properties["JobState"] != int64(jobWarned) || !strings.Contains(text, want) {
			t.Errorf("state %v, %s lacks %q", job.Properties["JobState"], text, want)
		}
	}
	if job := w.job(w.on("RealizePlannedSystem", planned)); job.Properties["JobState"] != int64(jobException) {
		t.Errorf("realizing ended in state %v", job.Properties["JobState"])
	}
	h.Close()
	_, w = openHost(t, dir)
	planned = w.one("SELECT * FROM Msvm_PlannedComputerSystem") // it survives the host
	missing := w.associated(planned.Path, "Msvm_SnapshotOfVirtualSystem", "Msvm_VirtualSystemSettingData")
	if len(missing) != 1 || missing[0].Properties["VirtualSystemType"] != typeMissing {
		t.Fatalf("the missing checkpoints are %v", missing)
	}
	w.destroy(missing[0])
	for _, disk := range w.associated(settings.Path, "Msvm_VirtualSystemSettingDataComponent", "Msvm_StorageAllocationSettingData") {
		if r := w.invoke(managementService, "RemoveResourceSettings", wmi.Params{"ResourceSettings": []string{disk.Path}}); r.ReturnValue != codeDone {
			t.Errorf("removing a disk returned %d", r.ReturnValue)
		}
	}
	job = w.job(w.on("ValidatePlannedSystem", planned))
	if text := w.messages(job); strings.Contains(text, "missing") || !strings.Contains(text, "2 processors") {
		t.Errorf("after the fix-ups: %s", text)
	}
	w.done(w.invoke(managementService, "DestroySystem", wmi.Params{"AffectedSystem": planned.Path}))
	if entries, err := os.ReadDir(filepath.Join(dir, privateFolder, plannedFolder)); err != nil || len(entries) != 0 {
		t.Errorf("the destroyed planned VM left %v, %v", entries, err)
	}
}

func TestConfigurationBefore6IsXML(t *testing.T) {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "host.yaml"), "osVersion: \"2019\"\n")
	addVM(t, dir, "old", "version: \"5.0\"\ngeneration: 1\n")
	_, w := openHost(t, dir)
	checkpoint := w.checkpoint("old", consistencyCrash)
	w.stage(checkpoint, "old")
	if _, err := os.Stat(filepath.Join(dir, "staging", "old.xml")); err != nil || !strings.HasSuffix(checkpoint.Properties["ConfigurationFile"].(string), ".xml") {
		t.Errorf("%v, %v", checkpoint.Properties["ConfigurationFile"], err)
	}
}

func TestHostTellsTheVersionsThatItRuns(t *testing.T) {
	dir := tempDir(t)
	write(t, filepath.Join(dir, "host.yaml"), "osVersion: \"2019\"\n")
	_, w := openHost(t, dir)
	capabilities := w.one("SELECT * FROM Msvm_VirtualSystemManagementCapabilities")
	var versions []string
	for _, s := range w.associated(capabilities.Path, "Msvm_SettingsDefineCapabilities", "Msvm_VirtualSystemSettingData") {
		versions = append(versions, s.Properties["Version"].(string))
	}
	if strings.Join(versions, " ") != strings.Join(configurationVersions["2019"], " ") {
		t.Errorf("the host runs %v", versions)
	}
}

func TestSnapshotsOfAPlannedVMAreImported(t *testing.T) {
	eachWay(t, func(t *testing.T, dir string) { addVM(t, dir, "crm", "name: CRM\n") }, func(t *testing.T, _ *Host, w *world) {
		user := func() wmi.Instance {
			job := w.done(w.invoke(snapshotService, "CreateSnapshot", wmi.Params{"AffectedSystem": w.vm("CRM").Path, "SnapshotType": int64(snapshotFull)}))
			return w.associated(job.Path, "Msvm_AffectedJobElement", "Msvm_VirtualSystemSettingData")[0]
		}
		first := user()
		w.stage(user(), "second")
		w.stage(w.checkpoint("CRM", consistencyCrash), "crm")
		planned := w.plan("crm.vmcx", true)
		imports := func(system, folder string) wmi.Result {
			return w.invoke(managementService, "ImportSnapshotDefinitions", wmi.Params{"PlannedSystem": system, "SnapshotFolder": folder})
		}
		kinds := func() (out []string) {
			for _, s := range w.associated(planned.Path, "Msvm_SnapshotOfVirtualSystem", "Msvm_VirtualSystemSettingData") {
				out = append(out, s.Properties["VirtualSystemType"].(string))
			}
			return out
		}
		for system, folder := range map[string]string{w.vm("CRM").Path: staging, planned.Path: ""} {
			if r := imports(system, folder); r.ReturnValue != codeInvalidParameter {
				t.Errorf("%s, %q: %d", system, folder, r.ReturnValue)
			}
		}
		root := first.Properties["ConfigurationDataRoot"].(string)
		for folder, want := range map[string]int64{`D:\VMs\nowhere`: codeFileNotFound, root + `\` + snapshotFolder: codeInUse} {
			if job := w.job(imports(planned.Path, folder)); job.Properties["ErrorCode"] != want {
				t.Errorf("%s: %v", folder, job.Properties)
			}
		}
		job := w.done(imports(planned.Path, staging)) // which has the file of a backup's checkpoint, too
		made := w.associated(job.Path, "Msvm_AffectedJobElement", "Msvm_VirtualSystemSettingData")
		if got := strings.Join(kinds(), " "); got != typeMissing+" "+typePlannedSnapshot || len(made) != 1 {
			t.Fatalf("the planned VM has %s, of which the job made %d", got, len(made))
		}
		if job := w.job(w.on("RealizePlannedSystem", planned)); job.Properties["JobState"] != int64(jobException) {
			t.Error("it was realized without one of its checkpoints, and with the disks of another VM")
		}
		w.done(w.invoke(managementService, "DestroySystem", wmi.Params{"AffectedSystem": planned.Path}))
	})
}

// TestTreeOfCheckpoints goes back and forth in a tree, and removes it from its ends.
func TestTreeOfCheckpoints(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "")
	_, w := openHost(t, dir)
	user := func() wmi.Instance {
		job := w.done(w.invoke(snapshotService, "CreateSnapshot", wmi.Params{"AffectedSystem": w.vm("crm").Path, "SnapshotType": int64(snapshotFull)}))
		return w.associated(job.Path, "Msvm_AffectedJobElement", "Msvm_VirtualSystemSettingData")[0]
	}
	parent := func(s wmi.Instance) any {
		now, err := w.session.Get(w.ctx, s.Path)
		if err != nil {
			t.Fatal(err)
		}
		return now.Properties["Parent"]
	}
	apply := func(s wmi.Instance) {
		w.done(w.invoke(snapshotService, "ApplySnapshot", wmi.Params{"Snapshot": s.Path}))
	}
	a, b := user(), user()
	apply(a)
	c := user()
	if parent(b) != a.Path || parent(c) != a.Path || parent(w.active("crm")) != c.Path {
		t.Fatal("b and c follow a, and the VM goes on from c")
	}
	if r := w.invoke(snapshotService, "DestroySnapshot", wmi.Params{"AffectedSnapshot": a.Path}); r.ReturnValue != codeInvalidState {
		t.Errorf("a file that two build upon was merged: %d", r.ReturnValue)
	}
	beside := w.diskFiles(b)[0]
	w.destroy(b) // the end of the other branch
	if _, err := w.files.Stat(w.ctx, beside); err == nil {
		t.Errorf("%s is left", beside)
	}
	w.done(w.invoke(snapshotService, "DestroySnapshotTree", wmi.Params{"SnapshotSettingData": a.Path}))
	w.merged("crm")
	if files := w.diskFiles(w.active("crm")); files[0] != `D:\VMs\crm\system.vhdx` || parent(w.active("crm")) != nil {
		t.Errorf("all is merged into %v", files)
	}
}
