package runner

import (
	"context"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/recovery"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// register makes Hyper-V know the restored disks: as a new virtual machine, or in place of the original's.
func (r *restoreRun) register(ctx context.Context) error {
	if err := r.claim.Check(ctx); err != nil {
		return err
	}
	if r.spec.Overwrite == v1alpha1.OverwriteReplace {
		return r.replace(ctx)
	}
	if len(r.spec.Disks) > 0 {
		return r.succeeded(&hyperv.Restored{}, v1alpha1.RestoreFiles)
	}
	imported, err := r.importNew(ctx)
	if err != nil {
		return err
	}
	if imported != nil {
		return r.succeeded(imported, v1alpha1.RestoreImport)
	}
	defined, err := r.host.DefineVM(ctx, r.definition, r.newTarget())
	if err != nil {
		return err
	}
	return r.succeeded(&defined, v1alpha1.RestoreDefine)
}

// newTarget is a new virtual machine as the restore makes it.
func (r *restoreRun) newTarget() hyperv.RestoreTarget {
	return hyperv.RestoreTarget{
		Name: r.name, Folder: r.entry.Restore.Folder, Disks: r.targetDisks(), Tree: r.targetTree(), Tag: r.entry.Restore.ID, Switches: r.switches(),
		Warned: r.warned,
	}
}

// Reasons of the warnings about what Hyper-V made of a virtual machine: of the restored one, and of the original that was put back.
const (
	reasonDifferent = "RestoredDifferently"
	reasonPutBack   = "PutBackDifferently"
)

// succeeded journals the result: from now on nothing is taken back, and nothing is done again.
func (r *restoreRun) succeeded(made *hyperv.Restored, method v1alpha1.RestoreMethod) error {
	r.report.WarnAll(reasonDifferent, r.entry.Restore.Warnings) // those of an import, whoever made it, or only tried it
	r.report.WarnAll(reasonDifferent, made.Warnings)
	r.entry.Restore.Result = &v1alpha1.RestoredVirtualMachine{
		ID: strings.ToLower(made.VM.ID), Name: made.VM.Name, Paths: r.entry.Restore.paths(), WrittenBytes: r.written.Load(), ComparedBytes: r.compared.Load(),
		Method: method, MethodReason: cut(r.entry.Restore.NotImported, 1024), Checkpoints: r.restoredCheckpoints(made.VM),
	}
	if err := r.journal.Put(r.entry); err != nil {
		r.entry.Restore.Result = nil
		return err
	}
	return nil
}

func (r *restoreRun) targetDisks() []hyperv.TargetDisk {
	var disks []hyperv.TargetDisk
	for i := range r.disks {
		disks = append(disks, hyperv.TargetDisk{Key: r.disks[i].record.Key, Path: r.disks[i].path})
	}
	return disks
}

// finish reports the result, and only then lets the replaced disks go. It may be called again after a crash, with nothing but the journal.
func (r *restoreRun) finish(ctx context.Context) error {
	ctx, end := committed(ctx)
	defer end()
	r.report.TryStep(ctx, "Finish")
	err := r.finishReplaced(ctx, r.entry.Restore)
	merging := err != nil && r.entry.Restore.Beneath != nil
	switch {
	case merging:
		r.report.Warn("DisksNotMerged", "The restore succeeded; what was rewritten lies in files of its own above the disks, and is merged later: %v.", err)
	case err != nil:
		r.report.Warn("ReplacedDisksRemain", "The restore succeeded; what it replaced could not be deleted: %v.", err)
	}
	if err := r.unstage(ctx, r.entry.Restore); err != nil {
		r.report.Warn("ConfigurationFilesRemain", "The restore succeeded; the files in %s could not be deleted: %v.", r.entry.Restore.Staging, err)
	}
	if r.entry.Restore.Result.Method != v1alpha1.RestoreFiles {
		if err := r.host.DropMark(ctx, r.entry.Restore.Result.ID, r.entry.Restore.ID); err != nil {
			r.report.Warn("MarkRemains", "The restore succeeded; its mark could not be taken out of the virtual machine's notes: %v.", err)
		}
		r.bringToState(ctx, !merging)
	}
	if err := r.report.Restored(ctx, *r.entry.Restore.Result); err != nil {
		return err
	}
	if merging {
		return nil // the sweeper finds it in the journal
	}
	if err := r.journal.Delete(r.entry.Tag); err != nil {
		r.report.Warn("JournalRemains", "%v; the agent clears it later.", err)
	}
	return nil
}

// defaultFolder is where the original's folder lay: two levels above its first disk.
func defaultFolder(definition hyperv.Definition) string {
	for _, disk := range definition.Disks {
		if disk.Kind != hyperv.DiskVHDX {
			continue
		}
		folder := parentFolder(disk.Path)
		if above := parentFolder(folder); above != "" {
			return above
		}
		return folder
	}
	return ""
}

// diskFiles are the files of a new virtual machine in its folder.
func diskFiles(folder string, disks []image.DiskRecord) []string {
	files := recovery.DiskFiles(disks, recovery.VHDX)
	for i, name := range files {
		files[i] = folder + `\` + name
	}
	return files
}
