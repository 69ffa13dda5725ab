package runner

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/hyperkeep/hyperkeep/agent/hyperv"
	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// treeFile is the file of an image that describes the virtual machine's tree of checkpoints (EZ-07). The files that the tree is made of have treeSuffix
// behind their names, so that nobody takes the configuration of a checkpoint for that of the machine.
const (
	treeFile   = "checkpoints.json"
	treeSuffix = ".tree"
)

// checkpointTree is the content of treeFile.
type checkpointTree struct {
	// Checkpoints are those of the machine's user, each with the id of its parent.
	Checkpoints []hyperv.CheckpointNode `json:"checkpoints"`
	// Files are the disks and configuration files of the tree, as they lay on the host. The disks in the image are what the machine has now.
	Files []treeMember `json:"files"`
}

type treeMember struct {
	// Name is the file's in the image, Path where it lay on the host.
	Name string `json:"name"`
	Path string `json:"path"`
	Size int64  `json:"size"`
}

// configuration lists the files that belong to the image besides the disks, by the names that they get in it.
func (r *backupRun) configuration(ctx context.Context) ([]hyperv.ConfigFile, error) {
	if r.method.name != v1alpha1.MethodVSS {
		return r.host.ConfigurationFiles(ctx, r.checkpoint)
	}
	tree := checkpointTree{Checkpoints: []hyperv.CheckpointNode{}, Files: []treeMember{}}
	for _, node := range r.vm.Checkpoints {
		if node.Kind == hyperv.CheckpointUser {
			tree.Checkpoints = append(tree.Checkpoints, node)
		}
	}
	out := make([]hyperv.ConfigFile, 0, len(r.companions))
	taken := map[string]bool{definitionFile: true, treeFile: true}
	for _, file := range r.companions {
		own := strings.HasPrefix(strings.ToUpper(file.Name), r.vm.ID+".")
		member := len(tree.Checkpoints) > 0 && !own
		file.Name = uniqueName(file.Name, member, taken)
		if member {
			tree.Files = append(tree.Files, treeMember{Name: file.Name, Path: file.Source, Size: file.Size})
		}
		out = append(out, file)
	}
	if len(tree.Checkpoints) == 0 {
		return out, nil
	}
	text, err := json.MarshalIndent(tree, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("describe the checkpoints: %w", err)
	}
	return out, r.writer.AddFile(ctx, treeFile, bytes.NewReader(text))
}

// uniqueName is the name of a file in the image: files of several folders may have one name.
func uniqueName(name string, member bool, taken map[string]bool) string {
	suffix := ""
	if member {
		suffix = treeSuffix
	}
	unique := name + suffix
	for n := 2; taken[strings.ToLower(unique)]; n++ {
		unique = fmt.Sprintf("%d-%s%s", n, name, suffix)
	}
	taken[strings.ToLower(unique)] = true
	return unique
}
