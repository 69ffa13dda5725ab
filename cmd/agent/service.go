package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/spf13/cobra"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/hyperkeep/hyperkeep/agent/identity"
	"github.com/hyperkeep/hyperkeep/agent/service"
)

// folderFlag is the folder of the installation that a command is about.
type folderFlag struct{ named string }

func (f *folderFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.named, "data-dir", "", `folder of the settings, the token, the journal and the logs (default %ProgramData%\Hyperkeep)`)
}

func (f *folderFlag) path() (string, error) {
	if f.named != "" {
		return filepath.Abs(f.named)
	}
	return service.Folder()
}

func installCommand() *cobra.Command {
	var folder folderFlag
	start := true
	cmd := &cobra.Command{
		Use: "install", Short: "Register the agent as a Windows service, or bring the one that is there up to date, and start it", Args: cobra.NoArgs,
		Long: "The host has to be enrolled first. To upgrade, run install of the new program.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := folder.path()
			if err != nil {
				return err
			}
			settings, err := service.Load(path)
			if err != nil {
				return err
			}
			return service.Install(settings, service.Installation{Folder: path, Start: start, Out: cmd.OutOrStdout()})
		},
	}
	folder.add(cmd)
	cmd.Flags().BoolVar(&start, "start", true, "start the service")
	return cmd
}

func uninstallCommand() *cobra.Command {
	var folder folderFlag
	var purge bool
	cmd := &cobra.Command{
		Use: "uninstall", Short: "Stop and remove the Windows service", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := folder.path()
			if err != nil {
				return err
			}
			return service.Uninstall(service.Installation{Folder: path, Purge: purge, Out: cmd.OutOrStdout()})
		},
	}
	folder.add(cmd)
	cmd.Flags().BoolVar(&purge, "purge", false, "remove also the settings, the token, the logs, and the journal of what the agent left on this host")
	return cmd
}

func runCommand() *cobra.Command {
	var folder folderFlag
	var managed bool
	cmd := &cobra.Command{
		Use: "run", Short: "Be the agent of this Windows host, with the settings that enroll wrote", Args: cobra.NoArgs,
		PersistentPreRun: func(*cobra.Command, []string) {}, // the settings say where the log goes
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := folder.path()
			if err != nil {
				return err
			}
			if !managed {
				if managed, err = service.Managed(); err != nil {
					return err
				}
			}
			host := installedHost{folder: path, managed: managed}
			if managed {
				return service.Serve(cmd.Context(), host.work)
			}
			return host.work(cmd.Context(), logged{})
		},
	}
	folder.add(cmd)
	cmd.Flags().BoolVar(&managed, "service", false, "the service manager started this process")
	return cmd
}

// logged are events of an agent that runs in the foreground.
type logged struct{}

func (logged) Report(event service.Event, message string) {
	ctrl.Log.Info(message, "event", event)
}

// installedHost is the agent as its settings say.
type installedHost struct {
	folder  string
	managed bool
}

// work is the agent's life, from its settings to its last word in the log.
func (h installedHost) work(ctx context.Context, events service.Events) error {
	settings, err := service.Load(h.folder)
	if err != nil {
		return err
	}
	closeLog, err := h.openLog(settings)
	if err != nil {
		return err
	}
	defer closeLog()
	err = settings.CheckPrivate()
	if err == nil {
		err = h.live(ctrl.LoggerInto(ctx, ctrl.Log), settings, events)
	}
	if err != nil && h.managed { // in the foreground, main prints it
		ctrl.Log.Error(err, "Agent ended")
	}
	return err
}

// live works as the agent of the host, and renews its token meanwhile.
func (h installedHost) live(ctx context.Context, settings service.Settings, events service.Events) error {
	flags := hostFlags{
		workFlags: workFlags{kubeconfig: settings.KubeconfigPath(), stateDir: settings.StatePath(), lease: leaseDuration, memoryMiB: memoryMiB},
		host:      settings.Host, socket: settings.Emulated, resync: inventoryResync, inventory: inventoryInterval, sweep: sweepInterval,
	}
	config, err := flags.config()
	if err != nil {
		return err
	}
	events.Report(service.EventStarted, fmt.Sprintf("The agent %s started for host %s.", version, settings.Host))
	ctx, stop := context.WithCancel(ctx)
	var renewing sync.WaitGroup
	defer renewing.Wait()
	defer stop()
	if config.BearerTokenFile == settings.TokenPath() {
		renewer := identity.Renewer{
			Config: config, Host: settings.Host, File: settings.TokenPath(), Clock: clock.RealClock{}, Lost: func(err error) {
				ctrl.Log.Error(err, "Token not renewed")
				events.Report(service.EventTokenTrouble, err.Error())
			},
		}
		renewing.Go(func() {
			if err := renewer.Run(ctx); err != nil {
				renewer.Lost(err)
			}
		})
	}
	return flags.run(ctx)
}

// openLog sends the log where the settings say: to a file when nobody watches.
func (h installedHost) openLog(settings service.Settings) (closed func(), err error) {
	if !h.managed {
		logTo(settings.Logger(os.Stderr))
		return func() {}, nil
	}
	logger, file, err := settings.OpenLog()
	if err != nil {
		return nil, err
	}
	logTo(logger)
	return func() {
		logTo(slog.New(slog.DiscardHandler))
		_ = file.Close() // everything was written
	}, nil
}
