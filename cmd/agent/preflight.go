package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"k8s.io/utils/clock"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/emulator/recording"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/preflight"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

const preflightText = `Look at this Hyper-V host and say whether backups will work, what stands in the way and what to do. Nothing is changed.

With --vm NAME --yes it also takes that virtual machine twice through a checkpoint, reads samples of its disks in every way that there is, asks what
changed in between, and measures all of it. What it makes it removes, also on Ctrl-C. Take a machine that nobody misses.

--record FILE keeps what the host answered, so that tests can ask it again; --redact replaces names, ids and addresses in it.

The command ends with 0 when nothing stands in the way, with 1 when backups work and hold or promise less than they could, and with 2 when they will
not work, or the command could not do its work.`

// preflightName is the command's, whose exit codes have a meaning of their own.
const preflightName = "preflight"

// preflightFlags are what the command was told.
type preflightFlags struct {
	socket, output string
	record, replay string
	compare        string
	vm             string
	redact, yes    bool
}

func preflightCommand() *cobra.Command {
	var flags preflightFlags
	cmd := &cobra.Command{
		Use: preflightName, Short: "Say whether backups of this Hyper-V host will work, and what to do", Long: preflightText, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			code, err := flags.run(cmd.Context(), cmd.OutOrStdout())
			if err == nil && code != preflight.ExitReady {
				return &exitError{code: code}
			}
			return err
		},
	}
	set := cmd.Flags()
	set.StringVar(&flags.socket, "emulated", "", "socket of an emulated Hyper-V host, as agent emulate prints it, instead of this machine's Hyper-V")
	set.StringVarP(&flags.output, "output", "o", "text", "how to report: text or json")
	set.StringVar(&flags.vm, "vm", "", "take this virtual machine, by its name or id, through a backup cycle; needs --yes")
	set.BoolVar(&flags.yes, "yes", false, "allow the cycle to make checkpoints and a reference point, which it removes")
	set.StringVar(&flags.record, "record", "", "write what the host answers to this new file")
	set.BoolVar(&flags.redact, "redact", false, "replace names, ids and addresses in what is recorded")
	set.StringVar(&flags.replay, "replay", "", "ask the host that was recorded in this file")
	set.StringVar(&flags.compare, "compare", "", "list how the host that was recorded in this file differs from the emulated one, and do nothing else")
	cmd.MarkFlagsMutuallyExclusive("emulated", "replay", "compare")
	cmd.MarkFlagsMutuallyExclusive("record", "replay", "compare")
	cmd.MarkFlagsMutuallyExclusive("vm", "replay", "compare")
	return cmd
}

func (f *preflightFlags) run(ctx context.Context, out io.Writer) (code int, err error) {
	switch {
	case f.output != "text" && f.output != "json":
		return 0, fmt.Errorf("--output is text or json, not %q", f.output)
	case f.redact && f.record == "":
		return 0, errors.New("--redact says how to record: name the file with --record")
	case f.vm != "" && !f.yes:
		return 0, fmt.Errorf("--vm makes checkpoints of %s and removes them: allow it with --yes", f.vm)
	case f.compare != "":
		return 0, f.runCompare(out)
	}
	p, leave, err := f.open()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, leave()) }()
	save, err := f.recordInto(p)
	if err != nil {
		return 0, err
	}
	report := p.Run(ctx)
	if f.vm != "" && ctx.Err() == nil {
		p.Cycle(ctx, report, f.vm)
	}
	err = save()
	if ctx.Err() != nil && report.Cycle == nil {
		return 0, errors.Join(context.Cause(ctx), err)
	}
	return report.ExitCode(), errors.Join(err, f.write(out, report))
}

func (f *preflightFlags) write(out io.Writer, r *preflight.Report) error {
	if f.output == "text" {
		return r.WriteText(out)
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(r)
}

// open reaches the host, or the recording of one.
func (f *preflightFlags) open() (*preflight.Preflight, func() error, error) {
	if f.replay != "" {
		r, err := loadRecording(f.replay)
		if err != nil {
			return nil, nil, err
		}
		return &preflight.Preflight{Machine: preflight.Replayed(r), Agent: version, Seams: hyperv.Seams{
			Virtualization: r.Session(wmi.NamespaceVirtualization), CIM: r.Session(wmi.NamespaceCIMv2), Cluster: r.Session(wmi.NamespaceCluster),
			Disks: r.Disks(), Files: r.Files(), Clock: clock.RealClock{},
		}}, func() error { return nil }, nil
	}
	seams, leave, err := openSeams(f.socket)
	if err != nil {
		return nil, nil, err
	}
	return &preflight.Preflight{Seams: seams, Machine: preflight.ThisMachine(), Agent: version}, leave, nil
}

func loadRecording(path string) (*recording.Recording, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // read only
	return recording.Load(file)
}

// recordInto puts a recorder between the preflight and its host. What save returns writes the rest. Without --record both do nothing.
func (f *preflightFlags) recordInto(p *preflight.Preflight) (save func() error, err error) {
	if f.record == "" {
		return func() error { return nil }, nil
	}
	file, err := os.OpenFile(f.record, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("--record: %w", err)
	}
	// What has to be redacted never reaches the disk as it was.
	var whole bytes.Buffer
	into := io.Writer(file)
	if f.redact {
		into = &whole
	}
	r := recording.NewRecorder(into, version, p.Seams.Clock)
	s := &p.Seams
	s.Virtualization = r.Session(wmi.NamespaceVirtualization, s.Virtualization)
	s.CIM = r.Session(wmi.NamespaceCIMv2, s.CIM)
	s.Cluster = r.Session(wmi.NamespaceCluster, s.Cluster)
	s.Disks, s.Files = r.Disks(s.Disks), r.Files(s.Files)
	p.Machine = preflight.Recorded(r, p.Machine)
	return func() error {
		err := r.Err()
		if err == nil && f.redact {
			err = recording.Redact(&whole, file)
		}
		return errors.Join(err, file.Close())
	}, nil
}

func (f *preflightFlags) runCompare(out io.Writer) error {
	r, err := loadRecording(f.compare)
	if err != nil {
		return err
	}
	differences, err := recording.Compare(r)
	if err != nil {
		return err
	}
	if f.output == "json" {
		return json.NewEncoder(out).Encode(differences)
	}
	for _, d := range differences {
		if _, err := fmt.Fprintln(out, d); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(out, "%d differences from the emulated host.\n", len(differences))
	return err
}
