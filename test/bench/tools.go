package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// tool backs one disk up and restores it. Peers read a raw file that changes between their backups; Hyperkeep reads VHDX files, and is told
// what changed.
type tool struct {
	name string
	// create makes an empty repository. It is not measured.
	create func(ctx context.Context) error
	// backup stores a generation of the disk, 0 first.
	backup func(ctx context.Context, generation int) (usage, error)
	// restore brings the newest generation back as the raw file that it names.
	restore func(ctx context.Context) (usage, string, error)
	// repository is the folder whose size counts.
	repository string
	// version is the command that tells it.
	version []string
}

// programs says where the peers are.
type programs struct{ subject, kopia, restic, borg, qemuImg string }

// hyperkeep is the tool that this is all about.
func hyperkeep(w *workspace, p programs, disk *layered) tool {
	repository, target := w.place("hyperkeep"), w.place("restored.raw")
	return tool{
		name: "hyperkeep", repository: repository,
		create: func(ctx context.Context) error {
			_, _, err := measure(ctx, nil, w.fast, p.subject, "create", repository)
			return err
		},
		backup: func(ctx context.Context, generation int) (usage, error) {
			used, _, err := store(ctx, p, repository, disk, generation)
			return used, err
		},
		restore: func(ctx context.Context) (usage, string, error) {
			used, _, err := measure(ctx, nil, w.fast, p.subject, "restore", repository, image(len(disk.changes)), target)
			return used, target, err
		},
	}
}

func image(generation int) string { return fmt.Sprintf("generation-%d", generation) }

// store has the subject store a generation, and returns what that took and how many bytes it stored.
func store(ctx context.Context, p programs, repository string, disk *layered, generation int) (usage, int64, error) {
	argv := []string{p.subject, "backup"}
	if generation > 0 {
		argv = append(argv, "-base", image(generation-1), "-changes", disk.changes[generation-1])
	}
	argv = append(append(argv, repository, image(generation)), disk.at(generation)...)
	used, out, err := measure(ctx, nil, filepath.Dir(repository), argv...)
	if err != nil {
		return used, 0, err
	}
	stored, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	return used, stored, err
}

// restic runs with its defaults.
func restic(w *workspace, p programs, raw string) tool {
	repository, target := w.place("restic"), w.place("restic-target")
	env := []string{"RESTIC_PASSWORD=benchmark", "RESTIC_CACHE_DIR=" + w.place("restic-cache"), "RESTIC_REPOSITORY=" + repository}
	call := func(ctx context.Context, args ...string) (usage, error) {
		used, _, err := measure(ctx, env, w.fast, append([]string{p.restic, "--quiet"}, args...)...)
		return used, err
	}
	return tool{
		name: "restic", repository: repository, version: []string{p.restic, "version"},
		create: func(ctx context.Context) error { _, err := call(ctx, "init"); return err },
		backup: func(ctx context.Context, _ int) (usage, error) { return call(ctx, "backup", raw) },
		restore: func(ctx context.Context) (usage, string, error) {
			used, err := call(ctx, "restore", "latest", "--sparse", "--target", target)
			return used, filepath.Join(target, raw), err
		},
	}
}

// kopia runs with the chunks and the compressor that Hyperkeep has.
func kopia(w *workspace, p programs, raw string) tool {
	repository, target := w.place("kopia"), w.place("kopia-target")
	env := []string{
		"KOPIA_PASSWORD=benchmark", "KOPIA_CONFIG_PATH=" + w.place("kopia.config"), "KOPIA_CHECK_FOR_UPDATES=false",
		"KOPIA_CACHE_DIRECTORY=" + w.place("kopia-cache"), "KOPIA_LOG_DIR=" + w.place("kopia-log"),
	}
	call := func(ctx context.Context, args ...string) (usage, string, error) {
		return measure(ctx, env, w.fast, append([]string{p.kopia, "--no-progress"}, args...)...)
	}
	return tool{
		name: "kopia", repository: repository, version: []string{p.kopia, "--version"},
		create: func(ctx context.Context) error {
			if _, _, err := call(ctx, "repository", "create", "filesystem", "--path", repository, "--object-splitter", "FIXED-1M"); err != nil {
				return err
			}
			_, _, err := call(ctx, "policy", "set", "--global", "--compression", "zstd-fastest")
			return err
		},
		backup: func(ctx context.Context, _ int) (usage, error) {
			used, _, err := call(ctx, "snapshot", "create", filepath.Dir(raw))
			return used, err
		},
		restore: func(ctx context.Context) (usage, string, error) {
			_, out, err := call(ctx, "snapshot", "list", "--json")
			if err != nil {
				return usage{}, "", err
			}
			var snapshots []struct {
				ID string `json:"id"`
			}
			if err := json.Unmarshal([]byte(out), &snapshots); err != nil || len(snapshots) == 0 {
				return usage{}, "", fmt.Errorf("list kopia's snapshots: %d found: %w", len(snapshots), err)
			}
			used, _, err := call(ctx, "restore", "--write-sparse-files", snapshots[len(snapshots)-1].ID, target)
			return used, filepath.Join(target, filepath.Base(raw)), err
		},
	}
}

// borg runs with its default chunker and its fastest zstd.
func borg(w *workspace, p programs, raw string) tool {
	repository, target := w.place("borg"), w.place("borg-target")
	env := []string{"BORG_PASSPHRASE=benchmark", "BORG_BASE_DIR=" + w.place("borg-base"), "BORG_REPO=" + repository}
	call := func(ctx context.Context, dir string, args ...string) (usage, error) {
		used, _, err := measure(ctx, env, dir, append([]string{p.borg}, args...)...)
		return used, err
	}
	last := ""
	return tool{
		name: "borg", repository: repository, version: []string{p.borg, "--version"},
		create: func(ctx context.Context) error {
			_, err := call(ctx, w.fast, "init", "-e", "repokey-blake2")
			return err
		},
		backup: func(ctx context.Context, generation int) (usage, error) {
			last = "::" + image(generation)
			return call(ctx, w.fast, "create", "--compression", "zstd,1", last, raw)
		},
		restore: func(ctx context.Context) (usage, string, error) {
			if err := os.MkdirAll(target, 0o700); err != nil {
				return usage{}, "", err
			}
			used, err := call(ctx, target, "extract", "--sparse", last)
			return used, filepath.Join(target, raw), err
		},
	}
}

// floor is a program that only copies the disk: what no backup can be faster than.
func floor(name string, w *workspace, argv func(target string) []string) tool {
	target := w.place("floor.copy")
	return tool{
		name:   name,
		create: func(context.Context) error { return nil },
		backup: func(ctx context.Context, generation int) (usage, error) {
			if generation > 0 {
				return usage{}, nil
			}
			used, _, err := measure(ctx, nil, w.fast, argv(target)...)
			return used, err
		},
	}
}
