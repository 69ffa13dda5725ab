package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/google/uuid"

	"github.com/hyperkeep/hyperkeep/agent/extent"
	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/hostfs"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/recovery"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// restore carries out tasks of kind Restore.
type restore struct {
	host         *hyperv.Host
	files        hostfs.FS
	repositories *Repositories
	journal      *Journal
	claim        *Claim
	turns        turns
}

// restoreRun is one restore under way. Its fields are set by the step that is named.
type restoreRun struct {
	*restore
	spec   *v1alpha1.RestoreTask
	report *Report
	entry  Entry // what the journal has of this task

	repository *image.Repository  // open
	image      *image.Image       // open
	definition hyperv.Definition  // open
	name       string             // plan
	records    []image.DiskRecord // plan
	disks      []restoredDisk     // plan
	written    atomic.Int64       // write
	compared   atomic.Int64       // write
}

// reasonDiskNotInImage is a disk that was asked for and is not there.
const reasonDiskNotInImage = "DiskNotInImage"

// undoTimeout bounds taking a failed restore back.
const undoTimeout = 5 * time.Minute

// Run restores one virtual machine. What it makes is in the journal before it is made, so that a run that was killed is finished by the next one, and a
// run that fails leaves nothing: the new virtual machine and its files go, a replaced one gets its old disks back.
func (r *restore) Run(ctx context.Context, task *v1alpha1.AgentTask, report *Report) error {
	tag := string(task.UID)
	if task.Status.Restored != nil {
		return r.journal.Delete(tag) // an earlier run did it all
	}
	end, err := r.turns.take(ctx, task.Spec.Restore.RestoreID)
	if err != nil {
		return err
	}
	defer end()
	entry, found, err := r.journal.Get(tag)
	if err != nil {
		return err
	}
	if !found {
		entry = Entry{Tag: tag, Restore: &RestoreEntry{ID: task.Spec.Restore.RestoreID}}
	}
	entry, warnings, err := r.inherit(ctx, entry)
	report.WarnAll(reasonPutBack, warnings)
	if err != nil {
		return err
	}
	run := &restoreRun{restore: r, spec: task.Spec.Restore, report: report, entry: entry}
	if entry.Restore.Result == nil {
		err = r.repositories.with(ctx, task.Spec.Repository, func(repository *image.Repository) error {
			run.repository = repository
			return run.all(ctx)
		})
	}
	switch {
	case run.entry.Restore.Result != nil: // whatever was wrong after that takes nothing from it
		return run.finish(ctx)
	case stopping(ctx), errors.Is(err, ErrClaimLost):
		return err
	}
	lasting, done := committed(ctx)
	defer done()
	undoing, cancel := context.WithTimeout(lasting, undoTimeout)
	defer cancel()
	report.TryStep(undoing, "Undo")
	warnings, undoErr := r.undo(undoing, run.entry)
	report.WarnAll(reasonPutBack, warnings)
	return errors.Join(err, undoErr)
}

func (r *restoreRun) all(ctx context.Context) error {
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"Open", r.open},
		{"Plan", r.plan},
		{"Space", r.space},
		{"Write", r.write},
		{"Register", r.register},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.report.Step(ctx, step.name); err != nil {
			return err
		}
		if err := step.do(ctx); err != nil {
			return err
		}
	}
	return nil
}

// open reads what the image says of itself and of the virtual machine.
func (r *restoreRun) open(ctx context.Context) error {
	var err error
	if r.image, err = r.find(ctx); err != nil {
		return err
	}
	if err := allowed(r.spec, r.image.Manifest()); err != nil {
		return err
	}
	file, err := r.image.File(ctx, definitionFile)
	if err != nil {
		return fmt.Errorf("read the virtual machine's definition: %w", err)
	}
	text, err := io.ReadAll(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("read the virtual machine's definition: %w", err)
	}
	if err := json.Unmarshal(text, &r.definition); err != nil {
		return stall(v1alpha1.ReasonDamaged, fmt.Errorf("read the virtual machine's definition: %w", err))
	}
	manifest := r.image.Manifest()
	for _, disk := range manifest.Excluded {
		r.report.Warn("DiskNotInImage", "Disk %s is not restored, for the image does not have it: %s", disk.Key, disk.Reason)
	}
	r.report.Note("The image of %s was taken at %s, with %d disks.", manifest.VM.Name, manifest.TakenAt.UTC().Format(time.RFC3339), len(manifest.Disks))
	return nil
}

