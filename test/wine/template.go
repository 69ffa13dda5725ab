package wine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/hyperkeep/hyperkeep/test/tool"
)

// template returns the folder of a prefix that was set up and that no program runs in.
func template(ctx context.Context) (string, error) {
	version, err := tool.Run(ctx, "wine", "--version")
	if err != nil {
		return "", err
	}
	settings, err := sources.ReadFile("shim/" + registry)
	if err != nil {
		return "", err
	}
	return cached(ctx, "prefix-"+hash(version, string(settings)), func(ctx context.Context, dir string) error {
		if err := setUp(ctx, dir, settings); err != nil {
			// Whatever runs in it would keep a folder open that is about to be removed.
			_ = inPrefix(ctx, dir, "wineserver", "-k").Run()
			return err
		}
		return nil
	})
}

// setUp makes a prefix in an empty folder.
func setUp(ctx context.Context, dir string, settings []byte) error {
	file := filepath.Join(dir, registry)
	if err := os.WriteFile(file, settings, 0o644); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"wine", "wineboot", "-i"},
		{"wine", "regedit", "/S", file},
		{"wineserver", "-w"}, // the registry is written when the last program has ended
	} {
		cmd := inPrefix(ctx, dir, args...)
		// No Mono, no Gecko, no menus: they ask to be downloaded, or write into the user's folders.
		cmd.Env = append(cmd.Env, "WINEDLLOVERRIDES=mscoree=;mshtml=;winemenubuilder.exe=")
		// Not through a pipe: Wine's services inherit the output and outlive the command.
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("set up Wine: %s: %w", strings.Join(args, " "), err)
		}
	}
	return os.Remove(file)
}

// atFixedAddresses has Linux choose no address of a program by chance. Windows has a page of each process at 0x7ffe0000, and Wine is linked to 0x7d000000: the heap
// that follows somewhere within 1 GiB lies on that page in one program of 8000, which then ends with exit status 1 and not a word. Containers may forbid it.
var atFixedAddresses = sync.OnceValue(func() []string {
	command := []string{"setarch", "--addr-no-randomize"}
	if exec.Command(command[0], command[1], "true").Run() != nil {
		return nil
	}
	return command
})

// inPrefix is a command in a prefix, without a screen, and without the user's own settings and folders.
func inPrefix(ctx context.Context, dir string, args ...string) *exec.Cmd {
	if args[0] == "wine" {
		args = slices.Concat(atFixedAddresses(), args)
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = dir
	for _, setting := range os.Environ() {
		name, _, _ := strings.Cut(setting, "=")
		if name != "DISPLAY" && name != "WAYLAND_DISPLAY" && name != "HOME" && name != "XDG_CACHE_HOME" && !strings.HasPrefix(name, "WINE") {
			cmd.Env = append(cmd.Env, setting)
		}
	}
	cmd.Env = append(cmd.Env, "WINEPREFIX="+dir, "HOME="+dir, "WINEDEBUG=-all")
	return cmd
}
