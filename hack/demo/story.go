package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// The moments at which backups are taken.
const (
	first  = "first"
	second = "second"
)

func (d *demo) makeHosts() error {
	d.console.say("Each virtual machine is a folder with real .vhdx files, made with mke2fs, mkntfs and qemu-img:\n")
	rows := [][]string{{"HOST", "VM", "DISK", "FILE SYSTEM", "SIZE", "DATA"}}
	work := filepath.Join(d.dir, "guests")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return err
	}
	for _, m := range d.machines {
		if err := m.create(d.ctx, filepath.Join(d.dir, "hosts", m.host, m.name), work); err != nil {
			return err
		}
		for _, one := range m.disks {
			rows = append(rows, []string{m.host, m.name, one.name, string(one.kind), size(one.size), size(one.random + one.readable)})
		}
		if m.passThrough {
			rows = append(rows, []string{m.host, m.name, "physical drive 2", "", size(100 << 30), "passed through"})
		}
	}
	d.console.table(rows)
	return nil
}

func (d *demo) registerHosts() error {
	for _, name := range []string{"hv01", "hv02"} {
		if _, err := d.site.AddHost(d.ctx, name); err != nil {
			return err
		}
	}
	for _, m := range d.machines {
		if err := m.boot(d.host(m.host)); err != nil {
			return err
		}
	}
	if err := d.console.run(d.ctx, "create", "namespace", namespace); err != nil {
		return err
	}
	if err := d.apply("1-hosts.yaml", hostsManifest); err != nil {
		return err
	}
	d.console.say("For each host the manager made a namespace and an account. The agents get a token for it and dial out to the cluster.\n")
	for _, host := range d.site.Hosts() {
		if err := host.Join(d.ctx); err != nil {
			return err
		}
	}
	if err := d.console.run(d.ctx, "wait", "hypervhosts", "--all", "--for=condition=Ready", "--timeout=60s"); err != nil {
		return err
	}
	if err := d.awaitMachines(); err != nil {
		return err
	}
	return d.console.run(d.ctx, "get", "virtualmachines", "-n", namespace)
}