// find opens the image that was recorded. Without a record its id must say which one it is: whoever adds images can give an id to several.
func (r *restoreRun) find(ctx context.Context) (*image.Image, error) {
	if r.spec.VirtualMachineID != "" {
		return r.repository.Match(ctx, r.spec.ImageID, r.spec.VirtualMachineID, r.spec.Digest)
	}
	found, err := r.repository.Images(ctx, image.ImageFilter{ID: r.spec.ImageID})
	if err == nil && len(found) > 1 {
		return nil, stall(v1alpha1.ReasonImageNotFound, fmt.Errorf("%d images have the id %s: import the catalog, and name the BackupImage", len(found), r.spec.ImageID))
	}
	if err != nil {
		return nil, err
	}
	return r.repository.Image(ctx, r.spec.ImageID)
}

// allowed says whether a restore may have an image that it names by its id: a repository may serve many namespaces.
func allowed(spec *v1alpha1.RestoreTask, manifest image.Manifest) error {
	if spec.Namespace == "" || manifest.Annotations[annotationNamespace] == spec.Namespace {
		return nil
	}
	return stall(v1alpha1.ReasonImageOfAnotherNamespace,
		fmt.Errorf("image %s was not taken for namespace %s: restore it from the namespace that it was taken for", manifest.ID, spec.Namespace))
}

// plan decides where each disk goes, and journals it.
func (r *restoreRun) plan(ctx context.Context) error {
	var err error
	if r.records, err = recovery.Select(r.image.Manifest().Disks, r.spec.Disks); err != nil {
		return stall(reasonDiskNotInImage, err)
	}
	planned := r.entry.Restore.Files != nil
	if !planned {
		if r.spec.Overwrite == v1alpha1.OverwriteReplace {
			err = r.planInPlace(ctx)
		} else {
			err = r.planNew(ctx)
		}
		switch {
		case err != nil:
		case r.spec.Blocks == v1alpha1.BlocksChanged:
			err = r.planRollBack(ctx)
		case len(r.spec.Disks) > 0:
			r.entry.Restore.NotImported = "only some disks are restored"
		default:
			err = r.planImport(ctx)
		}
		if err == nil {
			err = r.planTree(ctx)
		}
		r.entry.Restore.State = restoredState(r.spec.State, r.image.Manifest().Annotations)
		if err != nil {
			return err
		}
	}
	r.name = r.targetName()
	for i, record := range r.records {
		source, err := r.image.Disk(ctx, record.Key)
		if err != nil {
			return err
		}
		disk := restoredDisk{record: record, source: source, path: r.entry.Restore.Files[i], id: uuid.New()}
		if id, err := uuid.Parse(record.VirtualDiskID); err == nil && r.spec.Overwrite == v1alpha1.OverwriteReplace {
			disk.id = id
		}
		r.disks = append(r.disks, disk)
	}
	if planned {
		r.report.Note("An earlier run planned this already.")
		return nil
	}
	return r.journal.Put(r.entry)
}

func (r *restoreRun) targetName() string {
	if r.spec.Overwrite == v1alpha1.OverwriteReplace || r.spec.Name == "" {
		return r.definition.Name
	}
	return r.spec.Name
}

