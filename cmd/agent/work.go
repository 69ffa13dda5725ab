package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/runner"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
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
	flags.DurationVar(&f.lease, "lease-duration", 40*time.Second, "how long others wait before they take this agent for dead")
	flags.IntVar(&f.parallelism, "parallelism", 0, "pieces of a disk that are worked on at once (default: one per CPU)")
	flags.Int64Var(&f.memoryMiB, "memory-budget", 256, "MiB of disk data in flight at most, for each backup")
	cobra.CheckErr(cmd.MarkFlagRequired("state-dir"))
}

// options reads the flags. Ages in a repository are by the writers' clocks, so kopia is told to refuse a clock that differs from the store's.
func (f *workFlags) options() (runner.Options, error) {
	if err := os.Setenv("KOPIA_ENABLE_CLOCK_SKEW_CHECK", "true"); err != nil {
		return runner.Options{}, err
	}
	config, err := restConfig(f.kubeconfig)
	if err != nil {
		return runner.Options{}, err
	}
	if f.lease < time.Second {
		return runner.Options{}, errors.New("--lease-duration is at least one second")
	}
	return runner.Options{
		Config: config, Namespace: f.namespace, StateDir: f.stateDir, Version: version, LeaseDuration: f.lease,
		Image: image.Options{Parallelism: f.parallelism, MemoryBudget: f.memoryMiB << 20},
	}, nil
}

// restConfig reaches the API server without holding back: an agent makes few calls, and those count.
func restConfig(kubeconfig string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("no way to the API server: %w; name a file with --kubeconfig", err)
	}
	config.UserAgent = "hyperkeep-agent/" + version
	config.QPS, config.Burst = 50, 100
	return config, nil
}

func keeperCommand() *cobra.Command {
	var flags workFlags
	cmd := &cobra.Command{
		Use: "keeper", Short: "Keep repositories: probe them, verify images and delete those that expired", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts, err := flags.options()
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

func hostCommand() *cobra.Command {
	var flags workFlags
	var host, socket string
	var resync, inventory, sweep time.Duration
	cmd := &cobra.Command{
		Use: "host", Short: "Back up and restore the virtual machines of one Hyper-V host", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			flags.namespace = v1alpha1.AgentNamespace(host)
			opts, err := flags.options()
			if err != nil {
				return err
			}
			seams, leave, err := openSeams(socket)
			if err != nil {
				return err
			}
			return errors.Join(runner.RunHost(cmd.Context(), runner.HostOptions{
				Options: opts, Host: hyperv.New(seams), Files: seams.Files, InventoryResync: resync, InventoryInterval: inventory, SweepInterval: sweep,
			}), leave())
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&host, "host", "", "name of this host's HyperVHost object (required)")
	cmd.Flags().StringVar(&socket, "emulated", "", "socket of an emulated Hyper-V host, as agent emulate prints it, instead of this machine's Hyper-V")
	cmd.Flags().DurationVar(&inventory, "inventory-interval", 30*time.Second, "how often all of the host is looked at while it tells no events")
	cmd.Flags().DurationVar(&resync, "inventory-resync", 10*time.Minute, "how often all of the host is looked at while it tells what changes")
	cmd.Flags().DurationVar(&sweep, "sweep-interval", 5*time.Minute, "how often the host is searched for what a dead task left behind")
	cobra.CheckErr(cmd.MarkFlagRequired("host"))
	return cmd
}
