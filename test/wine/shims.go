package wine

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"

	"github.com/hyperkeep/hyperkeep/test/tool"
)

// compiler makes DLLs for 64-bit Windows.
const compiler = "x86_64-w64-mingw32-gcc"

// registry is what a machine's registry has besides Wine's own, so that the stand-ins are found.
const registry = "hyperkeep.reg"

//go:embed shim
var sources embed.FS

// buildShims compiles shim/ and returns the folder with the DLLs. NAME.c, with the NAME_*.c that belong to it and NAME.def if there is one, becomes NAME.dll.
// What was compiled before is found in the cache again.
func buildShims(ctx context.Context) (string, error) {
	version, err := tool.Run(ctx, compiler, "--version")
	if err != nil {
		return "", err
	}
	return cached(ctx, "shims-"+hash(version, allSources()), func(ctx context.Context, dir string) error {
		from := filepath.Join(dir, "src")
		if err := os.CopyFS(from, sources); err != nil {
			return err
		}
		files, err := filepath.Glob(filepath.Join(from, "shim", "*.c"))
		if err != nil {
			return err
		}
		for _, file := range files {
			if name := strings.TrimSuffix(filepath.Base(file), ".c"); !strings.Contains(name, "_") {
				if err := buildShim(ctx, file, filepath.Join(dir, name+".dll")); err != nil {
					return err
				}
			}
		}
		return os.RemoveAll(from)
	})
}

func buildShim(ctx context.Context, source, target string) error {
	base := strings.TrimSuffix(source, ".c")
	parts, err := filepath.Glob(base + "_*.c")
	if err != nil {
		return err
	}
	args := append([]string{"-O2", "-Wall", "-Wextra", "-Werror", "-D_WIN32_WINNT=0x0A00", "-DUNICODE", "-shared", "-s", "-static-libgcc", "-o", target, source}, parts...)
	if _, err := os.Stat(base + ".def"); err == nil {
		args = append(args, base+".def")
	}
	_, err = tool.Run(ctx, compiler, append(args, "-lole32", "-loleaut32", "-luuid", "-ladvapi32", "-lws2_32")...)
	return err
}

// allSources are the texts of all files in shim/, each under its name.
func allSources() string {
	var all strings.Builder
	// Embedded files are there and can be read.
	_ = fs.WalkDir(sources, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := sources.ReadFile(path)
		fmt.Fprintf(&all, "%s %d\n%s", path, len(text), text)
		return err
	})
	return all.String()
}

func hash(parts ...string) string {
	sum := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(sum, "%d\n%s", len(p), p)
	}
	return hex.EncodeToString(sum.Sum(nil))[:16]
}

// cached returns the folder of a name in the cache, which build fills once, whoever asks. Of a kind, the part of the name before the first "-", the last
// few are kept.
func cached(ctx context.Context, name string, build func(ctx context.Context, dir string) error) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	cache = filepath.Join(cache, "hyperkeep", "wine")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	lock := flock.New(filepath.Join(cache, "lock"))
	if err := lock.Lock(); err != nil {
		return "", err
	}
	defer lock.Unlock()
	dir := filepath.Join(cache, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	unfinished := filepath.Join(cache, "unfinished")
	if err := errors.Join(os.RemoveAll(unfinished), os.Mkdir(unfinished, 0o755)); err != nil {
		return "", err
	}
	if err := build(ctx, unfinished); err != nil {
		return "", errors.Join(fmt.Errorf("make %s: %w", name, err), os.RemoveAll(unfinished))
	}
	kind, _, _ := strings.Cut(name, "-")
	return dir, errors.Join(os.Rename(unfinished, dir), dropOldest(cache, kind))
}

// keptInCache is how many checkouts with different shims can be tested in turn without compiling them anew.
const keptInCache = 12

func dropOldest(cache, kind string) error {
	entries, err := filepath.Glob(filepath.Join(cache, kind+"-*"))
	if err != nil || len(entries) <= keptInCache {
		return err
	}
	age := func(path string) int64 {
		info, err := os.Stat(path)
		if err != nil {
			return 0 // gone already
		}
		return info.ModTime().UnixNano()
	}
	slices.SortFunc(entries, func(a, b string) int { return int(min(1, max(-1, age(a)-age(b)))) })
	for _, path := range entries[:len(entries)-keptInCache] {
		err = errors.Join(err, os.RemoveAll(path))
	}
	return err
}
