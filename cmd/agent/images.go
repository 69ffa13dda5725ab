package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/hyperkeep/hyperkeep/agent/image"
)

// imagesCommand is the way back when no cluster is left: it needs a repository and its password, and nothing else.
func imagesCommand() *cobra.Command {
	var at repositoryFlags
	cmd := &cobra.Command{
		Use: "images", Short: "List, verify and restore the images of a repository, without a cluster and without Hyper-V",
		Long: "Needs the repository and its password, and nothing else. Nothing in the repository is changed.\n" +
			"An image is named by its id, or as \"latest\" together with --vm.",
	}
	at.add(cmd)
	cmd.AddCommand(listCommand(&at), showCommand(&at), verifyCommand(&at), restoreCommand(&at))
	return cmd
}

// use opens the repository for one call.
func (f *repositoryFlags) use(ctx context.Context, call func(*image.Repository) error) (err error) {
	repository, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, repository.Close(context.WithoutCancel(ctx))) }()
	return call(repository)
}

// choice is which image of a repository is meant.
type choice struct{ vm string }

const latest = "latest"

func (c *choice) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.vm, "vm", "", "name or id of the virtual machine")
}

func (c *choice) fits(ref image.ImageRef) bool {
	return c.vm == "" || strings.EqualFold(ref.VMName, c.vm) || strings.EqualFold(ref.VMID, c.vm)
}

// find opens an image by its id, or the newest one of the virtual machine.
func (c *choice) find(ctx context.Context, repository *image.Repository, id string) (*image.Image, error) {
	if id != latest {
		return repository.Image(ctx, id)
	}
	if c.vm == "" {
		return nil, errors.New("the latest image of which virtual machine? Name it with --vm")
	}
	refs, err := repository.Images(ctx, image.ImageFilter{})
	if err != nil {
		return nil, err
	}
	var newest image.ImageRef
	for _, ref := range refs {
		if c.fits(ref) && (newest.ID == "" || ref.TakenAt.After(newest.TakenAt)) {
			newest = ref
		}
	}
	if newest.ID == "" {
		return nil, fmt.Errorf("virtual machine %s: %w", c.vm, image.ErrImageNotFound)
	}
	return repository.Image(ctx, newest.ID)
}

func listCommand(at *repositoryFlags) *cobra.Command {
	var which choice
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "List the images of a repository, oldest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return at.use(cmd.Context(), func(repository *image.Repository) error {
				refs, err := repository.Images(cmd.Context(), image.ImageFilter{})
				if err != nil {
					return err
				}
				chosen := []image.ImageRef{}
				for _, ref := range refs {
					if which.fits(ref) {
						chosen = append(chosen, ref)
					}
				}
				if output == "json" {
					return printJSON(cmd.OutOrStdout(), chosen)
				}
				return printImages(cmd.OutOrStdout(), chosen)
			})
		},
	}
	which.add(cmd)
	outputFlag(cmd, &output)
	return cmd
}

func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "", "json for programs")
}

func printJSON(out io.Writer, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, string(text))
	return err
}

// row writes a line of a table.
func row(table io.Writer, cells ...string) { fmt.Fprintln(table, strings.Join(cells, "\t")) }

func printImages(out io.Writer, refs []image.ImageRef) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row(table, "IMAGE", "VIRTUAL MACHINE", "TAKEN", "POLICY", "LOCKED UNTIL")
	for _, ref := range refs {
		row(table, ref.ID, ref.VMName, moment(ref.TakenAt), ref.Policy, moment(ref.LockedUntil))
	}
	return table.Flush()
}

// moment is a time as people read it, "" for none.
func moment(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

func showCommand(at *repositoryFlags) *cobra.Command {
	var which choice
	var output string
	cmd := &cobra.Command{
		Use: "show IMAGE", Short: "Describe an image: its virtual machine, disks and configuration files", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return at.use(cmd.Context(), func(repository *image.Repository) error {
				found, err := which.find(cmd.Context(), repository, args[0])
				if err != nil {
					return err
				}
				if output == "json" {
					return printJSON(cmd.OutOrStdout(), found.Manifest())
				}
				return printImage(cmd.OutOrStdout(), found.Manifest())
			})
		},
	}
	which.add(cmd)
	outputFlag(cmd, &output)
	return cmd
}

func printImage(out io.Writer, m image.Manifest) error {
	facts := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row(facts, "image", m.ID)
	row(facts, "virtual machine", fmt.Sprintf("%s (%s) on %s", m.VM.Name, m.VM.ID, m.VM.Host))
	row(facts, "taken", moment(m.TakenAt))
	row(facts, "consistency", m.Consistency)
	row(facts, "digest", m.Digest)
	for _, warning := range m.Warnings {
		row(facts, "warning", warning)
	}
	row(facts)
	if err := facts.Flush(); err != nil {
		return err
	}
	disks := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row(disks, "DISK", "NAME", "SIZE", "SECTORS", "FROM")
	for _, d := range m.Disks {
		row(disks, d.Key, d.Name, humanize.IBytes(uint64(d.Size)), fmt.Sprintf("%d/%d", d.LogicalSectorSize, d.PhysicalSectorSize), d.SourcePath)
	}
	for _, d := range m.Excluded {
		row(disks, d.Key, d.Name, "not in the image", "", d.Reason)
	}
	row(disks)
	row(disks, "FILE", "", "SIZE")
	for _, f := range m.Files {
		row(disks, f.Name, "", humanize.IBytes(uint64(f.Size)))
	}
	return disks.Flush()
}

func verifyCommand(at *repositoryFlags) *cobra.Command {
	var which choice
	cmd := &cobra.Command{
		Use: "verify IMAGE", Short: "Read a whole image and check every byte of it", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return at.use(cmd.Context(), func(repository *image.Repository) error {
				found, err := which.find(cmd.Context(), repository, args[0])
				if err != nil {
					return err
				}
				m := found.Manifest()
				var counted image.Progress
				stop := show(cmd.Context(), cmd.ErrOrStderr(), func() (int64, int64) { return m.ProtectedBytes(), counted.Processed.Load() })
				result, err := repository.Verify(cmd.Context(), m.ID, &counted)
				stop()
				if err != nil {
					return err
				}
				return printVerification(cmd.OutOrStdout(), result)
			})
		},
	}
	which.add(cmd)
	return cmd
}

// printVerification ends with an error when the image is damaged.
func printVerification(out io.Writer, v image.Verification) error {
	for _, disk := range v.Disks {
		if len(disk.Damaged) == 0 {
			fmt.Fprintf(out, "disk %s (%s): sound\n", disk.Key, disk.Name)
			continue
		}
		fmt.Fprintf(out, "disk %s (%s): DAMAGED, %s cannot be restored; %s\n", disk.Key, disk.Name, humanize.IBytes(uint64(disk.Damaged.Bytes())), disk.Reason)
	}
	for _, file := range v.DamagedFiles {
		fmt.Fprintf(out, "file %s: DAMAGED\n", file)
	}
	if !v.Sound() {
		return fmt.Errorf("image %s is damaged: restore another one, or the disks that are sound with --disk", v.ImageID)
	}
	return nil
}
