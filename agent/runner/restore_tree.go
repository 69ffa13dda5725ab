package runner

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/agent/image"
	"github.com/hyperkeep/hyperkeep/agent/recovery"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// The checkpoints of a virtual machine's user are restored as the tree that they were (EZ-07): all files of the tree are written, each disk file names the one
// beneath it where that is now, and Hyper-V imports the checkpoints with the machine, whose disks are the files at the end of the tree. Where that cannot be, the
// disks are restored as they were when the image was taken, and the status says why there are no checkpoints.

// reasonCheckpoints is a warning about checkpoints that are in the image, and not restored.
const reasonCheckpoints = "CheckpointsNotRestored"

// tree is what the restore does with the image's tree: nil where it has none, or none any more.
func (r *restoreRun) tree() *TreeEntry {
	if tree := r.entry.Restore.Tree; tree != nil && tree.Refused == "" {
		return tree
	}
	return nil
}

// targetTree is the tree as Hyper-V imports it.
func (r *restoreRun) targetTree() *hyperv.TargetTree {
	tree := r.tree()
	if tree == nil {
		return nil
	}
	target := &hyperv.TargetTree{Folder: tree.Folder}
	r.eachTreeDisk(func(file TreeFile) { target.Disks = append(target.Disks, file.MovedFile) })
	return target
}

// eachTreeDisk goes through the disk files of the tree that is restored, if there is one.
func (r *restoreRun) eachTreeDisk(do func(TreeFile)) {
	if tree := r.tree(); tree != nil {
		for _, file := range tree.Disks {
			do(file)
		}
	}
}

// planTree decides whether the image's tree is restored, and where its files go. Single disks are restored without.
func (r *restoreRun) planTree(ctx context.Context) error {
	held, err := r.heldTree(ctx)
	if err != nil || held == nil || len(r.spec.Disks) > 0 {
		return err
	}
	made := r.entry.Restore
	made.Tree = &TreeEntry{Checkpoints: held.Checkpoints}
	if made.NotImported != "" {
		r.refuseTree(made.NotImported)
		return nil
	}
	tree, reason, err := r.placeTree(ctx, held)
	if err != nil {
		return err
	}
	if reason != "" {
		r.refuseTree(reason)
		return nil
	}
	files := slices.Clone(made.Files)
	for i, record := range r.records {
		at := slices.IndexFunc(tree.Disks, func(f TreeFile) bool { return strings.EqualFold(f.From, record.SourcePath) })
		if at < 0 {
			r.refuseTree(fmt.Sprintf("the image has no file of its own for disk %s", record.Key))
			return nil
		}
		files[i] = tree.Disks[at].To
	}
	made.Tree, made.Files = tree, files
	return nil
}

