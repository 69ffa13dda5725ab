package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/hyperkeep/hyperkeep/test/filesystem"
	"github.com/hyperkeep/hyperkeep/test/qemu"
)

// checks are what the demo proved, or failed to.
type checks []check

type check struct {
	what, by string
	err      error
}

// add records a check: what is claimed, and which judge says so.
func (c *checks) add(what, by string, err error) { *c = append(*c, check{what, by, err}) }

func (c checks) failed() int {
	failed := 0
	for _, one := range c {
		if one.err != nil {
			failed++
		}
	}
	return failed
}

// conclude prints the table of all checks.
func (d *demo) conclude() error {
	d.checks.add("nothing is left on the hosts: no checkpoint, no .avhdx", "the hosts' folders", d.hostsAreClean())
	rows := [][]string{{"", "CHECK", "JUDGE"}}
	for _, c := range d.checks {
		mark := "ok  "
		if c.err != nil {
			mark = "FAIL"
		}
		rows = append(rows, []string{mark, c.what, c.by})
	}
	d.console.table(rows)
	for _, c := range d.checks {
		if c.err != nil {
			d.console.say("\n%s %s:\n   %v", d.console.paint(red, "FAIL"), c.what, c.err)
		}
	}
	colour := green
	if d.checks.failed() > 0 {
		colour = red
	}
	d.console.say("\n%s", d.console.paint(colour, fmt.Sprintf("%d passed, %d failed", len(d.checks)-d.checks.failed(), d.checks.failed())))
	return nil
}

// checkRestored judges a restored disk by what its guest had at a moment.
func (d *demo) checkRestored(m *machine, one *disk, moment, vhdx string) {
	name := fmt.Sprintf("%s, disk %s, as of the %s backup", m.name, one.name, moment)
	d.checks.add(name+": equal byte for byte", "qemu-img compare", qemu.Compare(d.ctx, one.frozen(moment), vhdx))
	d.checks.add(name+": the VHDX file is sound", "qemu-img check", qemu.Check(d.ctx, vhdx))
	judge := map[filesystem.Kind]string{filesystem.Ext4: "e2fsck -fn", filesystem.NTFS: "ntfsfix -n"}[one.kind]
	d.checks.add(name+": the "+string(one.kind)+" file system is sound", judge, checkFileSystem(d.ctx, one.kind, vhdx))
}

func checkFileSystem(ctx context.Context, kind filesystem.Kind, vhdx string) error {
	raw := vhdx + ".raw"
	defer os.Remove(raw) //nolint:errcheck // it goes with .demo at the latest
	if err := qemu.Export(ctx, vhdx, raw); err != nil {
		return err
	}
	return filesystem.Check(ctx, kind, raw)
}

// hostsAreClean looks for files of checkpoints.
func (d *demo) hostsAreClean() error {
	return filepath.WalkDir(filepath.Join(d.dir, "hosts"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.EqualFold(filepath.Ext(path), ".avhdx") {
			err = fmt.Errorf("%s is left", path)
		}
		return err
	})
}
