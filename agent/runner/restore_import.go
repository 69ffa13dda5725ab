package runner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/recovery"
)

// importPatience is how long an import waits for other operations of the host: undoing a restore of hours because somebody imports something else at that
// moment would be worse.
const importPatience = 2 * time.Minute

// planImport decides whether Hyper-V shall import the image's own configuration files, and where they are put for that.
func (r *restoreRun) planImport(ctx context.Context) error {
	made := r.entry.Restore
	files := importFiles(r.image.Manifest().Files)
	if len(files) == 0 {
		made.NotImported = "the image has no configuration files of Hyper-V"
		return nil
	}
	versions, err := r.host.SupportedVersions(ctx)
	if err != nil {
		return err
	}
	if version := r.definition.ConfigurationVersion; len(versions) > 0 && !slices.Contains(versions, version) {
		made.NotImported = fmt.Sprintf("the host cannot run configuration version %s, only %s", version, strings.Join(versions, ", "))
		return nil
	}
	for _, file := range files {
		made.Config = append(made.Config, made.Staging+`\`+recovery.FileName(file.Name))
	}
	return nil
}

// importFiles are the files of an image that an import needs: the definition first, then those of its stem.
func importFiles(files []image.FileRecord) []image.FileRecord {
	var names []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	definition := hyperv.DefinitionFile(names)
	stem := strings.ToLower(strings.TrimSuffix(definition, extension(definition))) + "."
	var out []image.FileRecord
	for _, f := range files {
		switch {
		case definition == "" || !strings.HasPrefix(strings.ToLower(f.Name), stem):
		case f.Name == definition:
			out = slices.Insert(out, 0, f)
		default:
			out = append(out, f)
		}
	}
	return out
}

// stage writes the configuration files. Those of a run that was killed are made anew.
func (r *restoreRun) stage(ctx context.Context) error {
	for i, file := range importFiles(r.image.Manifest().Files) {
		if i >= len(r.entry.Restore.Config) {
			return nil // they are not imported
		}
		if err := r.stageFile(ctx, file.Name, r.entry.Restore.Config[i]); err != nil {
			return fmt.Errorf("write %s: %w", r.entry.Restore.Config[i], err)
		}
	}
	return nil
}

func (r *restoreRun) stageFile(ctx context.Context, name, path string) (err error) {
	content, err := r.image.File(ctx, name)
	if err != nil {
		return err
	}
	defer content.Close() //nolint:errcheck // read only
	if err := r.files.Remove(ctx, path); err != nil {
		return err
	}
	file, err := r.files.Create(ctx, path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := io.Copy(io.NewOffsetWriter(file, 0), content); err != nil {
		return err
	}
	return file.Sync()
}

// unstage deletes the configuration files. What is gone already is no error.
func (r *restore) unstage(ctx context.Context, made *RestoreEntry) error {
	err := r.unstageTree(ctx, made)
	for _, file := range made.Config {
		err = errors.Join(err, r.files.Remove(ctx, file))
	}
	if len(made.Config) > 0 {
		err = errors.Join(err, r.files.Remove(ctx, made.Staging))
	}
	return err
}

// importNew lets Hyper-V import a new virtual machine, without its tree of checkpoints where it does not take that. It returns none when that cannot be: the
// journal says why, and never tries it again.
func (r *restoreRun) importNew(ctx context.Context) (*hyperv.Restored, error) {
	made := r.entry.Restore
	if made.NotImported != "" {
		return nil, nil
	}
	if made.Import == nil {
		im, err := r.host.PrepareImport(ctx, made.Config[0], "", r.definition.Name, r.definition.Notes)
		if err != nil {
			return nil, err
		}
		made.Import = &im
		if err := r.journal.Put(r.entry); err != nil {
			return nil, err
		}
	}
	var out hyperv.Restored
	err := patiently(ctx, func() (err error) {
		out, err = r.host.ImportVM(ctx, *made.Import, r.newTarget())
		return err
	})
	switch {
	case errors.Is(err, hyperv.ErrImportRefused) && r.tree() != nil:
		if err := r.giveTreeUp(ctx, err); err != nil {
			return nil, err
		}
		return r.importNew(ctx)
	case errors.Is(err, hyperv.ErrImportRefused):
		return nil, r.notImported(err)
	case err != nil:
		return nil, err
	}
	return &out, nil
}

// warned journals what an import takes from the virtual machine: after a crash nobody can tell any more.
func (r *restoreRun) warned(warning string) error {
	made := r.entry.Restore
	if slices.Contains(made.Warnings, warning) {
		return nil
	}
	made.Warnings = append(made.Warnings, warning)
	return r.journal.Put(r.entry)
}

// notImported gives importing up.
func (r *restoreRun) notImported(reason error) error {
	r.entry.Restore.NotImported, r.entry.Restore.Warnings = reason.Error(), nil
	r.report.Warn("NotImported", "The virtual machine is not imported from the image's configuration files: %v.", reason)
	return r.journal.Put(r.entry)
}

// takeBack undoes what Hyper-V knows of a restore: a new virtual machine, planned or not, goes, and a replaced one is as it was, but for what the warnings say.
func (r *restore) takeBack(ctx context.Context, made *RestoreEntry) ([]string, error) {
	if made.Import != nil {
		if err := patiently(ctx, func() error { return r.host.RemoveImport(ctx, *made.Import, made.ID) }); err != nil {
			return nil, err
		}
	}
	switch {
	case made.Replacement != nil:
		return nil, r.host.RollBackReplacement(ctx, *made.Replacement)
	case made.Exchange != nil:
		return r.putBack(ctx, made)
	case made.Folder != "":
		return nil, r.host.RemoveVM(ctx, made.ID)
	}
	return nil, nil
}

// putBack puts the original back that an import was to replace.
func (r *restore) putBack(ctx context.Context, made *RestoreEntry) (warnings []string, err error) {
	err = patiently(ctx, func() (err error) {
		warnings, err = r.host.RollBackExchange(ctx, *made.Exchange, made.ID)
		return err
	})
	return warnings, err
}

// patiently repeats what another operation of the host stands in the way of.
func patiently(ctx context.Context, do func() error) error {
	const first, longest = 100 * time.Millisecond, 5 * time.Second
	waiting, cancel := context.WithTimeout(ctx, importPatience)
	defer cancel()
	for pause := first; ; pause = min(2*pause, longest) {
		err := do()
		if !errors.Is(err, hyperv.ErrBusy) {
			return err
		}
		select {
		case <-waiting.Done():
			return err
		case <-time.After(pause):
		}
	}
}

// switches maps the virtual switches of the image to those of the host.
func (r *restoreRun) switches() map[string]string {
	out := map[string]string{}
	for _, s := range r.spec.Switches {
		out[s.From] = s.To
	}
	return out
}