// planNew puts everything into a new folder, which must not be there yet.
func (r *restoreRun) planNew(ctx context.Context) error {
	parent := r.spec.Folder
	if parent == "" {
		parent = defaultFolder(r.definition)
	}
	if parent == "" {
		return stall("FolderUnknown", errors.New("the image does not say where its disks were: name target.folder"))
	}
	folder := strings.TrimRight(parent, `\`) + `\` + recovery.FileName(r.targetName())
	_, err := r.files.Stat(ctx, folder)
	switch {
	case err == nil:
		return stall("FolderTaken", fmt.Errorf("%s exists on the host: choose another target.name or target.folder, or remove it", folder))
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look at %s: %w", folder, err)
	}
	r.entry.Restore.Folder = folder
	r.entry.Restore.Staging = folder + `\hyperkeep`
	r.entry.Restore.Files = diskFiles(folder, r.records)
	return nil
}

// planInPlace puts each disk beside the one that it replaces.
func (r *restoreRun) planInPlace(ctx context.Context) error {
	vm, err := r.host.VM(ctx, r.image.Manifest().VM.ID)
	if err != nil {
		return err
	}
	files, taken := []string{}, map[string]bool{}
	for _, record := range r.records {
		replaced := record.SourcePath
		if present, found := vm.Disk(record.Key); found && present.Path != "" {
			replaced = present.Path
		}
		files = append(files, beside(replaced, r.entry.Tag, ".vhdx", taken))
	}
	r.entry.VirtualMachineID, r.entry.Restore.Files = vm.ID, files
	r.entry.Restore.Staging = vm.Folder + `\hyperkeep-` + shortTag(r.entry.Tag)
	return nil
}

// write makes the disk files. Where a run that was killed came to a checkpoint, it goes on from there.
func (r *restoreRun) write(ctx context.Context) error {
	if r.entry.Restore.Written {
		r.report.Note("An earlier run wrote the disks already.")
		return nil
	}
	switch {
	case r.entry.Restore.Beneath != nil:
		return r.writeRollBack(ctx)
	case r.tree() != nil:
		return r.writeTree(ctx)
	}
	return r.writeDisks(ctx)
}

// writeDisks makes a file of each disk as it was when the image was taken, with everything that it had beneath.
func (r *restoreRun) writeDisks(ctx context.Context) error {
	if err := r.dropTree(ctx, r.entry.Restore); err != nil { // that was given up
		return err
	}
	var total int64
	for i := range r.disks {
		data, _, err := recovery.Needs(r.disks[i].source, recovery.VHDX)
		if err != nil {
			return err
		}
		total += data
	}
	stop := r.report.Progress(ctx, func() (int64, int64, int64) { return total, r.written.Load(), 0 })
	defer stop()
	made := r.entry.Restore
	if len(made.Finished) != len(r.disks) {
		made.Finished = make([]extent.List, len(r.disks))
	}
	for i := range r.disks {
		if n := made.Finished[i].Bytes(); n > 0 {
			r.report.Note("An earlier run finished %s of %s already.", humanize.IBytes(uint64(n)), r.disks[i].path)
		}
		save := func(finished extent.List) error {
			made.Finished[i] = finished
			return r.journal.Put(r.entry)
		}
		if err := r.disks[i].write(ctx, r.files, made.Finished[i], &r.written, save); err != nil {
			return err
		}
		if err := save(extent.List{{Length: r.disks[i].record.Size}}); err != nil {
			return err
		}
	}
	if err := r.stage(ctx); err != nil {
		return err
	}
	made.Written = true
	return r.journal.Put(r.entry)
}

// undo takes back what a restore made, as far as it came. What is gone already is no error. The warnings are about an original that was put back.
func (r *restore) undo(ctx context.Context, entry Entry) ([]string, error) {
	made := entry.Restore
	warnings, err := r.takeBack(ctx, made)
	if err != nil {
		return warnings, fmt.Errorf("take the restore back: %w", err)
	}
	for _, file := range made.Files {
		err = errors.Join(err, r.files.Remove(ctx, file))
	}
	err = errors.Join(err, r.dropTree(ctx, made))
	if made.Exchange != nil {
		err = errors.Join(err, r.host.DropAside(ctx, *made.Exchange))
	}
	err = errors.Join(err, r.unstage(ctx, made))
	if made.Folder != "" {
		err = errors.Join(err, r.files.Remove(ctx, made.Folder))
	}
	if err != nil {
		return warnings, fmt.Errorf("take the restore back: %w", err)
	}
	return warnings, r.journal.Delete(entry.Tag)
}
