package emulator

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/extent"
)

func TestCheckpointConvertAndMergeUnderARealGuest(t *testing.T) {
	dir := tempDir(t)
	addVM(t, dir, "crm", "")
	shadow := filepath.Join(tempDir(t), "shadow.raw")
	newShadow(t, shadow, 64<<20)
	_, w := openHost(t, dir)

	w.guestWrites("crm", "system.vhdx", shadow, 1, 0, 1<<20)
	first := w.checkpoint("crm", consistencyCrash)
	frozen := w.diskFiles(first)
	if len(frozen) != 1 || frozen[0] != `D:\VMs\crm\system.vhdx` {
		t.Fatalf("the checkpoint froze %v", frozen)
	}
	if active := w.diskFiles(w.active("crm")); !strings.HasSuffix(active[0], ".avhdx") {
		t.Fatalf("the guest writes %v (NW-15)", active)
	}
	w.guestWrites("crm", "system.vhdx", shadow, 2, 1<<20, 3<<20)
	point := w.convert(first)
	w.guestWrites("crm", "system.vhdx", shadow, 3, 10<<20+512, 4096)
	w.merged("crm")

	second := w.checkpoint("crm", consistencyCrash)
	id := point.Properties["ResilientChangeTrackingIdentifiers"].([]string)[0]
	changed, processed, err := w.disks.Changes(w.ctx, w.diskFiles(second)[0], id, extent.Extent{Length: 64 << 20})
	if err != nil || processed != 64<<20 {
		t.Fatalf("changes: %d bytes processed, %v", processed, err)
	}
	want := extent.List{{Offset: 1 << 20, Length: 3 << 20}, {Offset: 10 << 20, Length: 64 << 10}}
	if got := extent.Normalize(changed); len(got.Subtract(want)) != 0 || len(want.Subtract(got)) != 0 {
		t.Errorf("changes are %v, not %v", got, want)
	}
	w.destroy(second)
	w.merged("crm")
	tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", shadow, w.socket("crm", "system.vhdx"))
	left, err := filepath.Glob(filepath.Join(dir, "crm", "*.avhdx"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "crm", "system.vhdx.nbd")); err != nil {
		t.Error(err)
	}
}
