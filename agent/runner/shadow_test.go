package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/vss"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

func byVSS(b *v1alpha1.BackupTask) { b.Method = v1alpha1.MethodChoiceVSS }

func crashConsistent(b *v1alpha1.BackupTask) { b.Consistency.Level = v1alpha1.LevelCrash }

func atOnce(b *v1alpha1.BackupTask) { b.Consistency.QuiesceAttempts = 1 }

// set rewrites the virtual machine's definition, with its one disk and those given.
func (r *rig) set(yaml string, moreDisks ...string) {
	r.t.Helper()
	yaml += "disks:\n"
	for _, disk := range append([]string{"system.vhdx"}, moreDisks...) {
		yaml += "  - path: '" + disk + "'\n"
	}
	if err := os.WriteFile(filepath.Join(r.dir, "crm", "vm.yaml"), []byte(yaml), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// open opens an image as a reader of the repository does.
func (r *rig) open(id string) *image.Image {
	r.t.Helper()
	repositories := &Repositories{Client: r.client, Namespace: "keeper"}
	repo, err := repositories.Open(r.t.Context(), &v1alpha1.TaskRepository{
		Name: repository, SecretName: "repository-main",
		Location: v1alpha1.RepositoryLocation{Filesystem: &v1alpha1.FilesystemLocation{Path: filepath.Join(r.dir, "..", "repository")}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = repo.Close(context.WithoutCancel(r.t.Context())) })
	img, err := repo.Image(r.t.Context(), id)
	if err != nil {
		r.t.Fatal(err)
	}
	return img
}

// file reads a file of an image.
func (r *rig) file(img *image.Image, name string) []byte {
	r.t.Helper()
	content, err := img.File(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	defer content.Close()
	all, err := io.ReadAll(content)
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

// clean checks that nothing of a backup is left on the host (NV-12, I4).
func (r *rig) clean(task *v1alpha1.AgentTask) {
	r.t.Helper()
	if !apimeta.IsStatusConditionTrue(task.Status.Conditions, v1alpha1.ConditionReleased) {
		r.t.Errorf("not released: %+v", task.Status.Conditions)
	}
	if n := r.host.ShadowCopies(); n != 0 {
		r.t.Errorf("%d shadow copies are left", n)
	}
	if got := r.machine("crm").State; got != hyperv.Running {
		r.t.Errorf("the virtual machine is %s", got)
	}
}

// TestBackupsThroughVSS goes through what becomes of a running virtual machine with the method VSS.
func TestBackupsThroughVSS(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	r.set("state: running\n")
	first := r.backup("first", byVSS)
	wantSuccess(t, first)
	got := first.Status.Image
	if got.Method != v1alpha1.MethodVSS || got.MethodReason != "Requested" || got.Consistency != v1alpha1.ConsistencyApplication ||
		got.Memory != v1alpha1.MemoryNotCaptured || got.InterruptionMilliseconds != nil || got.Disks[0].Reason != "MethodVSS" {
		t.Errorf("the image is %+v", got)
	}
	r.clean(first)
	var steps []string
	for _, s := range first.Status.Steps {
		steps = append(steps, s.Name)
	}
	if order := strings.Join(steps, " "); order != "Claim Prepare Checkpoint Decide Transfer Publish Convert Release" {
		t.Errorf("the steps are %s (NV-13)", order)
	}
	img := r.open("first")
	if path := img.Manifest().Disks[0].SourcePath; path != `D:\VMs\crm\system.vhdx` {
		t.Errorf("the image says that the disk lay at %s", path)
	}
	second := r.backup("second", func(b *v1alpha1.BackupTask) { b.LastMethod = v1alpha1.MethodVSS })
	wantSuccess(t, second)
	if got := second.Status.Image; got.MethodReason != "StaysWithVSS" || got.Type != v1alpha1.ImageFull || got.StoredBytes*10 > first.Status.Image.StoredBytes {
		t.Errorf("the unchanged disk was stored again: %+v", got)
	}
	restored := r.do(v1alpha1.AgentNamespace(hostName), "restore", v1alpha1.AgentTaskSpec{
		Kind:    v1alpha1.TaskRestore,
		Restore: &v1alpha1.RestoreTask{ImageID: "second", Overwrite: v1alpha1.OverwriteNever, Name: "crm-restored", RestoreID: "r1"},
	})
	wantSuccess(t, restored)
	r.set("state: \"off\"\n")
	if vm := r.machine("crm"); vm.State != hyperv.Off || !bytes.Equal(r.content("crm-restored", "system.vhdx"), r.content("crm", "system.vhdx")) {
		t.Error("the restored disk differs")
	}
}

// TestVSSGoesWrong has the writer, the service and the host fail: each time with the reason, and with nothing left behind.
func TestVSSGoesWrong(t *testing.T) {
	r := newRig(t)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	r.set("state: running\nintegrationServices: missing\n")
	crash := r.backup("crash", byVSS, crashConsistent)
	wantSuccess(t, crash)
	if got := crash.Status.Image; got.Consistency != v1alpha1.ConsistencyCrash || got.InterruptionMilliseconds != nil {
		t.Errorf("EZ-11: %+v", got)
	}
	r.clean(crash)
	refused := r.backup("refused", byVSS)
	if f := refused.Status.Failure; f == nil || f.Reason != "QuiesceFailed" {
		t.Errorf("DR-13: %+v", f)
	}
	r.clean(refused)

	r.set("state: running\n")
	for method, c := range map[string]struct {
		code vss.Code
		want string
	}{
		"DoSnapshotSet":       {vss.HoldWritesTimeout, v1alpha1.ReasonVirtualMachineBusy},
		"HyperVWriter.Freeze": {vss.WriterTimeout, "QuiesceFailed"},
		"AddToSnapshotSet":    {vss.InsufficientStorage, "HostVolumeFull"},
	} {
		r.host.Faults().FailNext(emulator.Fault{Method: method, ReturnValue: uint32(c.code)})
		task := r.backup("fails-at-"+strings.ToLower(strings.ReplaceAll(method, ".", "-")), byVSS, atOnce)
		if f := task.Status.Failure; f == nil || f.Reason != c.want {
			t.Errorf("%s: %+v, not %s", method, f, c.want)
		}
		r.clean(task)
	}
	r.host.Faults().FailNext(emulator.Fault{Method: "HyperVWriter.Freeze", ReturnValue: uint32(vss.WriterTimeout)})
	fellBack := r.backup("fell-back", byVSS, atOnce, func(b *v1alpha1.BackupTask) { b.Consistency.Level = v1alpha1.LevelApplicationThenCrash })
	wantSuccess(t, fellBack)
	if got := fellBack.Status.Image.Consistency; got != v1alpha1.ConsistencyCrash {
		t.Errorf("the image is %s consistent", got)
	}
	r.clean(fellBack)

	unknown := r.backup("unknown-provider", byVSS, func(b *v1alpha1.BackupTask) { b.VSSProviderID = "99999999-9999-4999-8999-999999999999" })
	if f := unknown.Status.Failure; f == nil || f.Reason != v1alpha1.ReasonVSSProviderNotFound || f.Action != v1alpha1.FailureStall || !strings.Contains(f.Message, "vssProvider") {
		t.Errorf("DR-11: %+v", f)
	}
	r.clean(unknown)
	r.set("state: running\nhiddenFromWriter: true\n")
	unlisted := r.backup("unlisted", byVSS)
	wantSuccess(t, unlisted)
	if got := unlisted.Status.Image; got.Method != v1alpha1.MethodWMI || got.MethodReason != "MethodIneligible" || !strings.Contains(got.MethodMessage, "writer") {
		t.Errorf("the method is %s because of %s: %s", got.Method, got.MethodReason, got.MethodMessage)
	}
	if got := unlisted.Status.Image; got.Memory != v1alpha1.MemoryNotCaptured || !strings.Contains(got.MemoryMessage, "recovery checkpoint") {
		t.Errorf("EZ-06: the memory is %s: %s", got.Memory, got.MemoryMessage)
	}
	r.host.Faults().DisableService("VSS")
	disabled := r.backup("disabled", byVSS)
	if f := disabled.Status.Failure; f == nil || f.Reason != v1alpha1.ReasonVSSServiceUnavailable {
		t.Errorf("DR-05: %+v", f)
	}
	r.clean(disabled)
}

// userCheckpoint makes one as a person does.
func (r *rig) userCheckpoint() {
	r.t.Helper()
	s := r.host.Session(wmi.NamespaceVirtualization)
	service, err := s.Query(r.t.Context(), "SELECT * FROM Msvm_VirtualSystemSnapshotService")
	if err != nil {
		r.t.Fatal(err)
	}
	system, err := s.Query(r.t.Context(), "SELECT * FROM Msvm_ComputerSystem WHERE ElementName='crm'")
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := wmi.Call(r.t.Context(), s, clock.RealClock{}, service[0].Path, "CreateSnapshot", wmi.Params{
		"AffectedSystem": system[0].Path, "SnapshotType": int64(2),
	}); err != nil {
		r.t.Fatal(err)
	}
}

// TestSavedMachineOfADeadTaskIsResumed has an agent that was killed after the writer had saved a virtual machine, and whose task is gone.
func TestSavedMachineOfADeadTaskIsResumed(t *testing.T) {
	const tag = "aaaaaaaa-0000-4000-8000-000000000001"
	r := newRigOn(t, "", func(r *rig, journal *Journal) {
		id := r.machine("crm").ID
		r.set("state: saved\n")
		err := journal.Put(Entry{Tag: tag, VirtualMachineID: id, Shadow: &hyperv.ShadowIntent{SetID: tag, State: hyperv.Running}})
		if err != nil {
			r.t.Fatal(err)
		}
	})
	limit := time.Now().Add(time.Minute)
	for r.machine("crm").State != hyperv.Running {
		if time.Now().After(limit) {
			t.Fatal("the virtual machine stays saved (NV-07)")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestSavedStateAndCheckpointsAreInTheImage has a host before Windows Server 2012 R2, which saves what cannot quiesce, and a machine with a checkpoint.
func TestSavedStateAndCheckpointsAreInTheImage(t *testing.T) {
	r := newRigOn(t, "osVersion: \"2012\"\njobMillis: 500\n", nil)
	wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
	r.set("state: running\nintegrationServices: missing\n")
	saved := r.backup("saved", crashConsistent)
	wantSuccess(t, saved)
	got := saved.Status.Image
	if got.Method != v1alpha1.MethodVSS || got.MethodReason != "MethodIneligible" || got.Memory != v1alpha1.MemoryCaptured ||
		got.InterruptionMilliseconds == nil || *got.InterruptionMilliseconds <= 0 {
		t.Errorf("NW-02, NV-04, EZ-06, EZ-13: %+v", got)
	}
	r.clean(saved)
	manifest := r.open("saved").Manifest()
	if state := manifest.Annotations[annotationRestoredState]; state != string(hyperv.Saved) {
		t.Errorf("NV-16: restored it is %s", state)
	}

	t.Run("and comes back saved, or off, or goes on (NV-16)", func(t *testing.T) {
		for name, c := range map[string]struct {
			change func(*v1alpha1.RestoreTask)
			want   hyperv.State
		}{
			"as-recorded": {nil, hyperv.Saved},
			"dropped":     {func(s *v1alpha1.RestoreTask) { s.State = v1alpha1.RestoredOff }, hyperv.Off},
			"resumed":     {func(s *v1alpha1.RestoreTask) { s.PowerOn = true }, hyperv.Running},
		} {
			task := r.restore(name, "saved", c.change)
			wantSuccess(t, task)
			if vm := r.machine(name); vm.State != c.want || len(task.Status.Warnings) > 0 {
				t.Errorf("%s: it is %s, not %s; warnings %+v", name, vm.State, c.want, task.Status.Warnings)
			}
		}
	})
	t.Run("also of a machine that was paused (NV-16)", func(t *testing.T) {
		r.set("state: paused\n")
		wantSuccess(t, r.backup("paused", crashConsistent))
		wantSuccess(t, r.restore("from-paused", "paused", nil))
		if vm := r.machine("from-paused"); vm.State != hyperv.Saved {
			t.Errorf("it is %s", vm.State)
		}
		r.set("state: running\nintegrationServices: missing\n")
	})

	r.userCheckpoint()
	tree := r.backup("tree", crashConsistent)
	wantSuccess(t, tree)
	var held checkpointTree
	img := r.open("tree")
	if err := json.Unmarshal(r.file(img, treeFile), &held); err != nil {
		t.Fatal(err)
	}
	endings := map[string]int{}
	for _, f := range held.Files {
		name := strings.TrimSuffix(f.Name, treeSuffix)
		endings[strings.ToLower(filepath.Ext(name))]++
		if n := len(r.file(img, f.Name)); int64(n) != f.Size || !strings.HasPrefix(f.Path, `D:\VMs\crm\`) {
			t.Errorf("%s has %d bytes, %+v", f.Name, n, f)
		}
	}
	if len(held.Checkpoints) != 1 || held.Checkpoints[0].Name == "" || endings[".vhdx"] != 1 || endings[".avhdx"] != 1 || endings[".vmcx"]+endings[".xml"] != 1 {
		t.Errorf("EZ-07: %+v", held)
	}
}
