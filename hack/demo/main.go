// Command demo shows Hyperkeep at work on this machine: a real Kubernetes API, two emulated Hyper-V hosts, real disks. It acts as a user with kubectl,
// loses a virtual machine, gets it back, and compares what came back with what the guest had written, byte for byte.
//
// Everything lies in the folder .demo. The system stays up until Ctrl-C; with DEMO_EXIT=1 it is torn down at the end, and the exit code says whether all
// checks passed.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/hyperkeep/hyperkeep/test/controlplane"
	"github.com/hyperkeep/hyperkeep/test/filesystem"
	"github.com/hyperkeep/hyperkeep/test/site"
	"github.com/hyperkeep/hyperkeep/test/tool"
)

// demo is one run of the demo.
type demo struct {
	ctx     context.Context
	dir     string // .demo, relative to the working directory where that is the checkout
	console *console
	site    *site.Site
	// machines are those of both hosts, by name.
	machines []*machine
	checks   checks
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &demo{ctx: ctx, dir: ".demo", console: newConsole(), machines: machines()}
	err := d.run()
	if errors.Is(ctx.Err(), context.Canceled) {
		err = nil // Ctrl-C is how the demo ends
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "\n%s %v\n\nThe logs are in %s.\n", d.console.paint(red, "The demo went wrong:"), err, filepath.Join(d.dir, "logs"))
	}
	if err := errors.Join(err, d.tearDown()); err != nil || d.checks.failed() > 0 {
		os.Exit(1) //nolint:gocritic // the signal handler goes with the process
	}
}

func (d *demo) run() error {
	if err := d.prepare(); err != nil {
		return err
	}
	for _, chapter := range []struct {
		title string
		do    func() error
	}{
		{"Two Hyper-V hosts with real disks", d.makeHosts},
		{"Hyperkeep starts", d.start},
		{"The administrator registers the hosts", d.registerHosts},
		{"The administrator adds a repository", d.addRepository},
		{"A user protects all virtual machines with one policy", d.protect},
		{"The guests go on working", d.work},
		{"The next backup reads only what changed", d.backUpAgain},
		{"A virtual machine is lost", d.lose},
		{"It comes back", d.restore},
		{"An older restore point comes back too", d.restoreOlder},
		{"What was checked", d.conclude},
	} {
		d.console.heading(chapter.title)
		if err := chapter.do(); err != nil {
			return fmt.Errorf("%s: %w", chapter.title, err)
		}
	}
	return d.stay()
}

// prepare finds what the demo needs and clears what an earlier run left. The compiled programs stay.
func (d *demo) prepare() error {
	root, err := site.Checkout()
	if err != nil {
		return err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	if err := tool.Find(append(filesystem.Programs, "qemu-img")...); err != nil {
		return err
	}
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		return err
	}
	left, err := os.ReadDir(d.dir)
	if err != nil {
		return err
	}
	for _, entry := range left {
		if entry.Name() != "bin" {
			err = errors.Join(err, os.RemoveAll(filepath.Join(d.dir, entry.Name())))
		}
	}
	return err
}

// stay keeps the system up for whoever wants to look around.
func (d *demo) stay() error {
	if os.Getenv("DEMO_EXIT") == "1" {
		return nil
	}
	kubectl := d.site.ControlPlane.Kubectl().Path
	d.console.heading("It is yours")
	d.console.say("The system runs until Ctrl-C. In another terminal, in this folder:\n")
	d.console.say("   export KUBECONFIG=$PWD/%s PATH=$PATH:%s", filepath.Join(d.dir, "kubeconfig"), filepath.Dir(kubectl))
	d.console.say("   kubectl get hyperv -A\n")
	d.console.say("Everything is in %s: manifests/, hosts/ (a folder for each virtual machine), restored/ (disks), repository/ and logs/.", d.dir)
	<-d.ctx.Done()
	return nil
}

// tearDown stops all processes. Files stay.
func (d *demo) tearDown() error {
	if d.site == nil {
		return nil
	}
	for _, m := range d.machines {
		m.turnOff()
	}
	if err := d.site.Stop(); err != nil && d.ctx.Err() == nil {
		return err // after Ctrl-C the processes have had the signal too
	}
	return nil
}

// start builds and starts everything but the hosts' agents, who have no account yet.
func (d *demo) start() error {
	binaries, err := site.Build(d.ctx, filepath.Join(d.dir, "bin"), os.Stderr)
	if err != nil {
		return err
	}
	d.site, err = site.Start(d.ctx, site.Options{
		Dir: d.dir, Binaries: binaries,
		Report: func(what string) { d.console.detail("starting %s", what) },
		// One worker on each host, for a person likes to see a backup go on before it is over.
		HostArgs: []string{"--inventory-interval", "2s", "--inventory-resync", "30s", "--lease-duration", "8s", "--sweep-interval", "10s", "--parallelism", "1"},
	})
	if err != nil {
		return err
	}
	kubeconfig := filepath.Join(d.dir, "kubeconfig")
	kubectl := d.site.ControlPlane.Kubectl()
	d.console.kubectl = kubectl.Path
	d.console.env = []string{"KUBECONFIG=" + kubeconfig, "KUBECACHEDIR=" + filepath.Join(d.dir, "kubectl-cache")}
	return controlplane.WriteKubeconfig(kubeconfig, d.site.ControlPlane.Config())
}
