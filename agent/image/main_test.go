package image_test

import (
	"flag"
	"os"
	"testing"
)

// TestMain keeps the checks against the model short: each opens a repository a few times, and deriving a key from a password is slow on
// purpose. More of them are asked for with -rapid.checks.
func TestMain(m *testing.M) {
	flag.Parse()
	asked := false
	flag.Visit(func(f *flag.Flag) { asked = asked || f.Name == "rapid.checks" })
	if !asked {
		if err := flag.Set("rapid.checks", "10"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}