// placeTree decides where the files of a tree go, or says why it cannot be restored.
func (r *restoreRun) placeTree(ctx context.Context, held *checkpointTree) (tree *TreeEntry, reason string, err error) {
	tree = &TreeEntry{Checkpoints: held.Checkpoints, Folder: r.entry.Restore.Staging + `\checkpoints`}
	taken := map[string]bool{}
	for _, member := range held.Files {
		file := TreeFile{Name: member.Name, Size: member.Size, MovedFile: hyperv.MovedFile{From: member.Path}}
		switch strings.ToLower(extension(member.Path)) {
		case ".vhdx", ".avhdx":
			if file.To, err = r.besides(ctx, member.Path, taken); err != nil {
				return nil, "", err
			}
			tree.Disks = append(tree.Disks, file)
		case ".vhd", ".avhd", ".vhds":
			return nil, fmt.Sprintf("%s is in a format that checkpoints are not restored in", member.Path), nil
		default:
			file.To = tree.Folder + `\` + recovery.FileName(strings.TrimSuffix(member.Name, treeSuffix))
			tree.Config = append(tree.Config, file)
		}
	}
	return tree, "", nil
}

// refuseTree has the disks restored without their checkpoints.
func (r *restoreRun) refuseTree(reason string) {
	tree := r.entry.Restore.Tree
	tree.Refused = cut(reason, 1024)
	r.report.Warn(reasonCheckpoints, "checkpoints: restored 0 of %d, %s", len(tree.Checkpoints), tree.Refused)
}

// heldTree reads what the image says of its tree, nil where it has none.
func (r *restoreRun) heldTree(ctx context.Context) (*checkpointTree, error) {
	content, err := r.image.File(ctx, treeFile)
	if errors.Is(err, image.ErrFileNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the tree of checkpoints: %w", err)
	}
	text, err := io.ReadAll(content)
	held := &checkpointTree{}
	if err = errors.Join(err, content.Close()); err != nil {
		return nil, fmt.Errorf("read the tree of checkpoints: %w", err)
	}
	if err := json.Unmarshal(text, held); err != nil {
		return nil, stall(v1alpha1.ReasonDamaged, fmt.Errorf("read the tree of checkpoints: %w", err))
	}
	if len(held.Checkpoints) == 0 {
		return nil, nil
	}
	return held, nil
}

// besides is where a disk file of the tree goes: into the new folder, or beside the place that it had, if that is still there.
func (r *restoreRun) besides(ctx context.Context, path string, taken map[string]bool) (string, error) {
	made, name := r.entry.Restore, recovery.FileName(baseName(path))
	if made.Folder != "" {
		return made.Folder + `\` + uniqueName(name, false, taken), nil
	}
	folder := strings.TrimSuffix(path, baseName(path))
	if _, err := r.files.Stat(ctx, folder); errors.Is(err, fs.ErrNotExist) {
		folder = strings.TrimSuffix(made.Files[0], baseName(made.Files[0]))
	} else if err != nil {
		return "", fmt.Errorf("look at %s: %w", folder, err)
	}
	return beside(folder+name, r.entry.Tag, extension(name), taken), nil
}

// writeTree copies all files of the tree, where a run that was killed came to an end of one, and ties the disk files together.
func (r *restoreRun) writeTree(ctx context.Context) error {
	tree := r.tree()
	var total int64
	r.eachTreeDisk(func(file TreeFile) { total += file.Size })
	stop := r.report.Progress(ctx, func() (int64, int64, int64) { return total, r.written.Load(), 0 })
	defer stop()
	for i, file := range tree.Disks {
		if i < tree.Done {
			continue
		}
		if err := r.stageFile(ctx, file.Name, file.To); err != nil {
			return fmt.Errorf("write %s: %w", file.To, err)
		}
		r.written.Add(file.Size)
		tree.Done = i + 1
		if err := r.journal.Put(r.entry); err != nil {
			return err
		}
	}
	err := r.host.LinkTree(ctx, r.targetTree().Disks)
	if errors.Is(err, hyperv.ErrDiskMismatch) {
		return r.giveTreeUp(ctx, err)
	}
	if err != nil {
		return err
	}
	for _, file := range tree.Config {
		if err := r.stageFile(ctx, file.Name, file.To); err != nil {
			return fmt.Errorf("write %s: %w", file.To, err)
		}
	}
	if err := r.stage(ctx); err != nil {
		return err
	}
	r.report.Note("Wrote the %d files of %d checkpoints, %s.", len(tree.Disks), len(tree.Checkpoints), humanize.IBytes(uint64(total)))
	r.entry.Restore.Written = true
	return r.journal.Put(r.entry)
}

// giveTreeUp restores the disks as they were when the image was taken, in place of the tree, if there is one.
func (r *restoreRun) giveTreeUp(ctx context.Context, reason error) error {
	if r.tree() == nil {
		return nil
	}
	made := r.entry.Restore
	r.refuseTree(reason.Error())
	if made.Folder != "" {
		made.Files = diskFiles(made.Folder, r.records)
	} else {
		for i, file := range made.Files {
			made.Files[i] = strings.TrimSuffix(file, extension(file)) + ".vhdx"
		}
	}
	for i := range r.disks {
		r.disks[i].path = made.Files[i]
	}
	made.Written, made.Finished, made.Warnings = false, nil, nil
	if err := r.journal.Put(r.entry); err != nil {
		return err
	}
	if err := r.dropTree(ctx, made); err != nil {
		return err
	}
	r.written.Store(0)
	if err := r.space(ctx); err != nil {
		return err
	}
	return r.writeDisks(ctx)
}

// dropTree deletes the files of a tree. What is gone already is no error.
func (r *restore) dropTree(ctx context.Context, made *RestoreEntry) error {
	if made.Tree == nil {
		return nil
	}
	err := r.unstageTree(ctx, made)
	for _, file := range made.Tree.Disks {
		err = errors.Join(err, r.files.Remove(ctx, file.To))
	}
	return err
}

// unstageTree deletes the configuration files of checkpoints, of which Hyper-V has its own when they are imported.
func (r *restore) unstageTree(ctx context.Context, made *RestoreEntry) error {
	if made.Tree == nil || made.Tree.Folder == "" {
		return nil
	}
	var err error
	for _, file := range made.Tree.Config {
		err = errors.Join(err, r.files.Remove(ctx, file.To))
	}
	return errors.Join(err, r.files.Remove(ctx, made.Tree.Folder))
}

// restoredCheckpoints compares the checkpoints of the restored virtual machine with those of the image, by their names and those of their parents.
func (r *restoreRun) restoredCheckpoints(vm hyperv.VM) *v1alpha1.RestoredCheckpoints {
	tree := r.entry.Restore.Tree
	if tree == nil {
		return nil
	}
	out := &v1alpha1.RestoredCheckpoints{InImage: int32(len(tree.Checkpoints)), Reason: tree.Refused}
	present := places(vm.Checkpoints)
	var lost []string
	for place, names := range places(tree.Checkpoints) {
		n := min(len(names), len(present[place]))
		out.Restored += int32(n)
		lost = append(lost, names[n:]...)
	}
	if len(lost) > 0 && out.Reason == "" {
		slices.Sort(lost)
		out.Reason = cut("Hyper-V did not import, or not in their place: "+strings.Join(lost, ", "), 1024)
		r.report.Warn(reasonCheckpoints, "checkpoints: restored %d of %d, %s", out.Restored, out.InImage, out.Reason)
	}
	return out
}

// places are the names of checkpoints, by their own and their parents'. Several may have one name.
func places(nodes []hyperv.CheckpointNode) map[[2]string][]string {
	names := map[string]string{}
	for _, node := range nodes {
		names[node.ID] = node.Name
	}
	out := map[[2]string][]string{}
	for _, node := range nodes {
		place := [2]string{node.Name, names[node.Parent]}
		out[place] = append(out[place], node.Name)
	}
	return out
}
