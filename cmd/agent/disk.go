package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/vhdx"
)

// maxChain bounds how many differencing disks may lie on each other.
const maxChain = 64

func diskCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "disk", Short: "Look into VHDX files, without Hyper-V and without a cluster"}
	info := &cobra.Command{
		Use: "info FILE", Short: "Describe a VHDX file and the chain that it stands on", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return diskInfo(cmd.OutOrStdout(), args[0]) },
	}
	var parents []string
	export := &cobra.Command{
		Use: "export FILE OUT.raw", Short: "Write what the guest sees of a VHDX file, or of a chain, into a sparse raw file",
		Long: "The members of a chain are found beside FILE by the names that its files give. A file that lies elsewhere is named with --parent.",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return diskExport(cmd.ErrOrStderr(), args[0], args[1], parents)
		},
	}
	export.Flags().StringArrayVar(&parents, "parent", nil, "the next file of the chain, nearest first, instead of the names in the files")
	cmd.AddCommand(info, export)
	return cmd
}

// chain is the open files of a disk, topmost first.
type chain struct {
	paths   []string
	members []*vhdx.File
	closers []io.Closer
}

func (c *chain) close() {
	for _, closer := range c.closers {
		_ = closer.Close() // read only
	}
}

// openChain opens a file and its parents: those named, else the files of the same folder whose names the children give. A name that leads out of the
// folder is not followed: whoever wrote the file does not decide what is read.
func openChain(path string, parents []string) (*chain, error) {
	c := &chain{}
	for {
		if err := c.open(path); err != nil {
			c.close()
			return nil, err
		}
		member := c.members[len(c.members)-1]
		if member.Kind() != vhdx.Differencing {
			return c, nil
		}
		switch {
		case len(c.members) > maxChain:
			c.close()
			return nil, fmt.Errorf("%s: more than %d files in the chain", path, maxChain)
		case len(parents) > 0:
			path, parents = parents[0], parents[1:]
		default:
			path = filepath.Join(filepath.Dir(path), parentName(member))
		}
	}
}

func (c *chain) open(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	c.closers = append(c.closers, file)
	stat, err := file.Stat()
	if err != nil {
		return err
	}
	member, err := vhdx.Open(file, stat.Size())
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	c.paths, c.members = append(c.paths, path), append(c.members, member)
	return nil
}

// parentName is the file name in a differencing disk's locator.
func parentName(member *vhdx.File) string {
	locator := member.Locator()
	for _, key := range []string{"relative_path", "absolute_win32_path", "volume_path"} {
		if path := locator[key]; path != "" {
			return path[strings.LastIndexAny(path, `\/`)+1:]
		}
	}
	return "parent-unknown"
}

func diskInfo(out io.Writer, path string) error {
	c, err := openChain(path, nil)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil {
		if c, err = openTop(path, err, out); err != nil {
			return err
		}
	}
	defer c.close()
	for i, member := range c.members {
		if i > 0 {
			fmt.Fprintln(out, "on")
		}
		describe(out, c.paths[i], member.Info())
		if err := member.Check(); err != nil {
			return fmt.Errorf("%s: %w", c.paths[i], err)
		}
	}
	return nil
}

func describe(out io.Writer, path string, info vhdx.Info) {
	fmt.Fprintln(out, path)
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	defer table.Flush() //nolint:errcheck // a terminal that is gone
	size := func(n int64) string { return fmt.Sprintf("%d (%s)", n, humanize.IBytes(uint64(n))) }
	for _, row := range [][2]string{
		{"kind", string(info.Kind)}, {"virtual size", size(info.VirtualSize)}, {"file size", size(info.FileSize)},
		{"block size", size(info.BlockSize)}, {"sectors", fmt.Sprintf("%d logical, %d physical", info.LogicalSectorSize, info.PhysicalSectorSize)},
		{"virtual disk id", info.VirtualDiskID.String()}, {"data write id", info.DataWriteID.String()}, {"creator", info.Creator},
		{"log", map[bool]string{true: "holds changes that are replayed in memory", false: "empty"}[info.DirtyLog]},
	} {
		fmt.Fprintf(table, "  %s\t%s\n", row[0], row[1])
	}
	for _, key := range slices.Sorted(maps.Keys(info.Locator)) {
		fmt.Fprintf(table, "  parent %s\t%s\n", key, info.Locator[key])
	}
}

// openTop describes at least the file itself when a parent is missing.
func openTop(path string, missing error, out io.Writer) (*chain, error) {
	c := &chain{}
	if err := c.open(path); err != nil {
		c.close()
		return nil, err
	}
	fmt.Fprintf(out, "The chain is not complete: %v\n\n", missing)
	return c, nil
}

func diskExport(progress io.Writer, path, target string, parents []string) (err error) {
	c, err := openChain(path, parents)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: name the files of the chain with --parent, nearest first", err)
	}
	if err != nil {
		return err
	}
	defer c.close()
	disk, err := vhdx.NewDisk(c.members...)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			_ = os.Remove(target) // half an export must not pass for a whole one
		}
	}()
	if err := out.Truncate(disk.Size()); err != nil {
		return err
	}
	return copyData(progress, disk, out)
}

// copyData writes what is not zero to where it belongs. The rest of out is a hole.
func copyData(progress io.Writer, disk *vhdx.Disk, out *os.File) error {
	buffer := make([]byte, 1<<20)
	var written int64
	for data, err := range disk.Data(extent.Extent{Length: disk.Size()}) {
		if err != nil {
			return err
		}
		for at := data.Offset; at < data.End(); {
			part := buffer[:min(int64(len(buffer)), data.End()-at)]
			if _, err := disk.ReadAt(part, at); err != nil {
				return err
			}
			if _, err := out.WriteAt(part, at); err != nil {
				return err
			}
			at += int64(len(part))
			if written += int64(len(part)); written%(1<<30) < int64(len(part)) {
				fmt.Fprintf(progress, "%s written, at %d%% of the disk\n", humanize.IBytes(uint64(written)), at*100/disk.Size())
			}
		}
	}
	fmt.Fprintf(progress, "%s of data in a disk of %s\n", humanize.IBytes(uint64(written)), humanize.IBytes(uint64(disk.Size())))
	return nil
}
