package qemu

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/hyperkeep/hyperkeep/test/filesystem"
	"github.com/hyperkeep/hyperkeep/test/tool"
)

// TestLinuxGuestFindsWhatItMadeDurable proves the oracle itself: what the guest said was durable before it lost power is there when it boots again, and
// a disk without it is noticed.
func TestLinuxGuestFindsWhatItMadeDurable(t *testing.T) {
	tool.Require(t, append(append([]string{"qemu-img"}, LinuxPrograms...), filesystem.Programs...)...)
	g := NewWithT(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	dir := t.TempDir()
	linux := ForTest(t, dir)
	empty, raw, vhdx := filepath.Join(dir, "empty"), filepath.Join(dir, "disk.raw"), filepath.Join(dir, "disk.vhdx")
	g.Expect(os.Mkdir(empty, 0o755)).To(Succeed())
	g.Expect(filesystem.Make(ctx, filesystem.Ext4, raw, 64<<20, empty)).To(Succeed())

	writer, err := linux.Boot(ctx, dir, "file=disk.raw,format=raw", "write")
	g.Expect(err).NotTo(HaveOccurred())
	durable, err := writer.Await(ctx, "durable", 5)
	g.Expect(err).NotTo(HaveOccurred())
	writer.Kill()

	g.Expect(Convert(ctx, raw, vhdx)).To(Succeed())
	reader, err := linux.Boot(ctx, dir, Scratch("disk.vhdx"), "read")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(reader.Await(ctx, "whole", durable)).To(BeNumerically(">=", durable))
	reader.Kill()
}
