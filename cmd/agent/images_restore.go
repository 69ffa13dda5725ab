package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/meter"
	"github.com/hyperkeep/hyperkeep/agent/recovery"
)

// restoreFlags are those of images restore.
type restoreFlags struct {
	which         choice
	to, format    string
	disks         []string
	configuration bool
	force         bool
}

func restoreCommand(at *repositoryFlags) *cobra.Command {
	var flags restoreFlags
	cmd := &cobra.Command{
		Use: "restore IMAGE", Short: "Restore disks and configuration files of an image into a folder", Args: cobra.ExactArgs(1),
		Long: "Each byte is verified before it is written. A disk has the ending .partial until it is complete; a restore that was interrupted\n" +
			"is gone on with by the same command.",
		RunE: func(cmd *cobra.Command, args []string) error {
			return at.use(cmd.Context(), func(repository *image.Repository) error {
				found, err := flags.which.find(cmd.Context(), repository, args[0])
				if err != nil {
					return err
				}
				return flags.restore(cmd, found, at.parallelism)
			})
		},
	}
	flags.which.add(cmd)
	cmd.Flags().StringVar(&flags.to, "to", "", "folder that the files go to (required)")
	cmd.Flags().StringVar(&flags.format, "format", string(recovery.VHDX), "vhdx or raw")
	cmd.Flags().StringArrayVar(&flags.disks, "disk", nil, "key or name of a disk; may be given several times (default: all disks)")
	cmd.Flags().BoolVar(&flags.configuration, "configuration", true, "restore the configuration files too, into the folder "+recovery.ConfigurationFolder)
	cmd.Flags().BoolVar(&flags.force, "force", false, "replace files that are in the way")
	cobra.CheckErr(cmd.MarkFlagRequired("to"))
	return cmd
}

func (f *restoreFlags) restore(cmd *cobra.Command, found *image.Image, parallelism int) error {
	format := recovery.Format(f.format)
	if format != recovery.VHDX && format != recovery.Raw {
		return fmt.Errorf("--format %s is neither vhdx nor raw", f.format)
	}
	job := recovery.Folder{
		Image: found, Path: f.to, Format: format, Disks: f.disks, Configuration: f.configuration, Force: f.force, Parallelism: parallelism,
	}
	stop := show(cmd.Context(), cmd.ErrOrStderr(), func() (int64, int64) { return job.Total.Load(), job.Written.Load() })
	restored, err := job.Run(cmd.Context())
	stop()
	switch {
	case errors.Is(err, recovery.ErrTaken):
		return fmt.Errorf("%w: choose another folder with --to, or replace it with --force", err)
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted: the same command goes on with it")
	case err != nil:
		return err
	}
	for _, disk := range restored {
		fmt.Fprintf(cmd.OutOrStdout(), "disk %s: %s\n", disk.Disk.Key, disk.Path)
	}
	for _, disk := range found.Manifest().Excluded {
		fmt.Fprintf(cmd.OutOrStdout(), "disk %s (%s) is not in the image: %s\n", disk.Key, disk.Name, disk.Reason)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s of data restored to %s\n", humanize.IBytes(uint64(job.Written.Load())), f.to)
	return nil
}

// How often progress is shown: to a person who watches, and to a log.
const (
	showOnTerminal = time.Second
	showInLog      = 30 * time.Second
)

// show tells how far a transfer is, until the returned function is called.
func show(ctx context.Context, out io.Writer, read func() (total, done int64)) (stop func()) {
	interval, start, end := showInLog, "", "\n"
	if file, is := out.(*os.File); is && term.IsTerminal(int(file.Fd())) {
		const eraseLine = "\r\x1b[K"
		interval, start, end = showOnTerminal, eraseLine, ""
	}
	var m meter.Meter
	line := func() {
		total, done := read()
		fmt.Fprint(out, start, m.Read(time.Now(), total, done), end)
	}
	ctx, cancel := context.WithCancel(ctx)
	var showing sync.WaitGroup
	showing.Go(func() {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
				line()
			}
		}
	})
	return func() {
		cancel()
		showing.Wait()
		if start != "" {
			line()
			fmt.Fprintln(out)
		}
	}
}
