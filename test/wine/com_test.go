package wine

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// initializesCOM are the packages that initialize COM when they are merely linked, and end the process where that fails.
var initializesCOM = []string{"github.com/microsoft/wmi/pkg/base/session", "github.com/microsoft/wmi/pkg/base/instance"}

func TestAgentLinksNothingThatInitializesCOM(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "github.com/hyperkeep/hyperkeep/cmd/agent")
	cmd.Env = append(os.Environ(), "GOOS=windows", "GOARCH=amd64", "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := strings.Fields(string(out))
	if !slices.Contains(linked, "github.com/microsoft/wmi/pkg/wmiinstance") {
		t.Error("the WMI library is not linked at all")
	}
	for _, pkg := range initializesCOM {
		if slices.Contains(linked, pkg) {
			t.Errorf("%s is linked", pkg)
		}
	}
}

// TestAgentStartsWithoutCOM runs it where the DLLs of COM cannot be loaded.
func TestAgentStartsWithoutCOM(t *testing.T) {
	Require(t)
	p := NewPrefix(t, "", "")
	agent := Build(t, "cmd/agent")
	for _, args := range [][]string{{"--version"}, {"help"}} {
		cmd := p.Command(t.Context(), agent, args...)
		cmd.Env = append(cmd.Env, "WINEDLLOVERRIDES=ole32=;oleaut32=;combase=;wbemdisp=")
		if out, err := cmd.CombinedOutput(); err != nil || len(out) == 0 {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	// The same machine fails who needs COM, or the above could not fail.
	cmd := p.Command(t.Context(), BuildTest(t, "agent/hyperv/wmi/com"), "-test.run=TestOpen")
	cmd.Env = append(cmd.Env, "WINEDLLOVERRIDES=ole32=;oleaut32=;combase=;wbemdisp=")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "Module not found") {
		t.Errorf("WMI was called without COM: %v\n%s", err, out)
	}
}
