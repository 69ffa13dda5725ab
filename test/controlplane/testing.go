package controlplane

import (
	"errors"
	"os"
	"testing"
)

// ForTest starts a control plane that ends with the test. Where the binaries are missing the test
// is skipped with a word on how to get them, or fails if CI=true, where nothing may be skipped.
func ForTest(tb testing.TB, opts Options) *ControlPlane {
	tb.Helper()
	c, err := Start(tb.Context(), opts)
	var missing *MissingBinaryError
	if errors.As(err, &missing) && os.Getenv("CI") != "true" {
		tb.Skip(err)
	}
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Stop(); err != nil {
			tb.Errorf("stop control plane: %v", err)
		}
	})
	return c
}
