package emulator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/virtdisk"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

const (
	killDiskSize = 24 << 20
	killBlock    = 4096
	killRounds   = 9
)

// writerModel is a guest that writes while the emulator is killed, and what it may expect to read afterwards.
type writerModel struct {
	mu      sync.Mutex
	content []byte         // every acknowledged write
	unsure  map[int64]bool // blocks with a write that was never answered: old or new content
	rng     *rand.Rand
}

// start connects to a disk and writes. The result is closed when that has ended.
func (m *writerModel) start(t *testing.T, socket string, stop <-chan struct{}) (written <-chan struct{}) {
	t.Helper()
	g, err := dialGuest(socket)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		m.run(g, stop)
	}()
	return ended
}

// run writes as a guest until the connection breaks or stop says so.
func (m *writerModel) run(g *guest, stop <-chan struct{}) {
	defer g.close()
	for {
		select {
		case <-stop:
			return
		default:
		}
		m.mu.Lock()
		blocks := 1 + m.rng.Int64N(40)
		offset := m.rng.Int64N(killDiskSize/killBlock-blocks) * killBlock
		p := bytes.Repeat([]byte{byte(1 + m.rng.IntN(255))}, int(blocks*killBlock))
		zero := m.rng.IntN(5) == 0
		for b := range blocks {
			m.unsure[offset/killBlock+b] = true
		}
		m.mu.Unlock()
		var err error
		if zero {
			clear(p)
			err = g.zero(offset, int64(len(p)))
		} else {
			err = g.write(p, offset)
		}
		if err != nil {
			return // killed
		}
		m.mu.Lock()
		copy(m.content[offset:], p)
		for b := range blocks {
			delete(m.unsure, offset/killBlock+b)
		}
		m.mu.Unlock()
	}
}

// check compares what the guest reads with the model, and takes up what the unanswered writes left.
func (m *writerModel) check(t *testing.T, socket string) {
	t.Helper()
	g, err := dialGuest(socket)
	if err != nil {
		t.Fatal(err)
	}
	defer g.close()
	got := make([]byte, killDiskSize)
	if err := g.read(got, 0); err != nil {
		t.Fatal(err)
	}
	for b := int64(0); b < killDiskSize/killBlock; b++ {
		have, want := got[b*killBlock:(b+1)*killBlock], m.content[b*killBlock:(b+1)*killBlock]
		if !m.unsure[b] && !bytes.Equal(have, want) {
			t.Fatalf("block %d was acknowledged and lost", b)
		}
	}
	copy(m.content, got)
	clear(m.unsure)
}

// TestKillAtAnyMomentLosesNothing kills the emulator at random points of backups while a guest writes. After every start the guest
// reads what was acknowledged, and no change is missing from the changes since the last reference point.
func TestKillAtAnyMomentLosesNothing(t *testing.T) {
	dir := tempDir(t)
	createDisk(t, filepath.Join(dir, "crm", "system.vhdx"), fmt.Sprint(killDiskSize))
	write(t, filepath.Join(dir, "crm", "vm.yaml"), "state: running\ndisks:\n- path: system.vhdx\n")
	write(t, filepath.Join(dir, "host.yaml"), "jobMillis: 2\nmergeBytesPerSecond: 50000000\n")
	socket := filepath.Join(dir, "crm", "system.vhdx.nbd")
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(uint64(seed), 1))
	model := &writerModel{content: make([]byte, killDiskSize), unsure: map[int64]bool{}, rng: rand.New(rand.NewPCG(uint64(seed), 2))}
	b := &backups{t: t}
	for round := range killRounds {
		p := startProcess(t, dir)
		model.check(t, socket)
		_, w := connect(t, dir)
		written := model.start(t, socket, nil)
		quiet := round%3 == 2 // only the guest is at work when the host dies
		if !quiet {
			b.increment(w)
		}
		killed := make(chan struct{})
		go func() {
			defer close(killed)
			wait(context.Background(), time.Duration(rng.IntN(60))*time.Millisecond)
			p.kill()
		}()
		if !quiet {
			meddle(w)
		}
		<-killed
		<-written
	}
	if b.lost > 0 {
		t.Errorf("%d of %d tracking ids were lost, though nobody else wrote the disk", b.lost, killRounds)
	}
	p := startProcess(t, dir)
	model.check(t, socket)
	_, w := connect(t, dir)
	for _, s := range w.query("SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemType = '%s'", typeRecoverySnapshot) {
		w.destroy(s)
	}
	w.merged("crm")
	model.check(t, socket)
	p.stop()
	if left, _ := filepath.Glob(filepath.Join(dir, "crm", "*.avhdx")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	tool(t, "qemu-img", "check", "-q", filepath.Join(dir, "crm", "system.vhdx"))
}

