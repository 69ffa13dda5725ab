package service

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/windows"
)

// The names beside the service's program of one that is to replace it, and of one that was replaced.
const (
	freshProgram    = "agent-*.new"
	replacedProgram = "agent-*.old"
)

// programPath is where the service's program lies.
func programPath() (string, error) {
	folder, err := windows.KnownFolderPath(windows.FOLDERID_ProgramFiles, windows.KF_FLAG_DEFAULT)
	if err != nil {
		return "", fmt.Errorf("find %%ProgramFiles%%: %w", err)
	}
	return filepath.Join(folder, Name, "agent.exe"), nil
}

// program is the service's program while another takes its place. Windows neither replaces nor removes the file of a program that runs, and others than the
// service may run it, such as what makes its shadow copies; but such a file can be renamed.
type program struct {
	path  string
	fresh string // beside it, the one to come; "" when it is the same
	old   string // beside it, the one that was replaced; "" before
}

// stageProgram copies a program to where only administrators may replace it, beside the service's.
func stageProgram(from string) (*program, error) {
	path, err := programPath()
	if err != nil {
		return nil, err
	}
	p := &program{path: path}
	if strings.EqualFold(from, path) {
		return p, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("copy the program: %w", err)
	}
	removeBeside(path, freshProgram) // of an installation that was ended
	if p.fresh, err = copyBeside(from, path); err != nil {
		return nil, fmt.Errorf("copy the program: %w", err)
	}
	return p, nil
}

// copyBeside copies a file into the folder of another, under a name of its own.
func copyBeside(from, path string) (string, error) {
	source, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer source.Close() //nolint:errcheck // read only
	fresh, err := os.CreateTemp(filepath.Dir(path), freshProgram)
	if err != nil {
		return "", err
	}
	_, err = io.Copy(fresh, source)
	if err := errors.Join(err, fresh.Sync(), fresh.Close()); err != nil {
		return "", errors.Join(err, os.Remove(fresh.Name()))
	}
	return fresh.Name(), nil
}

// swap has the new program take the place of the one that is there. After an error revert is to be called.
func (p *program) swap() error {
	if p.fresh == "" {
		return nil
	}
	old := strings.TrimSuffix(p.fresh, filepath.Ext(p.fresh)) + filepath.Ext(replacedProgram)
	switch err := os.Rename(p.path, old); {
	case err == nil:
		p.old = old
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("set the old program aside: %w", err)
	}
	if err := os.Rename(p.fresh, p.path); err != nil {
		return fmt.Errorf("put the new program in its place: %w", err)
	}
	return nil
}

// revert brings the program back that was replaced. Without one it does nothing.
func (p *program) revert() error {
	if p.old == "" {
		return nil
	}
	if err := os.Rename(p.path, p.fresh); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("take the new program away: %w", err)
	}
	if err := os.Rename(p.old, p.path); err != nil {
		return fmt.Errorf("bring the old program back: %w; it is %s", err, p.old)
	}
	p.old = ""
	return nil
}

// removeReplaced removes programs that were replaced. One that still runs stays until the next time.
func removeReplaced() {
	if path, err := programPath(); err == nil {
		removeBeside(path, replacedProgram)
	}
}

func removeBeside(path string, patterns ...string) {
	for _, pattern := range patterns {
		found, _ := filepath.Glob(filepath.Join(filepath.Dir(path), pattern)) // the patterns are right
		for _, name := range found {
			_ = os.Remove(name) // it runs
		}
	}
}

// removeProgram removes the service's program, unless it is what runs.
func removeProgram(out io.Writer) error {
	path, err := programPath()
	if err != nil {
		return err
	}
	if self, err := os.Executable(); err == nil && strings.EqualFold(self, path) {
		fmt.Fprintf(out, "Remove %s by hand: it is what runs.\n", filepath.Dir(path))
		return nil
	}
	removeBeside(path, freshProgram, replacedProgram)
	for _, name := range []string{path, filepath.Dir(path)} {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the program: %w; if something still runs it, try again when that has ended", err)
		}
	}
	return nil
}