func (d *demo) addRepository() error {
	path, err := filepath.Abs(filepath.Join(d.dir, "repository"))
	if err != nil {
		return err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if err := d.apply("2-repository.yaml", repositoryManifest, systemNamespace, path); err != nil {
		return err
	}
	d.console.say("The keeper creates it, encrypted, and watches over it.\n")
	if err := d.console.run(d.ctx, "wait", "backuprepository/main", "--for=condition=Ready", "--timeout=60s"); err != nil {
		return err
	}
	return d.console.run(d.ctx, "get", "backuprepositories")
}

func (d *demo) protect() error {
	for _, m := range d.machines {
		for _, one := range m.disks {
			if err := one.freeze(d.ctx, first); err != nil {
				return err
			}
		}
	}
	d.console.say("It would run every night. A runNow token starts it at once.\n")
	if err := d.apply("3-policy.yaml", policyManifest, first); err != nil {
		return err
	}
	jobs, err := d.awaitRun(first)
	if err != nil {
		return err
	}
	if err := d.console.run(d.ctx, "get", "backupimages", "-n", namespace); err != nil {
		return err
	}
	for _, job := range jobs {
		image := job.Status.Image
		d.checks.add(fmt.Sprintf("%s: the first backup is full", d.nameOf(job)), "BackupJob status", expect(image.Type == v1alpha1.ImageFull, "it is %s", image.Type))
	}
	return d.reportPassThrough(jobs)
}

// reportPassThrough shows that a disk which no checkpoint can hold is not passed over in silence.
func (d *demo) reportPassThrough(jobs []v1alpha1.BackupJob) error {
	for _, job := range jobs {
		if d.nameOf(job) != "db01" {
			continue
		}
		d.console.say("db01 has a pass-through disk, which no checkpoint can hold. Hyperkeep says so:\n")
		text := ""
		for _, disk := range job.Status.Image.Disks {
			if disk.Included == v1alpha1.DiskExcluded {
				text = disk.Key + ": " + disk.Message
			}
		}
		d.checks.add("db01: the pass-through disk is reported as not included", "BackupJob status", expect(text != "" && conditionIs(job.Status.Conditions, v1alpha1.ConditionComplete, "False"), "it is not"))
		return d.console.run(d.ctx, "get", "backupjob", job.Name, "-n", namespace, "-o",
			`jsonpath={range .status.warnings[*]}{.reason}: {.message}{"\n"}{end}`)
	}
	return nil
}

func (d *demo) work() error {
	d.console.say("Each guest saves a file on each of its disks, through the socket at which its host serves the disk:\n")
	rows := [][]string{{"VM", "DISK", "FILE", "CHANGED ON DISK"}}
	for _, m := range d.machines {
		for _, one := range m.disks {
			written, err := one.save(d.ctx, "orders.bin", 3*mib)
			if err != nil {
				return err
			}
			rows = append(rows, []string{m.name, one.name, "orders.bin, 3.0 MiB", size(written)})
			if err := one.freeze(d.ctx, second); err != nil {
				return err
			}
		}
	}
	d.console.table(rows)
	return nil
}

func (d *demo) backUpAgain() error {
	if err := d.apply("4-policy-again.yaml", policyManifest, second); err != nil {
		return err
	}
	jobs, err := d.awaitRun(second)
	if err != nil {
		return err
	}
	rows := [][]string{{"VM", "TYPE", "DISKS", "CHANGED", "READ", "STORED", "SAVED"}}
	for _, job := range jobs {
		image := job.Status.Image
		rows = append(rows, []string{
			d.nameOf(job), string(image.Type), size(image.ProtectedBytes), size(image.ChangedBytes), size(image.ReadBytes), size(image.StoredBytes),
			fmt.Sprintf("%d%% of the reading", image.OptimizationPercent),
		})
		what := fmt.Sprintf("%s: the second backup read %s", d.nameOf(job), size(image.ReadBytes))
		// Reading goes in leaves of 1 MiB: what a guest scatters over the disk costs more than it wrote.
		small := image.Type == v1alpha1.ImageIncremental && image.ReadBytes < 64*mib
		d.checks.add(what, "BackupJob status", expect(small, "it is %s and read %s", image.Type, size(image.ReadBytes)))
	}
	d.console.table(rows)
	d.console.say("")
	return d.console.run(d.ctx, "get", "virtualmachines", "-n", namespace)
}

func (d *demo) lose() error {
	lost := d.machine("db01")
	lost.turnOff()
	folder := filepath.Join(d.host(lost.host).Dir, lost.name)
	d.console.say("Somebody deletes db01 on its host, with all its disks.\n")
	if err := os.RemoveAll(folder); err != nil {
		return err
	}
	if err := d.awaitGone(lost.name); err != nil {
		return err
	}
	return d.console.run(d.ctx, "get", "virtualmachine", d.objectOf(lost.name), "-n", namespace, "-o",
		`jsonpath={range .status.conditions[?(@.type=="Present")]}Present={.status}: {.message}{"\n"}{end}`)
}

func (d *demo) restore() error {
	lost := d.machine("db01")
	source := fmt.Sprintf("virtualMachine: {name: %s}", d.objectOf(lost.name))
	return d.restoreAs("5-restore.yaml", "bring-db01-back", source, lost, "db01", second)
}

func (d *demo) restoreOlder() error {
	for _, name := range []string{"web01", "files01"} {
		m := d.machine(name)
		image, err := d.imageOf(name, first)
		if err != nil {
			return err
		}
		source := fmt.Sprintf("imageRef: {name: %s}", image)
		if err := d.restoreAs("6-restore-"+name+".yaml", name+"-as-it-was", source, m, name+"-as-it-was", first); err != nil {
			return err
		}
	}
	return nil
}

// restoreAs restores a machine under a name, and compares its disks with what the guest had at a moment.
func (d *demo) restoreAs(file, restoreName, source string, m *machine, name, moment string) error {
	if err := d.apply(file, restoreManifest, restoreName, source, name); err != nil {
		return err
	}
	restored, err := d.awaitRestore(restoreName)
	if err != nil {
		return err
	}
	kept := filepath.Join(d.dir, "restored", restoreName)
	if err := os.MkdirAll(kept, 0o755); err != nil {
		return err
	}
	if len(restored.Paths) != len(m.disks) {
		return fmt.Errorf("%d disks were restored: %s", len(restored.Paths), strings.Join(restored.Paths, ", "))
	}
	for i, one := range m.disks {
		// D:\VMs is the host's folder.
		path := filepath.Join(d.host(m.host).Dir, filepath.FromSlash(strings.ReplaceAll(strings.TrimPrefix(restored.Paths[i], `D:\VMs\`), `\`, "/")))
		copied := filepath.Join(kept, filepath.Base(path))
		if err := os.Link(path, copied); err != nil {
			return err
		}
		d.console.detail("comparing %s with what the guest had", copied)
		d.checkRestored(m, one, moment, copied)
	}
	d.console.say("")
	return nil
}

func size(bytes int64) string { return humanize.IBytes(uint64(max(0, bytes))) }

// expect makes an error of something that should be and is not.
func expect(is bool, otherwise string, args ...any) error {
	if is {
		return nil
	}
	return fmt.Errorf(otherwise, args...)
}
