package qemu

import (
	"os"
	"path/filepath"
	"testing"
)

// ForTest makes a Linux in dir. The kernel is kept in the user's cache.
func ForTest(tb testing.TB, dir string) *Linux {
	tb.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		tb.Fatal(err)
	}
	linux, err := MakeLinux(tb.Context(), dir, filepath.Join(cache, "hyperkeep", "guest"))
	if err != nil {
		tb.Fatal(err)
	}
	return linux
}
