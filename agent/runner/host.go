package runner

import (
	"context"
	"path/filepath"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// HostOptions are what the agent in host mode needs besides.
type HostOptions struct {
	Options
	// Host is the Hyper-V host that the agent works on, Files its files.
	Host  *hyperv.Host
	Files hostfs.FS
	// InventoryResync is how often all of the host is looked at while it tells what changes, InventoryInterval how often while it does not. Both count as
	// slowestLooking at most.
	InventoryResync, InventoryInterval time.Duration
	// SweepInterval is how often the host is searched for leftovers.
	SweepInterval time.Duration
}

// slowestLooking bounds how often the host is looked at, so that one that is looked at never seems to be out of date.
const slowestLooking = v1alpha1.InventoryMaxAge / 3

// slowestComparing bounds how often the host compares its objects to tell what changed.
const slowestComparing = 5 * time.Second

// RunHost is the agent in host mode: it tells what is on the host, and backs up, restores and cleans up there. It works until ctx ends.
func RunHost(ctx context.Context, opts HostOptions) error {
	a, err := newAgent(opts.Options)
	if err != nil {
		return err
	}
	journal, err := OpenJournal(filepath.Join(opts.StateDir, "journal"))
	if err != nil {
		return err
	}
	if err := recognize(opts.Host, journal); err != nil {
		return err
	}
	repositories := &Repositories{Client: a.client, Namespace: a.Namespace, Options: a.Image}
	repositories.Options.Bandwidth = image.NewBandwidth(a.clock.Now)
	restores := &restore{host: opts.Host, files: opts.Files, repositories: repositories, journal: journal, claim: a.claim}
	handlers := map[v1alpha1.TaskKind]Handler{
		v1alpha1.TaskBackup: &backup{
			host: opts.Host, files: opts.Files, repositories: repositories, journal: journal, claim: a.claim, clock: a.clock, version: a.Version,
		},
		v1alpha1.TaskRestore: restores,
		v1alpha1.TaskRelease: &release{host: opts.Host, journal: journal, clock: a.clock},
	}
	return a.run(ctx, handlers, func(tasks *Tasks) []manager.Runnable {
		return []manager.Runnable{
			&InventoryPublisher{
				Host: opts.Host, Client: a.client, Namespace: a.Namespace, Session: a.session, Version: a.Version,
				Resync: min(opts.InventoryResync, slowestLooking), Interval: min(opts.InventoryInterval, slowestLooking),
				Within: min(opts.InventoryInterval, slowestComparing), Limit: lookLimit, Clock: a.clock,
			},
			&Sweeper{
				Host: opts.Host, Journal: journal, Restores: restores, Tasks: tasks, Client: a.client, Namespace: a.Namespace,
				Interval: opts.SweepInterval, Limit: lookLimit, Clock: a.clock,
			},
		}
	})
}

// recognize tells the host of the checkpoints that earlier sessions took, of which not every one says itself that it is ours.
func recognize(host *hyperv.Host, journal *Journal) error {
	entries, err := journal.List()
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.Checkpoint != nil {
			host.Recognize(*entry.Checkpoint)
		}
	}
	return nil
}
