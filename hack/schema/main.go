// Command schema writes the classes of the emulated Hyper-V host: those that classes.txt lists, as github.com/microsoft/wmi has them in its generated
// code for Windows Server 2019, with what the code for 23H2 has more. classes.txt adds what Go types do not tell apart. The code is read, never
// compiled: it builds for Windows only.
//
// Usage: schema CLASSES OUTPUT, in the module that requires github.com/microsoft/wmi.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const module = "github.com/microsoft/wmi"

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: schema CLASSES OUTPUT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "schema:", err)
		os.Exit(1)
	}
}

func run(classes, output string) error {
	list, err := exec.CommandContext(context.Background(), "go", "list", "-m", "-f", "{{.Dir}} {{.Version}}", module).Output()
	if err != nil {
		return fmt.Errorf("find %s, which go mod download fetches: %w", module, err)
	}
	dir, version, _ := strings.Cut(strings.TrimSpace(string(list)), " ")
	text, err := os.ReadFile(classes)
	if err != nil {
		return err
	}
	o, err := parseOverlay(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", classes, err)
	}
	out := &bytes.Buffer{}
	fmt.Fprintf(out, header, module, version, filepath.Base(classes))
	for _, n := range o.namespaces {
		if err := n.write(out, dir); err != nil {
			return err
		}
	}
	return os.WriteFile(output, out.Bytes(), 0o644)
}

const header = `# Made by hack/schema of %s %s and %s; make schema makes it anew. Do not edit.
#
#   class NAME : BASE : BASE ...    the class, and the classes that it derives from
#     key PROPERTY ...              the properties that make up its object path
#     association                   the class ties objects together
#     TYPE PROPERTY ...             its properties, inherited ones too
#     method NAME(PARAMETER TYPE, out PARAMETER TYPE, inout PARAMETER TYPE ...)
#     since BUILD MEMBER ...        members that older versions of Windows lack; of no member, the class itself
#
# Types are CIM types; "ref" is an object path, "object:CLASS" an embedded instance that travels as text.
`
