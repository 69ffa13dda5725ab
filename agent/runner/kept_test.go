package runner

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"

	"github.com/hyperkeep/hyperkeep/agent/image"
)

// A steady probe opens nothing: the key is derived from the password once. What is no longer the same repository is not taken for it.
func TestRepositoriesStayOpen(t *testing.T) {
	clk := clocktesting.NewFakeClock(time.Now())
	kept := NewKept(clk)
	path, work := filepath.Join(t.TempDir(), "repository"), t.TempDir()
	opens := 0
	use := func(access string) error {
		return kept.Use(t.Context(), "main", access, func() (*image.Repository, error) {
			opens++
			where := image.Location{Filesystem: &image.FilesystemLocation{Path: path}}
			if opens == 1 {
				return image.OpenOrCreate(t.Context(), where, "password", image.Options{WorkDir: work})
			}
			return image.Open(t.Context(), where, "password", image.Options{WorkDir: work})
		}, func(r *image.Repository) error {
			if left, _ := os.ReadDir(work); len(left) > 0 {
				t.Errorf("a process that is killed would leave %v", left)
			}
			_, err := r.Stats(t.Context())
			return err
		})
	}
	for _, step := range []struct {
		why    string
		before func()
		access string
		opens  int
		fails  error
	}{
		{why: "the first time", access: "a", opens: 1},
		{why: "again", access: "a", opens: 1},
		{why: "with another credential", access: "b", opens: 2},
		{why: "again with that", access: "b", opens: 2},
		{why: "when the folder is no longer mounted", access: "b", opens: 3, fails: image.ErrNoRepository, before: func() {
			if err := os.Rename(path, path+".away"); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		if step.before != nil {
			step.before()
		}
		if err := use(step.access); !errors.Is(err, step.fails) {
			t.Errorf("%s: %v", step.why, err)
		}
		if opens != step.opens {
			t.Errorf("%s: opened %d times, want %d", step.why, opens, step.opens)
		}
	}
	if err := kept.Close(t.Context()); err != nil {
		t.Error(err)
	}
}
