package emulator

import (
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

func TestMergeEndsWhileTheGuestWrites(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "")
	write(t, filepath.Join(dir, "host.yaml"), "mergeBytesPerSecond: 20000000\n")
	_, w := openHost(t, dir)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	model := &writerModel{content: make([]byte, killDiskSize), unsure: map[int64]bool{}, rng: rand.New(rand.NewPCG(seed, 1))}
	socket := filepath.Join(dir, "crm", "system.vhdx.nbd")
	stop := make(chan struct{})
	written := model.start(t, socket, stop)
	for range 3 {
		snapshot := w.checkpoint("crm", consistencyCrash)
		w.eventually("the guest to write into the .avhdx", func() bool { return w.fileBytes(w.diskFiles(w.active("crm"))[0]) > 12<<20 })
		w.convert(snapshot)
		if status := w.vm("crm").Properties["OperationalStatus"].([]int64); len(status) != 2 || status[1] != int64(opMerging) {
			t.Errorf("the status is %v while the disks are merged", status)
		}
		if active := w.diskFiles(w.active("crm"))[0]; !strings.HasSuffix(active, ".avhdx") {
			t.Errorf("the guest writes %s before the merge is over (NW-18)", active)
		}
		w.merged("crm")
	}
	close(stop)
	<-written
	model.check(t, socket)
}

func TestMergesGoThroughAChainOfUserCheckpoints(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "")
	shadow := filepath.Join(tempDir(t), "shadow.raw")
	newShadow(t, shadow, 64<<20)
	h, w := openHost(t, dir)
	user := func() wmi.Instance {
		job := w.done(w.invoke(snapshotService, "CreateSnapshot", wmi.Params{"AffectedSystem": w.vm("crm").Path, "SnapshotType": int64(snapshotFull)}))
		return w.associated(job.Path, "Msvm_AffectedJobElement", "Msvm_VirtualSystemSettingData")[0]
	}
	w.guestWrites("crm", "system.vhdx", shadow, 1, 0, 8<<20)
	first := user()
	w.guestWrites("crm", "system.vhdx", shadow, 2, 4<<20, 8<<20)
	second := user()
	w.guestWrites("crm", "system.vhdx", shadow, 3, 6<<20, 8<<20)
	backup := w.checkpoint("crm", consistencyCrash)
	w.guestWrites("crm", "system.vhdx", shadow, 4, 7<<20, 8<<20)

	if second.Properties["Parent"] == nil || w.one("SELECT * FROM Msvm_VirtualSystemSettingData WHERE InstanceID = '%s'",
		strings.ReplaceAll(second.Properties["InstanceID"].(string), `\`, `\\`)).Properties["Parent"] != first.Path {
		t.Error("the second checkpoint does not name the first as its parent (EZ-07)")
	}
	h.Faults().HoldMerges()
	w.destroy(first) // its .avhdx is frozen by the second, so it lies in the middle of the chain
	w.convert(backup)
	h.Faults().ReleaseMerges()
	w.eventually("the merges to end", func() bool { return len(w.vm("crm").Properties["OperationalStatus"].([]int64)) == 1 })
	if active := w.diskFiles(w.active("crm"))[0]; !strings.HasSuffix(active, ".avhdx") {
		t.Errorf("the user's checkpoint is gone: the guest writes %s (NW-19)", active)
	}
	if frozen := w.diskFiles(second); frozen[0] != `D:\VMs\crm\system.vhdx` {
		t.Errorf("the user's checkpoint shows %v", frozen)
	}
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", shadow, w.socket("crm", "system.vhdx"))
	w.destroy(second)
	w.merged("crm")
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", shadow, w.socket("crm", "system.vhdx"))
}

// fileBytes is how long a disk file is.
func (w *world) fileBytes(path string) int64 {
	w.t.Helper()
	info, err := w.files.Stat(w.ctx, path)
	if err != nil {
		w.t.Fatal(err)
	}
	return info.Size()
}

// TestDifferencingDiskOfAPersonIsADisk attaches an .avhdx that somebody made by hand.
func TestDifferencingDiskOfAPersonIsADisk(t *testing.T) {
	dir := tempDir(t)
	createDisk(t, filepath.Join(dir, "crm", "base.vhdx"), "64M")
	tool(t, "qemu-io", "-f", "vhdx", "-c", "write -P 1 0 4M", filepath.Join(dir, "crm", "base.vhdx"))
	makeChild(t, dir, `D:\VMs\crm\base.vhdx`, `D:\VMs\crm\mine.avhdx`)
	write(t, filepath.Join(dir, "crm", "vm.yaml"), "state: running\ndisks:\n- path: mine.avhdx\n")
	shadow := filepath.Join(tempDir(t), "shadow.raw")
	newShadow(t, shadow, 64<<20)
	_, w := openHost(t, dir)
	w.guestWrites("crm", "mine.avhdx", shadow, 1, 0, 4<<20)
	w.guestWrites("crm", "mine.avhdx", shadow, 2, 1<<20, 1<<20)
	snapshot := w.checkpoint("crm", consistencyCrash)
	if info, err := w.disks.Info(w.ctx, w.diskFiles(snapshot)[0]); err != nil || info.ParentPath != `D:\VMs\crm\base.vhdx` {
		t.Errorf("info: %+v, %v", info, err)
	}
	w.guestWrites("crm", "mine.avhdx", shadow, 3, 2<<20, 1<<20)
	w.convert(snapshot)
	w.eventually("the merge to end", func() bool { return w.diskFiles(w.active("crm"))[0] == `D:\VMs\crm\mine.avhdx` })
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", shadow, w.socket("crm", "mine.avhdx"))
	tool(t, "qemu-io", "-f", "vhdx", "-r", "-c", "read -P 1 0 4M", filepath.Join(dir, "crm", "base.vhdx")) // the person's base is as it was
}

// makeChild makes a differencing disk.
func makeChild(t *testing.T, dir, parent, child string) {
	t.Helper()
	files, err := hostfs.NewLocal((&hostConfig{Volumes: map[string]volumeConfig{}}).mapping(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	below, err := openMember(t.Context(), files, parent)
	if err != nil {
		t.Fatal(err)
	}
	defer below.close()
	f, err := files.Create(t.Context(), child)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ref := parentRef(child, below)
	if _, err := vhdx.Create(f, vhdx.Options{VirtualSize: below.vhdx.VirtualSize(), VirtualDiskID: below.vhdx.VirtualDiskID(), Parent: &ref}); err != nil {
		t.Fatal(err)
	}
}
