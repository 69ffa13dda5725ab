package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
	"github.com/hyperkeep/hyperkeep/test/filesystem"
	"github.com/hyperkeep/hyperkeep/test/nbd"
	"github.com/hyperkeep/hyperkeep/test/qemu"
	"github.com/hyperkeep/hyperkeep/test/tool"
)

// record is what the journal's writer writes into one slot: a sequence number, data, and the hash of both.
const record = 4096

func newRecord(sequence uint64) []byte {
	p := make([]byte, record)
	binary.BigEndian.PutUint64(p, sequence)
	for i := 8; i < record-sha256.Size; i++ {
		p[i] = byte(sequence * uint64(i))
	}
	sum := sha256.Sum256(p[:record-sha256.Size])
	copy(p[record-sha256.Size:], sum[:])
	return p
}

// sequenceOf returns the number in a slot, 0 for an empty one, and an error for a torn one.
func sequenceOf(p []byte) (uint64, error) {
	if string(p) == string(make([]byte, record)) {
		return 0, nil
	}
	if sum := sha256.Sum256(p[:record-sha256.Size]); string(sum[:]) != string(p[record-sha256.Size:]) {
		return 0, fmt.Errorf("a torn record")
	}
	return binary.BigEndian.Uint64(p), nil
}

// slotOf scatters the records over the disk.
func slotOf(sequence uint64, slots int64) int64 {
	return int64(sequence*2654435761%uint64(slots)) * record
}

// TestCrashConsistentImageIsAPrefixOfTheGuestsWrites: a guest writes numbered records, each flushed before the next, while backups run. What is restored
// must be the state after some number of writes, not less than were flushed before the backup was asked for: a later write without an earlier one is
// what no crash can do. NW-15.
func TestCrashConsistentImageIsAPrefixOfTheGuestsWrites(t *testing.T) {
	x := newTenant(t)
	g := NewWithT(t)
	const size = 64 * mib
	m := x.AddMachine("vm", nil, x.Raw("disk", size, nil))
	x.UseRepository()
	x.Start()
	m.Detach() // the writer below is the guest
	disk, err := nbd.Dial(m.Path("disk0.vhdx.nbd"))
	g.Expect(err).NotTo(HaveOccurred())
	defer disk.Close()

	var flushed atomic.Uint64
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		for sequence := uint64(1); ctx.Err() == nil; sequence++ {
			if err := disk.WriteDurably(newRecord(sequence), slotOf(sequence, size/record)); err != nil {
				ended <- err
				return
			}
			flushed.Store(sequence)
		}
		ended <- nil
	}()
	for i, name := range []string{"one", "two", "three"} {
		least := flushed.Load()
		job := x.Backup(m, name, func(spec *v1alpha1.BackupJobSpec) { spec.Consistency.Level = v1alpha1.LevelCrash })
		most := flushed.Load() + 1
		raw := filepath.Join(x.Dir, name+".raw")
		restored := x.Restore(job.Status.ImageRef.Name, "again-"+name, nil)
		g.Expect(qemu.Export(t.Context(), restored[0], raw)).To(Succeed())
		found, err := prefixOf(raw, size/record)
		g.Expect(err).NotTo(HaveOccurred(), name)
		g.Expect(found).To(And(BeNumerically(">=", least), BeNumerically("<=", most)), name)
		t.Logf("image %d (%s) holds the first %d writes; %d were flushed before it was asked for, %d when it was done",
			i+1, job.Status.Image.Type, found, least, most-1)
	}
	stop()
	g.Expect(<-ended).To(Succeed())
}

// prefixOf returns the newest record's number, after it made sure that every slot holds exactly what the writes up to that number left there.
func prefixOf(raw string, slots int64) (uint64, error) {
	file, err := os.Open(raw)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	found, newest := map[int64]uint64{}, uint64(0)
	p := make([]byte, record)
	for slot := range slots {
		if _, err := file.ReadAt(p, slot*record); err != nil {
			return 0, err
		}
		sequence, err := sequenceOf(p)
		if err != nil {
			return 0, fmt.Errorf("slot %d: %w", slot, err)
		}
		if sequence > 0 {
			found[slot*record] = sequence
		}
		newest = max(newest, sequence)
	}
	want := map[int64]uint64{}
	for sequence := uint64(1); sequence <= newest; sequence++ {
		want[slotOf(sequence, slots)] = sequence
	}
	for offset, sequence := range want {
		if found[offset] != sequence {
			return 0, fmt.Errorf("the image holds write %d, but at %d write %d instead of %d", newest, offset, found[offset], sequence)
		}
	}
	if len(found) != len(want) {
		return 0, fmt.Errorf("the image holds %d records instead of %d", len(found), len(want))
	}
	return newest, nil
}

// TestLinuxGuestSurvives runs a real Linux on the emulated host's disk. It writes files with fsync while backups run, and boots again from what was
// restored: every file that was durable before the backup was asked for is there and whole.
func TestLinuxGuestSurvives(t *testing.T) {
	x := newTenant(t)
	tool.Require(t, qemu.LinuxPrograms...)
	g := NewWithT(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	linux := qemu.ForTest(t, x.Dir)
	empty, raw := filepath.Join(x.Dir, "empty"), filepath.Join(x.Dir, "linux.raw")
	g.Expect(os.Mkdir(empty, 0o755)).To(Succeed())
	g.Expect(filesystem.Make(ctx, filesystem.Ext4, raw, 256*mib, empty)).To(Succeed())
	m := x.AddMachine("linux", nil, raw)
	x.UseRepository()
	x.Start()
	m.Detach() // Linux is the guest

	machine, err := linux.Boot(ctx, m.Path("."), qemu.Served("disk0.vhdx.nbd"), "write")
	g.Expect(err).NotTo(HaveOccurred())
	defer machine.Kill()
	durable, err := machine.Await(ctx, "durable", 3)
	g.Expect(err).NotTo(HaveOccurred())
	var image string
	for _, name := range []string{"full", "increment"} {
		durable, err = machine.Await(ctx, "durable", durable+3)
		g.Expect(err).NotTo(HaveOccurred())
		job := x.Backup(m, name, func(spec *v1alpha1.BackupJobSpec) { spec.Consistency.Level = v1alpha1.LevelCrash })
		image = job.Status.ImageRef.Name
	}
	_, err = machine.Await(ctx, "durable", durable+3)
	g.Expect(err).NotTo(HaveOccurred(), "the guest goes on writing")
	machine.Kill()

	restored := x.Restore(image, "again", nil)
	copied := filepath.Join(x.Dir, "copy.raw")
	g.Expect(qemu.Export(ctx, restored[0], copied)).To(Succeed())
	g.Expect(filesystem.Replay(ctx, copied)).To(Succeed())
	g.Expect(filesystem.Check(ctx, filesystem.Ext4, copied)).To(Succeed())

	again, err := linux.Boot(ctx, filepath.Dir(restored[0]), qemu.Scratch(filepath.Base(restored[0])), "read")
	g.Expect(err).NotTo(HaveOccurred())
	defer again.Kill()
	whole, err := again.Await(ctx, "whole", durable)
	g.Expect(err).NotTo(HaveOccurred())
	t.Logf("%d files were durable before the last backup; %d are whole after booting from the restored disk", durable, whole)
}
