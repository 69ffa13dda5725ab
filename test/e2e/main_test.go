// Package e2e proves the whole line on real processes, a real API server and real disks: from a policy to a restored disk, and what happens when
// something is wrong. The judge is never the code that is judged: shadows that the guests keep, QEMU, the file systems' own tools, libvhdi and kopia.
package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/hyperkeep/hyperkeep/test/controlplane"
	"github.com/hyperkeep/hyperkeep/test/filesystem"
	"github.com/hyperkeep/hyperkeep/test/site"
	"github.com/hyperkeep/hyperkeep/test/tenant"
	"github.com/hyperkeep/hyperkeep/test/tool"
	"github.com/hyperkeep/hyperkeep/test/wine"
)

// shared is the site of all tests, started by the first that needs one.
var shared struct {
	once sync.Once
	dir  string
	site *site.Site
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.site != nil {
		if err := shared.site.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "a process did not live until the end:", err)
			code = 1
		}
	}
	if code == 0 {
		_ = os.RemoveAll(shared.dir)
	} else if shared.dir != "" {
		fmt.Fprintln(os.Stderr, "logs are in", filepath.Join(shared.dir, "logs"))
	}
	os.Exit(code)
}

// startTimeout bounds compiling the programs and starting the site.
const startTimeout = 15 * time.Minute

func startSite() {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	shared.dir, shared.err = os.MkdirTemp("", "hyperkeep-e2e-")
	if shared.err != nil {
		return
	}
	binaries, err := site.Build(ctx, filepath.Join(shared.dir, "bin"), os.Stderr)
	if err != nil {
		shared.err = err
		return
	}
	options := site.Options{
		Dir: shared.dir, Binaries: binaries, WithControllerManager: true,
		HostArgs:   []string{"--inventory-interval", "500ms", "--inventory-resync", "5s", "--lease-duration", "4s", "--sweep-interval", "2s"},
		KeeperArgs: []string{"--lease-duration", "4s"},
	}
	if wine.OnWindows() {
		if shared.err = wine.UseAgent(ctx, &options); shared.err != nil {
			return
		}
	}
	shared.site, shared.err = site.Start(ctx, options)
}

// newTenant starts the site, if no test did yet, and makes a tenant named after the test. The test runs in parallel with others.
func newTenant(t *testing.T) *tenant.Tenant {
	t.Helper()
	t.Parallel()
	tool.Require(t, append(filesystem.Programs, "qemu-img")...)
	if wine.OnWindows() {
		wine.Require(t)
	}
	shared.once.Do(startSite)
	var missing *controlplane.MissingBinaryError
	if errors.As(shared.err, &missing) && os.Getenv("CI") == "" {
		t.Skip(shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return tenant.New(t, shared.site, nameOf(t))
}

// nameOf makes a short name of a test's: the first letters of its words.
func nameOf(t *testing.T) string {
	var name strings.Builder
	position := 0 // within a word
	for _, c := range strings.TrimPrefix(t.Name(), "Test") {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		digit := c >= '0' && c <= '9'
		if position++; !letter || unicode.IsUpper(c) {
			position = 0
		}
		if position < 4 && name.Len() < 30 && (letter || digit) {
			name.WriteRune(unicode.ToLower(c))
		}
	}
	return name.String()
}
