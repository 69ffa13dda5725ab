package site

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// Binaries are the paths of the programs.
type Binaries struct {
	Manager, Agent string
}

// Build compiles the programs into dir, from the checkout that the working directory lies in. Go's build cache makes it quick when nothing changed; how
// a long one goes on is shown on progress.
func Build(ctx context.Context, dir string, progress io.Writer) (Binaries, error) {
	root, err := Checkout()
	if err != nil {
		return Binaries{}, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return Binaries{}, err
	}
	built := Binaries{Manager: filepath.Join(dir, "manager"), Agent: filepath.Join(dir, "agent")}
	for _, path := range []string{built.Manager, built.Agent} {
		if err := compile(ctx, root, path, filepath.Base(path), progress, nil); err != nil {
			return Binaries{}, err
		}
	}
	return built, nil
}

// BuildForWindows compiles the agent for Windows into a file, with further flags of go build.
func BuildForWindows(ctx context.Context, exe string, progress io.Writer, flags ...string) error {
	root, err := Checkout()
	if err != nil {
		return err
	}
	return compile(ctx, root, exe, "agent", progress, []string{"GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0"}, flags...)
}

func compile(ctx context.Context, root, path, command string, progress io.Writer, environment []string, flags ...string) error {
	args := append([]string{"compiling " + filepath.Base(path), "go", "build", "-v", "-o", path}, flags...)
	build := exec.CommandContext(ctx, filepath.Join(root, "hack", "progress.sh"), append(args, "./cmd/"+command)...)
	build.Dir, build.Env = root, append(os.Environ(), environment...)
	build.Stdout, build.Stderr = progress, progress
	if err := build.Run(); err != nil {
		return fmt.Errorf("compile %s: %w", filepath.Base(path), err)
	}
	return nil
}

// Checkout returns the top folder of the checkout that the working directory lies in.
func Checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("the working directory lies in no checkout of Hyperkeep")
		}
		dir = parent
	}
}
