//go:build windows

package com

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi/wmitest"
)

// TestContract runs against the host that package test/wine serves.
func TestContract(t *testing.T) {
	wmitest.Run(t, wmitest.Host{
		Open:         func(_ *testing.T, namespace string) wmi.Session { return New(namespace) },
		Restart:      func(t *testing.T) { host(t, "restart") },
		Deny:         func(t *testing.T, denied bool) { host(t, "deny %t", denied) },
		FailProperty: func(t *testing.T, class, property string) { host(t, "fail %s.%s", class, property) },
	})
}

var answers = bufio.NewReader(os.Stdin)

// host has something done to the emulated host by the program that runs these tests.
func host(t *testing.T, format string, args ...any) {
	t.Helper()
	fmt.Printf("\nhost: "+format+"\n", args...)
	if answer, err := answers.ReadString('\n'); err != nil || strings.TrimSpace(answer) != "done" {
		t.Fatalf("the host answered %q, %v", answer, err)
	}
}

func TestOpenTellsWhatIsMissing(t *testing.T) {
	if _, err := Open(t.Context(), wmi.NamespaceCluster); !errors.Is(err, wmi.ErrInvalidNamespace) {
		t.Errorf("a namespace that is missing: %v", err)
	}
	host(t, "deny true")
	if _, err := Open(t.Context(), wmi.NamespaceVirtualization); !errors.Is(err, wmi.ErrAccessDenied) {
		t.Errorf("without rights: %v", err)
	}
	host(t, "deny false")
	s, err := Open(t.Context(), wmi.NamespaceVirtualization)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Query(t.Context(), "SELECT * FROM Msvm_ComputerSystem"); !errors.Is(err, wmi.ErrDisconnected) {
		t.Errorf("after its end: %v", err)
	}
}
