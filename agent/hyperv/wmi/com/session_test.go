//go:build windows

package com

import (
	"errors"
	"testing"

	"github.com/hyperkeep/hyperkeep/agent/hyperv/wmi"
)

// TestSessionOutlivesItsHost ends the emulated host and starts it anew: whatever was cached of the old one must not reach the new one.
func TestSessionOutlivesItsHost(t *testing.T) {
	s, err := Open(t.Context(), wmi.NamespaceVirtualization)
	if err != nil {
		t.Fatal(err)
	}
	find := func() ([]wmi.Instance, error) {
		return s.Query(t.Context(), "SELECT * FROM Msvm_ComputerSystem WHERE Caption = 'Virtual Machine'")
	}
	before, err := find()
	if err != nil || len(before) == 0 {
		t.Fatalf("%d VMs, %v", len(before), err)
	}
	for range 2 {
		host(t, "reopen")
		if _, err := find(); err != nil && !errors.Is(err, wmi.ErrDisconnected) {
			t.Errorf("the first call of a new host: %v", err)
		}
		if after, err := find(); err != nil || len(after) != len(before) {
			t.Errorf("%d VMs, not %d: %v", len(after), len(before), err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
