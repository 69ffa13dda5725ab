package runner

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/api/v1alpha1"
)

// blobs are the files of the repository's blobs whose names start with a prefix.
func (r *rig) blobs(prefix string) (paths []string) {
	r.t.Helper()
	root := filepath.Join(r.dir, "..", "repository")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if rel, _ := filepath.Rel(root, path); err == nil && !entry.IsDir() && strings.HasPrefix(rel, prefix) {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil || len(paths) == 0 {
		r.t.Fatalf("no blob %s: %v", prefix, err)
	}
	return paths
}

// I9: nobody has found the damage before, and the backup that meets it does not fail for it.
func TestABackupStoresAnewWhatItWouldLinkTo(t *testing.T) {
	scramble := func(path string) error {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := range content {
			content[i] ^= 1
		}
		return os.WriteFile(path, content, 0o600)
	}
	for what, c := range map[string]struct {
		blobs  string
		damage func(path string) error
	}{
		"lists and manifests are gone":         {"q", os.Remove},
		"lists and manifests have other bytes": {"q", scramble},
		"data is gone":                         {"p", os.Remove},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			wantSuccess(t, r.do("keeper", "probe", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskProbe}))
			wantSuccess(t, r.backup("first"))
			for _, path := range r.blobs(c.blobs) {
				if err := c.damage(path); err != nil {
					t.Fatal(err)
				}
			}
			second := r.backup("second")
			wantSuccess(t, second)
			if got := second.Status.Image; got.Disks[0].Reason != "BaseDamaged" || len(second.Status.Warnings) != 1 {
				t.Errorf("%+v, %+v", got, second.Status.Warnings)
			}
			wantSuccess(t, r.do("keeper", "verify", v1alpha1.AgentTaskSpec{Kind: v1alpha1.TaskVerify, Image: &v1alpha1.ImageTask{ImageID: "second"}}))
		})
	}
}
