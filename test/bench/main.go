// Command bench measures Hyperkeep's data path against the goals and against its peers, side by side in one run, and writes a page of the
// results. See `make bench`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/hyperkeep/hyperkeep/test/bench/disk"
)

type options struct {
	size         int64
	rounds       int
	peers        string
	disks, fast  string
	page         string
	largest      int64
	command      string
	increments   int
	withoutPeers bool
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == watch {
		exit(runWatch(os.Args[2:]))
		return
	}
	var o options
	flag.Int64Var(&o.size, "size", 8<<30, "size of the disk that all tools back up, in bytes")
	flag.Int64Var(&o.largest, "largest", 16<<40, "size of the largest disk that an increment is measured on, in bytes")
	flag.IntVar(&o.rounds, "rounds", 3, "how often everything is measured")
	flag.IntVar(&o.increments, "increments", 5, "how many increments of a pattern are stored")
	flag.StringVar(&o.peers, "peers", "", "folder with the programs kopia and restic")
	flag.BoolVar(&o.withoutPeers, "without-peers", false, "measure Hyperkeep alone")
	flag.StringVar(&o.disks, "disks", os.TempDir(), "folder for disks")
	flag.StringVar(&o.fast, "fast", "/dev/shm", "folder for repositories and restored disks, in memory")
	flag.StringVar(&o.page, "page", "", "file to write the results to; default standard output")
	flag.StringVar(&o.command, "command", "go run ./test/bench "+strings.Join(os.Args[1:], " "), "how the page says it was made")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	exit(run(ctx, o))
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	goroot, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("find the Go distribution: %w", err)
	}
	space, err := newWorkspace(o.disks, o.fast, strings.TrimSpace(string(goroot)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, space.remove()) }()
	subject := space.disk("subject")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", subject, "./test/bench/subject").CombinedOutput(); err != nil {
		return fmt.Errorf("build what is measured: %w: %s", err, out)
	}
	p := programs{
		subject: subject, kopia: filepath.Join(o.peers, "kopia"), restic: filepath.Join(o.peers, "restic"), borg: "borg", qemuImg: "qemu-img",
	}
	r, err := measureAll(ctx, o, space, p)
	if err != nil {
		return err
	}
	if o.page == "" {
		r.write(os.Stdout)
		return nil
	}
	page, err := os.Create(o.page)
	if err != nil {
		return err
	}
	r.write(page)
	return page.Close()
}

func measureAll(ctx context.Context, o options, space *workspace, p programs) (*report, error) {
	c := &comparison{space: space, rounds: o.rounds, log: os.Stderr}
	if err := c.prepare(o.size); err != nil {
		return nil, err
	}
	c.tools = []tool{
		hyperkeep(space, p, &c.forms),
		floor("cp --sparse=always", space, func(target string) []string { return []string{"cp", "--sparse=always", c.raw, target} }),
	}
	if !o.withoutPeers {
		c.tools = append(c.tools,
			floor("qemu-img convert", space, func(target string) []string {
				return []string{p.qemuImg, "convert", "-f", "raw", "-O", "qcow2", c.raw, target}
			}),
			restic(space, p, c.raw), kopia(space, p, c.raw), borg(space, p, c.raw))
	}
	r := &report{size: o.size, rounds: o.rounds, command: o.command, tools: c.tools}
	if err := c.run(ctx); err != nil {
		return nil, err
	}
	r.results, r.changed = c.results, c.changed.Bytes()
	a := &alone{space: space, tools: p, rounds: o.rounds, log: os.Stderr}
	var err error
	if r.floors, err = a.floors(ctx, &c.forms); err != nil {
		return nil, err
	}
	if r.verifies, r.verified, err = a.verify(ctx, &c.forms); err != nil {
		return nil, err
	}
	if r.scaled, err = a.scale(ctx, 64<<30, 1<<40, o.largest); err != nil {
		return nil, err
	}
	if r.amplified, err = a.amplify(ctx, o.size/4, o.increments, disk.Clustered, disk.Uniform, disk.Hot); err != nil {
		return nil, err
	}
	r.marked, err = mark(ctx)
	return r, err
}