// backups keeps a copy of the disk up to date by tracking ids alone, as the agent does.
type backups struct {
	t     *testing.T
	image []byte
	lost  int
}

// increment cleans up what the last round left, copies what changed and compares the copy with the whole frozen disk.
func (b *backups) increment(w *world) {
	b.t.Helper()
	for _, s := range w.query("SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemType = '%s'", typeRecoverySnapshot) {
		w.destroy(s)
	}
	points := w.query("SELECT * FROM Msvm_VirtualSystemReferencePoint")
	snapshot := w.checkpoint("crm", consistencyCrash)
	frozen := readFrozen(w, w.diskFiles(snapshot)[0])
	if len(points) > 0 {
		b.copyChanges(w, snapshot, points[len(points)-1], frozen)
	} else {
		b.image = frozen
	}
	if !bytes.Equal(b.image, frozen) {
		b.t.Fatal("a change is missing from the changes")
	}
	for _, p := range points {
		w.done(w.invoke(pointService, "DestroyReferencePoint", wmi.Params{"AffectedReferencePoint": p.Path}))
	}
	w.convert(snapshot)
}

func (b *backups) copyChanges(w *world, snapshot, point wmi.Instance, frozen []byte) {
	b.t.Helper()
	id := point.Properties["ResilientChangeTrackingIdentifiers"].([]string)[0]
	changed, processed, err := w.disks.Changes(w.ctx, w.diskFiles(snapshot)[0], id, extent.Extent{Length: killDiskSize})
	if errors.Is(err, virtdisk.ErrTrackingLost) {
		b.t.Log(err)
		b.lost++
		b.image = frozen
		return
	}
	if err != nil || processed != killDiskSize {
		b.t.Fatalf("changes: %d bytes processed, %v", processed, err)
	}
	for _, e := range changed {
		copy(b.image[e.Offset:e.End()], frozen[e.Offset:e.End()])
	}
}

// readFrozen reads all of a checkpoint's disk while the guest writes.
func readFrozen(w *world, path string) []byte {
	w.t.Helper()
	files, err := hostfs.NewLocal((&hostConfig{Volumes: map[string]volumeConfig{}}).mapping(w.dir))
	if err != nil {
		w.t.Fatal(err)
	}
	defer files.Close()
	c, err := openChain(w.ctx, files, path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer c.close()
	d, err := c.disk()
	if err != nil {
		w.t.Fatal(err)
	}
	content := make([]byte, d.Size())
	if _, err := d.ReadAt(content, 0); err != nil {
		w.t.Fatal(err)
	}
	return content
}

// meddle starts operations that the kill interrupts somewhere.
func meddle(w *world) {
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
	defer cancel()
	services, err := w.session.Query(ctx, "SELECT * FROM "+snapshotService)
	for err == nil {
		var vms, snapshots []wmi.Instance
		vms, err = w.session.Query(ctx, "SELECT * FROM Msvm_ComputerSystem WHERE ElementName = 'crm'")
		if err != nil || len(vms) == 0 {
			return
		}
		_, err = w.session.Invoke(ctx, services[0].Path, "CreateSnapshot", wmi.Params{"AffectedSystem": vms[0].Path, "SnapshotType": int64(snapshotRecovery)})
		if err != nil {
			return
		}
		snapshots, err = w.session.Query(ctx, "SELECT * FROM Msvm_VirtualSystemSettingData WHERE VirtualSystemType = '"+typeRecoverySnapshot+"'")
		if err == nil && len(snapshots) > 0 {
			_, err = w.session.Invoke(ctx, services[0].Path, "DestroySnapshot", wmi.Params{"AffectedSnapshot": snapshots[0].Path})
		}
	}
}
