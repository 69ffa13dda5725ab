package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/identity"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/runner"
	"github.com/hyperkeep/hyperkeep/agent/service"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// What holds unless a flag says otherwise.
const (
	leaseDuration     = 40 * time.Second
	memoryMiB         = 256
	inventoryInterval = 30 * time.Second
	inventoryResync   = 10 * time.Minute
	sweepInterval     = 5 * time.Minute
)

// workFlags are those of both modes that do tasks.
type workFlags struct {
	kubeconfig, namespace, stateDir string
	lease                           time.Duration
	parallelism                     int
	memoryMiB                       int64
}

func (f *workFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.kubeconfig, "kubeconfig", os.Getenv("KUBECONFIG"), "file that says how to reach the API server; within a cluster the pod's own account is used")
	flags.StringVar(&f.stateDir, "state-dir", "", "folder that only this agent uses, on a disk that survives a restart (required)")
	flags.DurationVar(&f.lease, "lease-duration", leaseDuration, "how long others wait before they take this agent for dead")
	flags.IntVar(&f.parallelism, "parallelism", 0, "pieces of disks that each backup works on at once (default: two per CPU)")
	flags.Int64Var(&f.memoryMiB, "memory-budget", memoryMiB, "MiB of disk data in flight at most, for each backup")
	cobra.CheckErr(cmd.MarkFlagRequired("state-dir"))
}

// options reads the flags; connect is how the API server is reached. Ages in a repository are by the writers' clocks, so kopia is told to refuse a clock
// that differs from the store's.
func (f *workFlags) options(connect func() (*rest.Config, error)) (runner.Options, error) {
	if err := os.Setenv("KOPIA_ENABLE_CLOCK_SKEW_CHECK", "true"); err != nil {
		return runner.Options{}, err
	}
	config, err := connect()
	if err != nil {
		return runner.Options{}, err
	}
	// Without holding back: an agent makes few calls, and those count.
	config.UserAgent = "hyperkeep-agent/" + version
	config.QPS, config.Burst = 50, 100
	if f.lease < time.Second {
		return runner.Options{}, errors.New("--lease-duration is at least one second")
	}
	return runner.Options{
		Config: config, Namespace: f.namespace, StateDir: f.stateDir, Version: version, LeaseDuration: f.lease,
		Image: image.Options{Parallelism: f.parallelism, MemoryBudget: f.memoryMiB << 20},
	}, nil
}

// fromKubeconfig reaches the API server as the kubeconfig says, or as the pod that this is.
func (f *workFlags) fromKubeconfig() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", f.kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("no way to the API server: %w; name a file with --kubeconfig", err)
	}
	return config, nil
}

func keeperCommand() *cobra.Command {
	var flags workFlags
	cmd := &cobra.Command{
		Use: "keeper", Short: "Keep repositories: probe them, verify images and delete those that expired", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := flags.options(flags.fromKubeconfig)
			if err != nil {
				return err
			}
			return runner.RunKeeper(cmd.Context(), opts)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&flags.namespace, "namespace", "hyperkeep-keeper", "namespace of this keeper")
	return cmd
}

// hostFlags are those of the agent on a host.
type hostFlags struct {
	workFlags
	host, socket             string
	node                     bool
	resync, inventory, sweep time.Duration
}

func hostCommand() *cobra.Command {
	var flags hostFlags
	cmd := &cobra.Command{
		Use: "host", Short: "Back up and restore the virtual machines of one Hyper-V host", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flags.node { // nobody enrolled, which else makes the folder
				if err := service.MakePrivate(flags.stateDir); err != nil {
					return err
				}
			}
			return flags.run(cmd.Context())
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&flags.host, "host", "", "name of this host's HyperVHost object (required)")
	cmd.Flags().StringVar(&flags.socket, "emulated", "", "socket of an emulated Hyper-V host, as agent emulate prints it, instead of this machine's Hyper-V")
	cmd.Flags().BoolVar(&flags.node, "node", false, "this is a pod on a node that has the host's name: ask for the agent's token with the pod's own")
	cmd.Flags().DurationVar(&flags.inventory, "inventory-interval", inventoryInterval, "how often all of the host is looked at while it tells no events")
	cmd.Flags().DurationVar(&flags.resync, "inventory-resync", inventoryResync, "how often all of the host is looked at while it tells what changes (15m at most)")
	cmd.Flags().DurationVar(&flags.sweep, "sweep-interval", sweepInterval, "how often the host is searched for what a dead task left behind")
	cobra.CheckErr(cmd.MarkFlagRequired("host"))
	return cmd
}

// run works as the agent of the host until ctx ends.
func (f *hostFlags) run(ctx context.Context) error {
	f.namespace = v1alpha1.AgentNamespace(f.host)
	opts, err := f.options(f.config)
	if err != nil {
		return err
	}
	seams, leave, err := openSeams(f.socket)
	if err != nil {
		return err
	}
	return errors.Join(runner.RunHost(ctx, runner.HostOptions{
		Options: opts, Host: hyperv.New(seams), Files: seams.Files, InventoryResync: f.resync, InventoryInterval: f.inventory, SweepInterval: f.sweep,
	}), leave())
}

// config is how the agent reaches the API server.
func (f *hostFlags) config() (*rest.Config, error) {
	if f.node {
		return identity.ForPod(os.LookupEnv, f.host)
	}
	return f.fromKubeconfig()
}
