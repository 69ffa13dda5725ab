package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/hyperkeep/hyperkeep/test/filesystem"
	"github.com/hyperkeep/hyperkeep/test/guest"
	"github.com/hyperkeep/hyperkeep/test/qemu"
	"github.com/hyperkeep/hyperkeep/test/site"
)

// machine is a virtual machine of the demo.
type machine struct {
	host, name string
	disks      []*disk
	// passThrough is a physical drive besides, which no checkpoint can hold.
	passThrough bool
}

// disk is a virtual disk with a file system, and the guest that uses it.
type disk struct {
	name             string
	kind             filesystem.Kind
	size             int64
	random, readable int64 // bytes of content that cannot, and that can, be compressed

	shadow string // the raw copy of all that the guest wrote
	guest  *guest.Guest
}

const mib = 1 << 20

// machines is what the two hosts of the demo run.
func machines() []*machine {
	return []*machine{
		{host: "hv01", name: "web01", disks: []*disk{
			{name: "system", kind: filesystem.Ext4, size: 3072 * mib, random: 800 * mib, readable: 400 * mib},
		}},
		{host: "hv01", name: "db01", passThrough: true, disks: []*disk{
			{name: "system", kind: filesystem.Ext4, size: 512 * mib, random: 30 * mib, readable: 30 * mib},
			{name: "data", kind: filesystem.Ext4, size: 2048 * mib, random: 90 * mib, readable: 60 * mib},
		}},
		{host: "hv02", name: "files01", disks: []*disk{
			{name: "share", kind: filesystem.NTFS, size: 1024 * mib, random: 120 * mib, readable: 60 * mib},
		}},
	}
}

// create makes the machine's folder: its disks and its vm.yaml. work is a folder for what is needed on the way, and for the guests' shadows.
func (m *machine) create(ctx context.Context, folder, work string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	yaml := fmt.Sprintf("name: %s\nstate: running\nmemoryMiB: 2048\nnetworkAdapters:\n- switch: LAN\ndisks:\n", m.name)
	for _, d := range m.disks {
		if err := d.create(ctx, folder, work, m.name); err != nil {
			return fmt.Errorf("make disk %s of %s: %w", d.name, m.name, err)
		}
		yaml += fmt.Sprintf("- path: %s.vhdx\n", d.name)
	}
	if m.passThrough {
		yaml += "- passThrough: 2\n  sizeBytes: 107374182400\n"
	}
	return os.WriteFile(filepath.Join(folder, "vm.yaml"), []byte(yaml), 0o644)
}

// create fills a file system and converts it to VHDX. The raw file remains, as the guest's shadow.
func (d *disk) create(ctx context.Context, folder, work, owner string) error {
	content := filepath.Join(work, "content")
	defer os.RemoveAll(content) //nolint:errcheck // it goes with .demo at the latest
	if err := os.MkdirAll(content, 0o755); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(content, "photos.bin"), rand.Reader, d.random); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(content, "ledger.txt"), &ledger{}, d.readable); err != nil {
		return err
	}
	d.shadow = filepath.Join(work, owner+"-"+d.name+".raw")
	if err := filesystem.Make(ctx, d.kind, d.shadow, d.size, content); err != nil {
		return err
	}
	return qemu.Convert(ctx, d.shadow, filepath.Join(folder, d.name+".vhdx"))
}

func writeFile(path string, from io.Reader, size int64) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.CopyN(file, from, size)
	return errors.Join(err, file.Close())
}

// ledger is a text that can be compressed, but not deduplicated: every line is another.
type ledger struct{ lines int64 }

func (l *ledger) Read(p []byte) (int, error) {
	n := 0
	for {
		line := fmt.Sprintf("%012d paid to the account of customer %d, with thanks\n", l.lines, l.lines*7919)
		if n+len(line) > len(p) && n > 0 {
			return n, nil
		}
		n += copy(p[n:], line)
		l.lines++
	}
}

// boot connects the guests of a machine to the disks that the host serves.
func (m *machine) boot(host *site.Host) (err error) {
	for _, d := range m.disks {
		d.guest, err = guest.Attach(filepath.Join(host.Dir, m.name, d.name+".vhdx.nbd"), d.shadow)
		if err != nil {
			return fmt.Errorf("boot %s: %w", m.name, err)
		}
	}
	return nil
}

// turnOff disconnects the guests.
func (m *machine) turnOff() {
	for _, d := range m.disks {
		if d.guest != nil {
			_ = d.guest.Detach() // its disk may be gone
			d.guest = nil
		}
	}
}

// save has the guest write a file of size random bytes, and returns how many bytes of the disk that changed.
func (d *disk) save(ctx context.Context, name string, size int64) (int64, error) {
	changed, file := d.shadow+".next", filepath.Join(filepath.Dir(d.shadow), name)
	defer os.Remove(changed) //nolint:errcheck // it goes with .demo at the latest
	defer os.Remove(file)    //nolint:errcheck // it goes with .demo at the latest
	if err := writeFile(file, rand.Reader, size); err != nil {
		return 0, err
	}
	if err := filesystem.Copy(ctx, d.shadow, changed); err != nil {
		return 0, err
	}
	if err := filesystem.Put(ctx, d.kind, changed, file, name); err != nil {
		return 0, err
	}
	written, err := d.guest.Become(changed)
	if err == nil && written < size {
		err = fmt.Errorf("a file of %d bytes changed only %d bytes of the disk", size, written)
	}
	return written, err
}

// frozen is the path of the copy of a disk's content that freeze made for a moment.
func (d *disk) frozen(moment string) string {
	return strings.TrimSuffix(d.shadow, ".raw") + "." + moment + ".raw"
}

// freeze keeps what the guest has written so far: the backup that is taken now must give back exactly this.
func (d *disk) freeze(ctx context.Context, moment string) error {
	return d.guest.Freeze(ctx, d.frozen(moment))
}
